//go:build !unix

package brokertest

import "os"

// Without these signals the methods that need them fail.
var signalDrain, signalPause, signalResume, signalReload os.Signal
