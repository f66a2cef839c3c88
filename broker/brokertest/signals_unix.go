//go:build unix

package brokertest

import (
	"os"
	"syscall"
)

var (
	signalDrain  os.Signal = syscall.SIGTERM
	signalPause  os.Signal = syscall.SIGSTOP
	signalResume os.Signal = syscall.SIGCONT
	signalReload os.Signal = syscall.SIGHUP
)
