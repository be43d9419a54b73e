package loadtest

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"text/tabwriter"
	"time"
)

// Seen is what one viewer saw.
type Seen struct {
	Bytes        int64         `json:"bytes"` // verified
	Watched      time.Duration `json:"watched_ns"`
	Started      bool          `json:"started"`
	StartUp      time.Duration `json:"start_up_ns"` // from the first request to the first picture
	Stalls       int           `json:"stalls"`
	Stalled      time.Duration `json:"stalled_ns"`
	LongestStall time.Duration `json:"longest_stall_ns"`
	Corrupt      int           `json:"corrupt"` // requests whose bytes were not the film's
	Errors       []string      `json:"errors,omitempty"`
}

// Report is the result of a run.
type Report struct {
	Viewers  int           `json:"viewers"`
	Agents   int           `json:"agents"`
	Bitrate  int64         `json:"bitrate_bits_per_second"`
	Duration time.Duration `json:"duration_ns"`

	Bytes        int64          `json:"bytes"`                   // verified
	Goodput      float64        `json:"goodput_bits_per_second"` // of all viewers together
	NeverStarted int            `json:"never_started"`           // viewers that saw no picture
	StartUpP50   time.Duration  `json:"start_up_p50_ns"`         // of those that started
	StartUpP95   time.Duration  `json:"start_up_p95_ns"`
	Stalls       int            `json:"stalls"`
	StallRatio   float64        `json:"stall_ratio"` // time stalled of time watched
	LongestStall time.Duration  `json:"longest_stall_ns"`
	Corrupt      int            `json:"corrupt"`
	Errors       map[string]int `json:"errors,omitempty"` // by text
	Each         []Seen         `json:"each,omitempty"`   // in the order of the viewers
	PairedIn     time.Duration  `json:"paired_in_ns"`     // to make all agents and devices
}

// summarise fills the sums of a report from its viewers.
func (r *Report) summarise() {
	var starts []time.Duration
	var watched, stalled time.Duration
	r.Errors = make(map[string]int)
	for _, s := range r.Each {
		r.Bytes += s.Bytes
		r.Stalls += s.Stalls
		r.Corrupt += s.Corrupt
		r.LongestStall = max(r.LongestStall, s.LongestStall)
		stalled += s.Stalled
		watched += s.Watched
		for _, e := range s.Errors {
			r.Errors[e]++
		}
		if s.Started {
			starts = append(starts, s.StartUp)
		} else {
			r.NeverStarted++
		}
	}
	r.StartUpP50, r.StartUpP95 = quantile(starts, 0.50), quantile(starts, 0.95)
	if watched > 0 {
		r.StallRatio = stalled.Seconds() / watched.Seconds()
	}
	if r.Duration > 0 {
		r.Goodput = float64(r.Bytes) * 8 / r.Duration.Seconds()
	}
}

// quantile returns the smallest value that at least the share q of all do not
// exceed; 0 if there are none.
func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	i := int(math.Ceil(float64(len(all))*q)) - 1
	return all[min(max(i, 0), len(all)-1)]
}

// Held reports whether every viewer played, without a stall, an error or a
// wrong byte.
func (r *Report) Held() bool {
	return r.NeverStarted == 0 && r.Stalls == 0 && r.Corrupt == 0 && len(r.Errors) == 0
}

// Write writes the report for people.
func (r *Report) Write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("viewers", "%d at %s through %d agents for %v", r.Viewers, bits(float64(r.Bitrate)), r.Agents, r.Duration.Round(time.Second))
	row("goodput", "%s, %.1f MB verified", bits(r.Goodput), float64(r.Bytes)/1e6)
	row("start-up", "p50 %v, p95 %v", r.StartUpP50.Round(time.Millisecond), r.StartUpP95.Round(time.Millisecond))
	row("stalls", "%d, %.2f%% of the time, longest %v", r.Stalls, 100*r.StallRatio, r.LongestStall.Round(time.Millisecond))
	if r.NeverStarted > 0 {
		row("never started", "%d", r.NeverStarted)
	}
	if r.Corrupt > 0 {
		row("CORRUPT", "%d requests brought wrong bytes", r.Corrupt)
	}
	for _, text := range slices.Sorted(maps.Keys(r.Errors)) {
		row("error", "%d times: %s", r.Errors[text], text)
	}
	return t.Flush()
}

func bits(v float64) string {
	switch {
	case v >= 1e9:
		return fmt.Sprintf("%.2f Gbit/s", v/1e9)
	case v >= 1e6:
		return fmt.Sprintf("%.1f Mbit/s", v/1e6)
	}
	return fmt.Sprintf("%.0f kbit/s", v/1e3)
}
