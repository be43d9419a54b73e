package loadtest

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/live"
	"github.com/blindrelay/blindrelay/loadtest/probe"
	"github.com/blindrelay/blindrelay/loadtest/result"
	"github.com/blindrelay/blindrelay/loadtest/viewer"
)

// Snapshot is what a live view shows.
type Snapshot = live.State

// The generator was the bottleneck if its own timers fired this late, or if it
// took this share of all cores: then viewers stall because they are not run.
const (
	latenessLimit = 50 * time.Millisecond // of the 99th percentile
	latenessEvery = 10 * time.Millisecond
	cpuLimit      = 0.85
)

// sampler looks at everything once a second.
type sampler struct {
	of          *run
	bytes       int64
	stalls      int64
	self, relay last
	failed      error // why the relay could not be looked at
}

// last is a process's total when it was last looked at, and its peak.
type last struct {
	first, now result.Usage
	peak       result.Usage
	seen       bool
}

// take returns what the process took since the last call.
func (l *last) take(u result.Usage) result.Usage {
	if !l.seen {
		l.first, l.now, l.seen = u, u, true
	}
	d := u
	d.CPU -= l.now.CPU
	d.Packets -= l.now.Packets
	l.now = u
	l.peak.Memory = max(l.peak.Memory, u.Memory)
	l.peak.Goroutines = max(l.peak.Goroutines, u.Goroutines)
	l.peak.Buffered = max(l.peak.Buffered, u.Buffered)
	l.peak.Streams = max(l.peak.Streams, u.Streams)
	return d
}

// total returns what the process took in the run: sums and peaks.
func (l *last) total() result.Usage {
	u := l.peak
	u.CPU = l.now.CPU - l.first.CPU
	u.Packets = l.now.Packets - l.first.Packets
	return u
}

func newSampler(r *run) *sampler {
	s := &sampler{of: r}
	s.look(context.Background())
	return s
}

// run samples until ctx ends, and a last time then.
func (s *sampler) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.sample(ctx)
		case <-ctx.Done():
			s.look(context.Background())
			return
		}
	}
}

// look reads the processes.
func (s *sampler) look(ctx context.Context) (self, relay result.Usage) {
	if u, err := (probe.Self{}).Usage(ctx); err == nil {
		self = s.self.take(u)
	}
	if s.of.target.Probe == nil {
		return self, relay
	}
	ctx, cancel := context.WithTimeout(ctx, 900*time.Millisecond)
	defer cancel()
	u, err := s.of.target.Probe.Usage(ctx)
	if err != nil {
		s.failed = err
		return self, relay
	}
	return self, s.relay.take(u)
}

func (s *sampler) sample(ctx context.Context) {
	r := s.of
	r.mu.Lock()
	viewers := slices.Clone(r.viewers)
	r.mu.Unlock()
	now := result.Sample{At: time.Since(r.began)}
	now.Load, now.Relay = s.look(ctx)
	var bytes, stalls int64
	var ahead []float64
	for _, v := range viewers {
		state := v.State()
		bytes += state.Bytes
		stalls += state.Stalls
		switch state.Phase {
		case viewer.Starting:
			now.Starting++
		case viewer.Playing:
			now.Playing++
		case viewer.Stalled:
			now.Stalled++
		default:
			continue
		}
		ahead = append(ahead, state.Ahead.Seconds())
	}
	now.Goodput, s.bytes = float64(bytes-s.bytes)*8, bytes
	now.Stalls, s.stalls = stalls-s.stalls, stalls
	slices.Sort(ahead)
	for i, q := range []float64{0.05, 0.5, 0.95} {
		if len(ahead) > 0 {
			now.Buffer[i] = ahead[int(math.Ceil(q*float64(len(ahead))))-1]
		}
	}
	r.rec.Sample(now)
	r.mu.Lock()
	r.latest = now
	r.mu.Unlock()
}

// totals puts what the processes took into the result, and whether the
// generator was the bottleneck.
func (s *sampler) totals(res *result.Result) {
	res.Load = s.self.total()
	if s.relay.seen {
		u := s.relay.total()
		res.Relay = &u
	}
	res.Links = s.of.rig.Links()
	late := res.Hists[result.HistDelay].Quantile(0.99)
	share := res.Load.CPU.Seconds() / res.Took.Seconds() / float64(runtime.GOMAXPROCS(0))
	switch {
	case late > latenessLimit:
		res.Bottleneck = fmt.Sprintf("blindload's own timers fired up to %v late (p99), at most %v is fair: run it on a machine of its own, or with fewer viewers", late.Round(time.Millisecond), latenessLimit)
	case share > cpuLimit:
		res.Bottleneck = fmt.Sprintf("blindload itself took %.0f%% of this machine's processors: run it on a machine of its own, or with fewer viewers", 100*share)
	}
}

// recordLateness measures how late timers fire, until ctx ends.
func recordLateness(ctx context.Context, h *result.Hist) {
	t := time.NewTimer(latenessEvery)
	defer t.Stop()
	for {
		due := time.Now().Add(latenessEvery)
		t.Reset(latenessEvery)
		select {
		case <-t.C:
			h.RecordCorrected(time.Since(due), latenessEvery)
		case <-ctx.Done():
			return
		}
	}
}

func (r *run) snapshot() Snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	whole := r.scenario.Duration
	if r.scenario.Arrivals == 0 {
		whole += r.scenario.Ramp
	}
	return Snapshot{
		Title: r.scenario.Title, Left: max(0, whole-time.Since(r.began)), Now: r.latest,
		Viewers: r.rec.Viewers(), StartP95: r.rec.Hist(result.HistStart).Quantile(0.95), Relay: r.target.Probe != nil,
	}
}

// machine describes this machine, as far as it says.
func machine() result.Machine {
	m := result.Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.System += " " + strings.TrimSpace(string(b))
	}
	m.CPU = field("/proc/cpuinfo", "model name")
	kib, _ := strconv.ParseInt(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"), 10, 64)
	m.Memory = kib << 10
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				m.Revision = s.Value
			}
		}
	}
	return m
}

// field returns the first value of a key in one of the kernel's tables.
func field(path, key string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if k, v, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
