// Package result is what a load test found: one value that holds a whole run,
// with its histograms, so that runs can be stored, compared and added up.
//
//	rec := result.NewRecorder()       // viewers record into it while they watch
//	res := rec.Result()               // afterwards
//	res.WriteFile("run.json")
//
// Durations are nanoseconds in JSON, rates bit/s, sizes bytes.
package result

import (
	"time"
)

// Schema is the version of the JSON form of Result. A reader refuses others.
const Schema = 1

// Result is one run.
type Result struct {
	Schema   int           `json:"schema"`
	Started  time.Time     `json:"started"`
	Took     time.Duration `json:"took_ns"` // measured, without set-up
	Title    string        `json:"title"`   // the scenario in one line, for people
	Scenario any           `json:"scenario"`
	Machine  Machine       `json:"machine"`

	Viewers  Viewers          `json:"viewers"`
	Hists    map[string]*Hist `json:"histograms"` // by the names below
	Errors   map[string]int64 `json:"errors"`     // by code, as wire.Code, HTTP status or kind of failure
	Bitrates map[string]int64 `json:"bitrates"`   // segments fetched by the bitrate chosen, in bit/s
	Samples  []Sample         `json:"samples"`    // one each second

	Relay *Usage `json:"relay,omitempty"` // nil: the relay was not looked at
	Load  Usage  `json:"load"`            // blindload itself
	// RelayAt says which relay was looked at, the same on every machine: its
	// ops address, or a pid and its host. Empty for one that blindload started.
	// Runs with the same RelayAt saw one relay, whose figures are not added up.
	RelayAt      string `json:"relay_at,omitempty"`
	RelayVersion string `json:"relay_version,omitempty"`
	Links        *Links `json:"links,omitempty"` // nil: no access line was emulated
	// Bottleneck says why the generator, and not what it loads, may have been
	// the limit; empty if it was not. Such a run proves nothing.
	Bottleneck string `json:"bottleneck,omitempty"`

	SLO []Verdict `json:"slo,omitempty"`

	// Merged holds the machines of the runs that were added up into this one,
	// in their order; empty for a run on one machine.
	Merged []Machine `json:"merged,omitempty"`
}

// Names of histograms. All hold durations.
const (
	HistStart   = "start"         // from a viewer's arrival to its first picture
	HistTTFB    = "ttfb"          // from a request to the first byte of its body
	HistSegment = "segment"       // from a request to the last byte of a segment
	HistStall   = "stall"         // each stall's length
	HistConnect = "connect"       // from the first dial to an admitted session
	HistDelay   = "schedule_late" // how late blindload's own timers fired
)

// Viewers sums up what all viewers saw.
type Viewers struct {
	Arrived  int64         `json:"arrived"`
	Started  int64         `json:"started"`    // saw a picture
	Left     int64         `json:"left"`       // before the end, because their behaviour says so
	Watched  time.Duration `json:"watched_ns"` // content played, without stalls
	Stalls   int64         `json:"stalls"`
	Stalled  time.Duration `json:"stalled_ns"`
	Longest  time.Duration `json:"longest_stall_ns"`
	Bytes    int64         `json:"bytes"`    // of content received
	Verified int64         `json:"verified"` // of them compared with what the origin must have sent
	Corrupt  int64         `json:"corrupt"`  // requests that brought a wrong byte
	Requests int64         `json:"requests"`
	Connects int64         `json:"connects"` // sessions and connections made
	Switches int64         `json:"switches"` // changes of bitrate
}

// Sample is one second of a run.
type Sample struct {
	At       time.Duration `json:"at_ns"` // since Started
	Starting int           `json:"starting"`
	Playing  int           `json:"playing"`
	Stalled  int           `json:"stalled"`
	Goodput  float64       `json:"goodput"` // bit/s in this second
	Buffer   [3]float64    `json:"buffer"`  // seconds of content ahead over all viewers: p5, p50, p95
	Stalls   int64         `json:"stalls"`  // that began in this second
	Relay    Usage         `json:"relay"`   // CPU of this second, the rest as it is now; zero if not looked at
	Load     Usage         `json:"load"`    // of blindload
}

// Usage is what a process takes.
type Usage struct {
	CPU        time.Duration `json:"cpu_ns"`
	Memory     int64         `json:"memory"` // resident bytes; in totals the peak
	Goroutines int64         `json:"goroutines"`
	Buffered   int64         `json:"buffered"` // jitter buffers' bytes; of a relay
	Streams    int64         `json:"streams"`  // of a relay
	Packets    int64         `json:"packets"`  // UDP datagrams in and out; 0 if unknown
}

// Links is what the emulated access lines of all endpoints did.
type Links struct {
	Packets int64         `json:"packets"`
	Lost    int64         `json:"lost"`
	Dropped int64         `json:"dropped"` // by full queues
	Late    time.Duration `json:"late_ns"` // the emulator's own error: the mean of a delivery's, on the worst link
	LateMax time.Duration `json:"late_max_ns"`
}

// Machine says where a run was made.
type Machine struct {
	CPU      string `json:"cpu"`
	Cores    int    `json:"cores"`
	Memory   int64  `json:"memory"`
	System   string `json:"system"` // kernel or operating system, with version
	Go       string `json:"go"`
	Revision string `json:"revision"` // of blindload
}

// Verdict is one objective and whether the run met it.
type Verdict struct {
	Objective string  `json:"objective"` // like stall_ratio<0.1%
	Value     float64 `json:"value"`     // in the objective's unit: a ratio, a count, seconds, or bit/s
	Held      bool    `json:"held"`
	NoData    bool    `json:"no_data,omitempty"` // nothing was measured: Value is 0 and Held false
}

// NeverStarted is how many viewers arrived and saw no picture.
func (r *Result) NeverStarted() int64 { return max(0, r.Viewers.Arrived-r.Viewers.Started) }

// StallRatio is the share of the time after the first picture in which viewers
// waited for content; false if nobody watched.
func (r *Result) StallRatio() (ratio float64, ok bool) {
	waited, all := r.Viewers.Stalled, r.Viewers.Watched+r.Viewers.Stalled
	if all <= 0 {
		return 0, false
	}
	return float64(waited) / float64(all), true
}

// Goodput is the content that all viewers together received, in bit/s over the
// whole run; false if the run took no time.
func (r *Result) Goodput() (bits float64, ok bool) {
	if r.Took <= 0 {
		return 0, false
	}
	return 8 * float64(r.Viewers.Bytes) / r.Took.Seconds(), true
}

// ErrorCount is the number of errors of all codes.
func (r *Result) ErrorCount() int64 {
	var n int64
	for _, c := range r.Errors {
		n += c
	}
	return n
}
