//go:build !linux

package main

import "errors"

func confine([]string) (missing []error) {
	return []error{errors.New("only Linux confines a process as this program knows it")}
}
