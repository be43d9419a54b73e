package loadtest

import (
	"strings"
	"testing"
	"time"
)

func TestReport(t *testing.T) {
	r := &Report{Viewers: 3, Agents: 1, Bitrate: 8_000_000, Duration: 10 * time.Second, Each: []Seen{
		{Bytes: 10_000_000, Watched: 10 * time.Second, Started: true, StartUp: 100 * time.Millisecond},
		{Bytes: 5_000_000, Watched: 10 * time.Second, Started: true, StartUp: 300 * time.Millisecond, Stalls: 2, Stalled: 3 * time.Second, LongestStall: 2 * time.Second, Errors: []string{"reset", "reset"}},
		{Watched: 10 * time.Second, Corrupt: 1, Errors: []string{"wrong byte"}},
	}}
	r.summarise()
	if r.Bytes != 15_000_000 || r.Goodput != 12_000_000 || r.Stalls != 2 || r.StallRatio != 0.1 ||
		r.LongestStall != 2*time.Second || r.NeverStarted != 1 || r.Corrupt != 1 ||
		r.StartUpP50 != 100*time.Millisecond || r.StartUpP95 != 300*time.Millisecond ||
		r.Errors["reset"] != 2 || r.Errors["wrong byte"] != 1 {
		t.Errorf("summary is %+v", *r)
	}
	if r.Held() {
		t.Error("a run with stalls, errors and wrong bytes held")
	}
	var text strings.Builder
	if err := r.Write(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"12.0 Mbit/s", "longest 2s", "never started", "CORRUPT", "2 times: reset"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report does not say %q:\n%s", want, text.String())
		}
	}
}

func TestHeld(t *testing.T) {
	good := Seen{Bytes: 1, Watched: time.Second, Started: true}
	for name, test := range map[string]struct {
		seen Seen
		held bool
	}{
		"plays":         {good, true},
		"stalls":        {Seen{Started: true, Stalls: 1}, false},
		"never started": {Seen{}, false},
		"wrong bytes":   {Seen{Started: true, Corrupt: 1}, false},
		"error":         {Seen{Started: true, Errors: []string{"x"}}, false},
	} {
		r := &Report{Each: []Seen{good, test.seen}}
		r.summarise()
		if r.Held() != test.held {
			t.Errorf("%s: Held is %v", name, r.Held())
		}
	}
}

func TestQuantile(t *testing.T) {
	var all []time.Duration
	if got := quantile(all, 0.5); got != 0 {
		t.Errorf("quantile of nothing is %v", got)
	}
	for i := range 100 {
		all = append(all, time.Duration(100-i))
	}
	for q, want := range map[float64]time.Duration{0.01: 1, 0.5: 50, 0.95: 95, 1: 100} {
		if got := quantile(all, q); got != want {
			t.Errorf("quantile %v of 1 to 100 is %v, want %v", q, got, want)
		}
	}
}
