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

// giveBackEvery is how often a relay returns free memory to the system.
const giveBackEvery = 30 * time.Second

// gcPercent bounds the garbage beside what idle sessions hold. Forwarding
// makes little garbage, so it costs no CPU that BenchmarkForward could see;
// BenchmarkIdleAgents falls by about 8 of 77 KiB per agent.
const gcPercent = 25

// giveBack sets gcPercent, unless the environment has GOGC, and returns memory
// that is free to the system until ctx ends. Each handshake leaves garbage
// behind, more than the session then holds, and the runtime would keep it.
func giveBack(ctx context.Context) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	tick := time.NewTicker(giveBackEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			debug.FreeOSMemory()
		case <-ctx.Done():
			return
		}
	}
}
