package main

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// fallbackMemory is taken where the machine's memory cannot be read.
const fallbackMemory = 1 << 30

// machineMemory returns the bytes of memory that this process may use at most:
// the machine's, or the limit of its control group (v2) or of one above it,
// whichever is the least. root is the file system's root. 0 means unknown.
func machineMemory(root fs.FS) int64 {
	memory := totalMemory(root)
	for _, limit := range groupLimits(root) {
		if memory == 0 || limit < memory {
			memory = limit
		}
	}
	return memory
}

// totalMemory reads the machine's memory, see proc_meminfo(5).
func totalMemory(root fs.FS) int64 {
	b, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "MemTotal: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	return 0
}

// groupLimits reads memory.max of this process's control group and of those
// above it, as far as they can be seen from here, see cgroups(7).
func groupLimits(root fs.FS) (limits []int64) {
	f, err := root.Open("proc/self/cgroup")
	if err != nil {
		return nil
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		group, ok := strings.CutPrefix(lines.Text(), "0::")
		if !ok {
			continue
		}
		for dir := path.Join("sys/fs/cgroup", group); strings.HasPrefix(dir, "sys/fs/cgroup"); dir = path.Dir(dir) {
			b, err := fs.ReadFile(root, path.Join(dir, "memory.max"))
			if err != nil {
				continue
			}
			if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n > 0 {
				limits = append(limits, n)
			}
		}
	}
	return limits
}

const (
	// idleGC and busyGC bound garbage in percent of what is in use. Handshakes
	// leave garbage between what their sessions keep, and the less of it there
	// is, the denser sessions lie. Forwarding needs no such thing: idleGC would
	// cost it a tenth of its CPU.
	idleGC, busyGC = 15, 100
	// A relay is busy that has forwarded busyRate bytes a second within the
	// last idleAfter.
	busyRate  = 1 << 20
	idleAfter = 10 * time.Second
	// giveBackEvery is how often an idle relay returns free memory to the system.
	giveBackEvery = 30 * time.Second
)

// tidy keeps memory small while the relay is idle, until ctx ends. forwarded
// returns the bytes that have been forwarded so far. GOGC in the environment
// rules instead of idleGC and busyGC.
func tidy(ctx context.Context, forwarded func() int64) {
	setGC := debug.SetGCPercent
	if os.Getenv("GOGC") != "" {
		setGC = func(int) int { return 0 }
	}
	setGC(idleGC)
	second := time.NewTicker(time.Second)
	defer second.Stop()
	last, given, idle := forwarded(), time.Now(), true
	var busyUntil time.Time
	for {
		select {
		case now := <-second.C:
			total := forwarded()
			if total-last > busyRate {
				busyUntil = now.Add(idleAfter)
			}
			last = total
			switch was := idle; {
			case now.Before(busyUntil):
				idle = false
				if was {
					setGC(busyGC)
				}
			case !was:
				idle = true
				setGC(idleGC)
			case now.Sub(given) >= giveBackEvery:
				given = now
				debug.FreeOSMemory()
			}
		case <-ctx.Done():
			return
		}
	}
}
