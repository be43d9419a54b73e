package result

import (
	"maps"
	"slices"
	"strconv"
	"sync"
)

// Bounds of what one run keeps.
const (
	maxKeys    = 64      // distinct error codes, and distinct bitrates
	maxSamples = 86_400  // a day of seconds
	otherKey   = "other" // where what exceeds maxKeys is counted
)

// histNames lists all histograms of a Result, in the order people read them.
func histNames() []string {
	return []string{HistStart, HistTTFB, HistSegment, HistStall, HistConnect, HistDelay}
}

// Recorder collects a run while it goes on. All methods may be called from
// several goroutines at once.
type Recorder struct {
	hists map[string]*Hist // set at construction; each has its own lock

	mu sync.Mutex
	// guarded by mu
	viewers  Viewers
	errors   map[string]int64
	bitrates map[string]int64
	samples  []Sample
}

// NewRecorder returns a recorder in which every histogram exists and is empty.
func NewRecorder() *Recorder {
	r := &Recorder{
		hists:    make(map[string]*Hist),
		errors:   make(map[string]int64),
		bitrates: make(map[string]int64),
	}
	for _, name := range histNames() {
		r.hists[name] = NewHist()
	}
	return r
}

// Hist returns the histogram of that name, one of the Hist constants. Any
// other name is a mistake in the program and panics.
func (r *Recorder) Hist(name string) *Hist {
	h := r.hists[name]
	if h == nil {
		panic("result: no histogram is called " + strconv.Quote(name))
	}
	return h
}

// Add calls f with the totals while it holds the lock. f must be short and
// must not call the recorder. A viewer adds what it saw once a segment or once
// a second, not once a read.
func (r *Recorder) Add(f func(v *Viewers)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.viewers)
}

// Error counts one error by its code. After 64 distinct codes, new ones count
// as "other".
func (r *Recorder) Error(code string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	count(r.errors, code, 1)
}

// Bitrate counts one fetched segment of that bitrate, in bit/s. After 64
// distinct bitrates, new ones count as "other".
func (r *Recorder) Bitrate(bits int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	count(r.bitrates, strconv.FormatInt(bits, 10), 1)
}

func count(m map[string]int64, key string, n int64) {
	if _, known := m[key]; !known && len(m) >= maxKeys {
		key = otherKey
	}
	m[key] += n
}

// Sample adds one second. Those after the first day of a run are not kept.
func (r *Recorder) Sample(s Sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.samples) < maxSamples {
		r.samples = append(r.samples, s)
	}
}

// Viewers returns the totals so far.
func (r *Recorder) Viewers() Viewers {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.viewers
}

// Result returns a copy of everything recorded so far. What the recorder
// cannot know (times, title, scenario, machine, usage) is left to the caller.
func (r *Recorder) Result() *Result {
	r.mu.Lock()
	res := &Result{
		Schema:   Schema,
		Viewers:  r.viewers,
		Hists:    make(map[string]*Hist, len(r.hists)),
		Errors:   maps.Clone(r.errors),
		Bitrates: maps.Clone(r.bitrates),
		Samples:  slices.Clone(r.samples),
	}
	r.mu.Unlock()
	for name, h := range r.hists {
		res.Hists[name] = h.Clone()
	}
	return res
}
