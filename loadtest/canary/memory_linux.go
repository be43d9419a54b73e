package canary

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Extent says how much of a process's memory was scanned, in bytes.
type Extent struct {
	// Scanned are the pages that were read and had a place in memory or in
	// swap. What a process has reserved and not used is not among them.
	Scanned int64
	// Resident is what the kernel says that the process has in memory (Rss of
	// /proc/PID/smaps_rollup).
	Resident int64
	Swapped  int64 // likewise (Swap)
}

// Memory scans all readable memory of a process, which should be stopped
// meanwhile (SIGSTOP): it reads the pages of /proc/PID/maps that
// /proc/PID/pagemap calls present, from /proc/PID/mem. The caller needs the
// right to trace the process: its parent has it where both are one user's and
// no security module objects, root has it anyway.
func Memory(pid int, sweep *Sweep) (Extent, error) {
	e, err := extent(pid)
	if err != nil {
		return e, err
	}
	regions, err := readable(pid)
	if err != nil {
		return e, err
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return e, err
	}
	defer mem.Close()
	pages, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		return e, err
	}
	defer pages.Close()
	page := int64(os.Getpagesize())
	buf := make([]byte, pagesAtOnce*page)
	for _, r := range regions {
		for at := r.from; at < r.to; at += pagesAtOnce * page {
			end := min(r.to, at+pagesAtOnce*page)
			present, err := presentPages(pages, at/page, end/page)
			if err != nil {
				return e, fmt.Errorf("pages of %s: %w", r.name, err)
			}
			for i := 0; i < len(present); {
				run := i
				for run < len(present) && present[run] == present[i] {
					run++
				}
				if !present[i] {
					sweep.Gap()
				} else {
					b := buf[:int64(run-i)*page]
					if _, err := mem.ReadAt(b, at+int64(i)*page); err != nil {
						return e, fmt.Errorf("read %s at %#x: %w", r.name, at+int64(i)*page, err)
					}
					sweep.Write(b)
					e.Scanned += int64(len(b))
				}
				i = run
			}
		}
		sweep.Gap()
	}
	return e, nil
}

// pagesAtOnce is how many pages are read at once.
const pagesAtOnce = 1024

// region is a range of addresses that a process has mapped.
type region struct {
	from, to int64
	name     string // a file, or in brackets what it is; empty: anonymous
}

// readable lists the regions that the process may read itself, see
// proc_pid_maps(5). The kernel's own ([vvar], [vsyscall]) cannot be read
// from outside and hold no byte of the process.
func readable(pid int) ([]region, error) {
	all, err := mappings(pid)
	var rs []region
	for _, m := range all {
		if m.mode[0] == 'r' && !strings.HasPrefix(m.name, "[vvar") && m.name != "[vsyscall]" {
			rs = append(rs, m.region)
		}
	}
	if err == nil && len(rs) == 0 {
		err = errors.New("the process has no readable memory")
	}
	return rs, err
}

type mapping struct {
	region
	mode string // rwxp
}

func mappings(pid int) ([]mapping, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []mapping
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var m mapping
		var offset, device string
		var inode int64
		// The last field is missing where memory is anonymous.
		if n, err := fmt.Sscanf(lines.Text(), "%x-%x %s %s %s %d %s", &m.from, &m.to, &m.mode, &offset, &device, &inode, &m.name); n < 6 {
			if strings.HasSuffix(lines.Text(), "[vsyscall]") {
				continue // its address has 64 bits
			}
			return nil, fmt.Errorf("%s: %q: %w", f.Name(), lines.Text(), err)
		}
		all = append(all, m)
	}
	return all, lines.Err()
}

// MappedFiles returns the files that a process has mapped into its memory, the
// program itself first, each once.
func MappedFiles(pid int) ([]string, error) {
	all, err := mappings(pid)
	var files []string
	seen := make(map[string]bool)
	for _, m := range all {
		if strings.HasPrefix(m.name, "/") && !seen[m.name] {
			seen[m.name] = true
			files = append(files, m.name)
		}
	}
	return files, err
}

// presentPages says which pages are in memory or in swap, see
// proc_pid_pagemap(5).
func presentPages(f *os.File, from, to int64) ([]bool, error) {
	b := make([]byte, 8*(to-from))
	if _, err := f.ReadAt(b, 8*from); err != nil {
		return nil, err
	}
	present := make([]bool, to-from)
	for i := range present {
		present[i] = binary.NativeEndian.Uint64(b[8*i:])>>62 != 0
	}
	return present, nil
}

// extent reads what a process has in memory.
func extent(pid int) (e Extent, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return e, err
	}
	for line := range strings.Lines(string(b)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "Rss: %d kB", &kib); err == nil {
			e.Resident = kib << 10
		}
		if _, err := fmt.Sscanf(line, "Swap: %d kB", &kib); err == nil {
			e.Swapped = kib << 10
		}
	}
	if e.Resident == 0 {
		return e, fmt.Errorf("/proc/%d/smaps_rollup says nothing about resident memory", pid)
	}
	return e, nil
}
