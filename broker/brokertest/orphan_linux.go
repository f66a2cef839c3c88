package brokertest

import (
	"os/exec"
	"syscall"
)

// noOrphan makes a process end with the program that started it, however that ends.
func noOrphan(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
