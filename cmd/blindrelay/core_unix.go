//go:build unix

package main

import (
	"fmt"
	"syscall"
)

// noCore makes sure that the process leaves no core file, whatever limit it was
// started with: its memory, with the ciphertext and pseudonyms of users and the
// relay's keys, is not to outlive it.
func noCore() error {
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	return nil
}
