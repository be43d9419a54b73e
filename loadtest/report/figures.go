package report

import (
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/result"
	"github.com/blindrelay/blindrelay/loadtest/units"
)

// figure is one number of a run. The list of figures is what the table, the
// CSV and the comparison show, so that none knows a number another does not.
type figure struct {
	column  string // of the CSV; stable
	label   string
	unit    unit
	better  direction
	measure measure
}

// measure reads a figure in its unit; false if the run has no data for it.
type measure func(*result.Result) (v float64, ok bool)

// unit is what a figure counts in.
type unit int

const (
	unitCount   unit = iota
	unitSeconds      // written as µs, ms or s
	unitBytes
	unitRate  // bit/s
	unitRatio // 1 is all
	unitCores // 1 is one core all the time
	unitPerSecond
	unitPerGiB // CPU seconds for each GiB of content
)

// direction says which way a figure improves.
type direction int

const (
	neither direction = iota
	lower
	higher
)

func (f figure) write(v float64) string {
	switch f.unit {
	case unitSeconds:
		return units.Duration(time.Duration(v * float64(time.Second)))
	case unitBytes:
		return units.Bytes(v)
	case unitRate:
		return units.Rate(v)
	case unitRatio:
		return units.Percent(v)
	case unitCores:
		return units.Number(v) + " cores"
	case unitPerSecond:
		return units.Number(v) + " /s"
	case unitPerGiB:
		return units.Number(v) + " s/GiB"
	default:
		return units.Number(v)
	}
}

// text is the figure of one run as people read it.
func (f figure) text(r *result.Result) string {
	v, ok := f.measure(r)
	if !ok {
		return "no data"
	}
	return f.write(v)
}

// section is a group of figures as people look for them.
type section struct {
	title   string
	figures []figure
}

// sections are all figures, in the order of the CSV.
func sections() []section {
	var durations []figure
	for _, t := range times() {
		durations = append(durations, t.figures()...)
	}
	return []section{
		{"Viewers", viewerFigures()},
		{titleTimes, durations},
		{titleRelay, relayFigures()},
		{"blindload", loadFigures()},
	}
}

// Sections that are shown in their own way.
const (
	titleTimes = "Times" // a table of percentiles
	titleRelay = "Relay" // only if it was looked at
)

// tables are the sections of a run that are lists of label and figure.
func tables(r *result.Result) []section {
	return slices.DeleteFunc(sections(), func(s section) bool {
		return s.title == titleTimes || s.title == titleRelay && r.Relay == nil
	})
}

// allFigures are the figures of all sections.
func allFigures() []figure {
	var all []figure
	for _, s := range sections() {
		all = append(all, s.figures...)
	}
	return all
}

func viewerFigures() []figure {
	type total = *result.Viewers
	return []figure{
		{"viewers", "viewers arrived", unitCount, neither, count(func(v total) int64 { return v.Arrived })},
		{"started", "saw a picture", unitCount, neither, count(func(v total) int64 { return v.Started })},
		{"never_started", "never started", unitCount, lower, neverStarted},
		{"left", "left early", unitCount, neither, count(func(v total) int64 { return v.Left })},
		{"watched_s", "content played", unitSeconds, neither, seconds(func(v total) time.Duration { return v.Watched })},
		{"stalls", "stalls", unitCount, lower, count(func(v total) int64 { return v.Stalls })},
		{"stall_ratio", "stall ratio", unitRatio, lower, (*result.Result).StallRatio},
		{"longest_stall_s", "longest stall", unitSeconds, lower, seconds(func(v total) time.Duration { return v.Longest })},
		{"goodput_bps", "goodput", unitRate, higher, (*result.Result).Goodput},
		{"bitrate_mean_bps", "mean bitrate chosen", unitRate, higher, meanBitrate},
		{"switches", "bitrate switches", unitCount, neither, count(func(v total) int64 { return v.Switches })},
		{"bytes", "content received", unitBytes, neither, count(func(v total) int64 { return v.Bytes })},
		{"verified_bytes", "of it verified", unitBytes, neither, count(func(v total) int64 { return v.Verified })},
		{"corrupt", "corrupt answers", unitCount, lower, count(func(v total) int64 { return v.Corrupt })},
		{"requests", "requests", unitCount, neither, count(func(v total) int64 { return v.Requests })},
		{"errors", "errors", unitCount, lower, errorCount},
		{"connects_per_s", "connects", unitPerSecond, neither, connects},
	}
}

func relayFigures() []figure {
	type usage = *result.Usage
	relay := func(f func(usage) float64) measure {
		return func(r *result.Result) (float64, bool) {
			if r.Relay == nil {
				return 0, false
			}
			return f(r.Relay), true
		}
	}
	return []figure{
		{"relay_cpu_s_per_gib", "CPU time a GiB", unitPerGiB, lower, relayCPUPerGiB},
		{"relay_cores", "CPU", unitCores, lower, func(r *result.Result) (float64, bool) {
			if r.Relay == nil {
				return 0, false
			}
			return perSecond(r.Relay.CPU.Seconds(), r.Took)
		}},
		{"relay_memory_bytes", "peak memory", unitBytes, lower, relay(func(u usage) float64 { return float64(u.Memory) })},
		{"relay_goroutines", "goroutines", unitCount, lower, relay(func(u usage) float64 { return float64(u.Goroutines) })},
		{"relay_buffered_bytes", "in jitter buffers", unitBytes, neither, relay(func(u usage) float64 { return float64(u.Buffered) })},
		{"relay_streams", "streams", unitCount, neither, relay(func(u usage) float64 { return float64(u.Streams) })},
		{"relay_packets", "UDP packets", unitCount, lower, func(r *result.Result) (float64, bool) {
			if r.Relay == nil || r.Relay.Packets == 0 {
				return 0, false
			}
			return float64(r.Relay.Packets), true
		}},
	}
}

func loadFigures() []figure {
	return []figure{
		{"load_cores", "CPU", unitCores, neither, func(r *result.Result) (float64, bool) {
			return perSecond(r.Load.CPU.Seconds(), r.Took)
		}},
		{"load_memory_bytes", "peak memory", unitBytes, neither, func(r *result.Result) (float64, bool) {
			return float64(r.Load.Memory), r.Load.Memory > 0
		}},
		{"load_goroutines", "goroutines", unitCount, neither, func(r *result.Result) (float64, bool) {
			return float64(r.Load.Goroutines), r.Load.Goroutines > 0
		}},
		{"links_packets", "packets on emulated lines", unitCount, neither, links(func(l *result.Links) float64 { return float64(l.Packets) })},
		{"links_lost", "lost there", unitCount, neither, links(func(l *result.Links) float64 { return float64(l.Lost + l.Dropped) })},
		{"links_late_s", "emulator late, mean", unitSeconds, neither, links(func(l *result.Links) float64 { return l.Late.Seconds() })},
		{"links_late_max_s", "emulator late, worst", unitSeconds, neither, links(func(l *result.Links) float64 { return l.LateMax.Seconds() })},
	}
}

func links(f func(*result.Links) float64) measure {
	return func(r *result.Result) (float64, bool) {
		if r.Links == nil {
			return 0, false
		}
		return f(r.Links), true
	}
}

// timing is one histogram as a row: its percentiles side by side.
type timing struct {
	hist   string
	label  string
	better direction
}

func times() []timing {
	return []timing{
		{result.HistStart, "start-up", lower},
		{result.HistTTFB, "first byte", lower},
		{result.HistSegment, "whole segment", lower},
		{result.HistStall, "a stall", lower},
		{result.HistConnect, "connect", lower},
		{result.HistDelay, "blindload's timers late", neither},
	}
}

// percentiles are those that tables and the CSV show.
func percentiles() []int { return []int{50, 95, 99} }

func (t timing) figures() []figure {
	var all []figure
	for _, p := range percentiles() {
		name := "p" + strconv.Itoa(p)
		all = append(all, figure{t.hist + "_" + name + "_s", t.label + " " + name, unitSeconds, t.better,
			t.read(func(h *result.Hist) time.Duration { return h.Quantile(float64(p) / 100) })})
	}
	return append(all, figure{t.hist + "_max_s", t.label + " max", unitSeconds, t.better, t.read((*result.Hist).Max)})
}

func (t timing) read(f func(*result.Hist) time.Duration) measure {
	return func(r *result.Result) (float64, bool) {
		h := r.Hists[t.hist]
		return f(h).Seconds(), h.Count() > 0
	}
}

func count(f func(*result.Viewers) int64) measure {
	return func(r *result.Result) (float64, bool) { return float64(f(&r.Viewers)), true }
}

func seconds(f func(*result.Viewers) time.Duration) measure {
	return func(r *result.Result) (float64, bool) { return f(&r.Viewers).Seconds(), true }
}

func perSecond(v float64, took time.Duration) (float64, bool) {
	if took <= 0 {
		return 0, false
	}
	return v / took.Seconds(), true
}

func neverStarted(r *result.Result) (float64, bool) { return float64(r.NeverStarted()), true }

func errorCount(r *result.Result) (float64, bool) { return float64(r.ErrorCount()), true }

func connects(r *result.Result) (float64, bool) {
	return perSecond(float64(r.Viewers.Connects), r.Took)
}

func relayCPUPerGiB(r *result.Result) (float64, bool) {
	if r.Relay == nil || r.Viewers.Bytes <= 0 {
		return 0, false
	}
	return r.Relay.CPU.Seconds() / (float64(r.Viewers.Bytes) / (1 << 30)), true
}

// meanBitrate weighs each bitrate with its segments. Those counted as "other"
// have none.
func meanBitrate(r *result.Result) (float64, bool) {
	var sum, n float64
	for text, segments := range r.Bitrates {
		bits, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(bits) || math.IsInf(bits, 0) {
			continue
		}
		sum += bits * float64(segments)
		n += float64(segments)
	}
	return sum / n, n > 0
}
