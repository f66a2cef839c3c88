//go:build unix

package ca

import (
	"os"
	"syscall"
)

func ownKeyFile(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && keyModeOK(info.Mode(), int(st.Uid), os.Geteuid())
}
