package canary

import (
	"debug/elf"
	"debug/gosym"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Names returns all names that a Go program for Linux was linked with, sorted:
// its functions and source files from the table that the runtime prints stacks
// with, which stripping leaves in, and its symbols where it is not stripped.
func Names(program string) ([]string, error) {
	f, err := elf.Open(program)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	defer f.Close()
	text, lines := f.Section(".text"), f.Section(".gopclntab")
	if text == nil || lines == nil {
		return nil, fmt.Errorf("%s is no Go program: it has no table of functions", program)
	}
	b, err := lines.Data()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	table, err := gosym.NewTable(nil, gosym.NewLineTable(b, text.Addr))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	names := make(map[string]bool)
	for _, fn := range table.Funcs {
		names[fn.Name] = true
	}
	for file := range table.Files {
		names[file] = true
	}
	symbols, err := f.Symbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	for _, s := range symbols {
		names[s.Name] = true
	}
	return slices.Sorted(maps.Keys(names)), nil
}
