//go:build e2e && linux

package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/canary"
)

// watched is a relay whose traces are looked for.
type watched struct {
	relay
	program         string // its path
	home, work, tmp string // directories that it could write to
}

// startWatched starts the relay as it is shipped, with a log of everything, a
// state that exists already, and directories that nothing else writes to.
func startWatched(t *testing.T, shipped string) watched {
	t.Helper()
	state := newState(t)
	startRelay(t, state, "127.0.0.1:0", "--admit", "open").stop(t)
	r := watched{relay: relay{state: state, ops: freeAddress(t)}, program: filepath.Join(shipped, "blindrelay")}
	cmd := command(context.Background(), t, r.program, "serve", "--listen", "127.0.0.1:0", "--state", state, "--ops", r.ops,
		"--admit", "open", "--log-level", "debug", "--log-format", "text", "--jitter-buffer", fmt.Sprint(jitterBuffer), "--drain-timeout", "0s")
	for _, kv := range cmd.Env {
		if home, ok := strings.CutPrefix(kv, "HOME="); ok {
			r.home = home
		}
	}
	r.work, r.tmp = t.TempDir(), t.TempDir()
	cmd.Dir = r.work
	cmd.Env = append(cmd.Env, "TMPDIR="+r.tmp)
	r.process = start(t, "relay", cmd)
	r.address = r.firstLine(t)
	return r
}

// awaitFull waits until the jitter buffers are full: nine tenths of what they
// can hold, as records end where blocks do not.
func (r watched) awaitFull(t *testing.T, capacity int) {
	t.Helper()
	took := eventually(t, 2*time.Minute, "the jitter buffers fill", func() error {
		used, err := r.metric("blindrelay_buffer_used_bytes", "")
		if err == nil && used < 0.9*float64(capacity) {
			err = fmt.Errorf("%.0f bytes of %d", used, capacity)
		}
		return err
	})
	t.Logf("the jitter buffers were full after %v", took.Round(time.Millisecond))
}

// pages returns all that the operator's server shows.
func (r watched) pages(t *testing.T) (all string) {
	t.Helper()
	for _, page := range []string{"/metrics", "/healthz", "/readyz", "/", "/debug/pprof/"} {
		_, body, err := get("http://" + r.ops + page)
		must(t, err)
		all += body
	}
	return all
}

// scanMemory stops the relay, scans its memory for all that the endpoints have
// told, and lets it go on. It demands that the scan has seen the memory: nearly
// all that is resident, and in it the sealed records that fill jitter buffers
// of this capacity, in bytes.
func (r watched) scanMemory(t *testing.T, s *party, capacity int) canary.Found {
	t.Helper()
	pid := r.cmd.Process.Pid
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	defer syscall.Kill(pid, syscall.SIGCONT)
	sp := s.listen(t)
	secrets, samples := sp.secrets.Sweep(), sp.samples.Sweep()
	begin := time.Now()
	extent, err := canary.Memory(pid, secrets)
	must(t, err)
	took := time.Since(begin)
	_, err = canary.Memory(pid, samples)
	must(t, err)
	t.Logf("%d spellings of secrets in %.1f MiB of memory within %v; %.1f MiB are resident, %.1f MiB in swap; %d of %d sealed records are there",
		sp.secrets.Patterns(), mib(extent.Scanned), took.Round(time.Millisecond), mib(extent.Resident), mib(extent.Swapped),
		len(samples.Found()), sp.samples.Patterns())
	if extent.Scanned < extent.Resident*9/10 {
		t.Errorf("only %d bytes were scanned of %d that are resident", extent.Scanned, extent.Resident)
	}
	const record = 16<<10 + 25 // bytes at most, most have as many
	if least := capacity * 9 / 10 / record; len(samples.Found()) < least {
		t.Errorf("%d sealed records were found in memory, the jitter buffers hold at least %d", len(samples.Found()), least)
	}
	return secrets.Found()
}

// footprint is what a relay has on disk, open and mapped.
type footprint struct {
	files   map[string][sha256.Size]byte // of the directories that it could write to
	written string                       // what it caused to be written to storage
}

// footprint looks at a relay's traces and demands that it has no file open but
// what the runtime needs, and no way to leave a core.
func (r watched) footprint(t *testing.T) footprint {
	t.Helper()
	f := footprint{files: make(map[string][sha256.Size]byte)}
	for _, dir := range []string{r.state, r.home, r.work, r.tmp} {
		for _, name := range files(t, dir) {
			h := sha256.New()
			copyFile(t, h, name)
			f.files[name] = [sha256.Size]byte(h.Sum(nil))
		}
	}
	if r.ended() {
		return f
	}
	proc := fmt.Sprintf("/proc/%d/", r.cmd.Process.Pid)
	fds, err := os.ReadDir(proc + "fd")
	must(t, err)
	for _, fd := range fds {
		target, err := os.Readlink(proc + "fd/" + fd.Name())
		if err != nil {
			continue // closed meanwhile
		}
		if !slices.ContainsFunc([]string{"socket:[", "pipe:[", "anon_inode:[", "/dev/null", "/sys/fs/cgroup/"}, func(p string) bool { return strings.HasPrefix(target, p) }) {
			t.Errorf("the relay has %s open", target)
		}
	}
	mapped, err := canary.MappedFiles(r.cmd.Process.Pid)
	must(t, err)
	if want := []string{r.program}; !slices.Equal(mapped, want) {
		t.Errorf("the relay has mapped %q, want itself alone", mapped)
	}
	limits, err := os.ReadFile(proc + "limits")
	must(t, err)
	core := ""
	for line := range strings.Lines(string(limits)) {
		if rest, ok := strings.CutPrefix(line, "Max core file size"); ok {
			core = strings.Join(strings.Fields(rest), " ")
		}
	}
	if core != "0 0 bytes" {
		t.Errorf("the relay may leave a core of %q", core)
	}
	io, err := os.ReadFile(proc + "io")
	must(t, err)
	for line := range strings.Lines(string(io)) {
		if strings.HasPrefix(line, "write_bytes:") {
			f.written = line
		}
	}
	return f
}

// same demands that nothing was written between two looks.
func (f footprint) same(t *testing.T, o footprint) {
	t.Helper()
	if !maps.Equal(f.files, o.files) {
		t.Errorf("the relay's files were %q and are %q, or their contents differ", slices.Sorted(maps.Keys(f.files)), slices.Sorted(maps.Keys(o.files)))
	}
	if o.written != "" && f.written != o.written {
		t.Errorf("the relay wrote to storage: %q before, %q after", f.written, o.written)
	}
}

// files lists the regular files under a directory.
func files(t *testing.T, dir string) (all []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			all = append(all, path)
		}
		return err
	}))
	return all
}

func copyFile(t *testing.T, w io.Writer, name string) {
	t.Helper()
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	_, err = io.Copy(w, f)
	must(t, err)
}
