package main

import (
	"os"
	"strings"
	"unsafe"
)

// takeArguments returns the arguments and blots invites out where they came
// from, so that the list of processes shows them for a moment only.
func takeArguments() []string {
	var args []string
	for _, a := range os.Args[1:] {
		args = append(args, strings.Clone(a))
		if strings.HasPrefix(strings.ToUpper(strings.TrimSpace(a)), "BR") && len(a) > 64 {
			// The strings of os.Args are the process's own argument memory on
			// Unix, which is writable, and a private copy elsewhere.
			memory := unsafe.Slice(unsafe.StringData(a), len(a))
			for i := range memory {
				memory[i] = '*'
			}
		}
	}
	return args
}
