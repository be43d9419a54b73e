//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// ownGroup keeps signals of the terminal from the command.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
