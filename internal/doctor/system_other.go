//go:build !linux

package doctor

import "errors"

var errSystem = errors.New("not known on this system")

func volumeOf(string) (volume, error) { return volume{}, errSystem }

func openFileLimit() (uint64, error) { return 0, errSystem }

func kernelClockSynced() (synced, known bool) { return false, false }
