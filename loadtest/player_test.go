package loadtest

import (
	"testing"
	"time"
)

// step is one thing that happens to a player: at a time, n seconds of film
// arrive.
type step struct {
	at   time.Duration
	film float64 // seconds of film
}

func TestPlayer(t *testing.T) {
	const rate = 1000.0
	s := time.Second
	for _, test := range []struct {
		name    string
		steps   []step
		end     time.Duration
		started bool
		startup time.Duration
		stalls  int
		stalled time.Duration
		longest time.Duration
	}{
		{name: "nothing arrives", end: 10 * s},
		{name: "too little to start", steps: []step{{s, 1.9}}, end: 10 * s},
		{name: "starts at two seconds of film", steps: []step{{s, 1}, {3 * s, 1}}, end: 4 * s, started: true, startup: 3 * s},
		{name: "plays on without a stall", steps: []step{{0, 2}, {1 * s, 2}, {2 * s, 2}}, end: 6 * s, started: true},
		{name: "is dry exactly at the end", steps: []step{{0, 2}}, end: 2 * s, started: true},
		{name: "stalls once and resumes", steps: []step{{0, 2}, {5 * s, 2}}, end: 6 * s, started: true, stalls: 1, stalled: 3 * s, longest: 3 * s},
		{name: "a drop does not resume", steps: []step{{0, 2}, {5 * s, 1}, {7 * s, 1}}, end: 8 * s, started: true, stalls: 1, stalled: 5 * s, longest: 5 * s},
		{name: "a stall that lasts counts", steps: []step{{0, 2}}, end: 10 * s, started: true, stalls: 1, stalled: 8 * s, longest: 8 * s},
		{name: "two stalls", steps: []step{{0, 2}, {3 * s, 2}, {10 * s, 2}}, end: 11 * s, started: true, stalls: 2, stalled: 6 * s, longest: 5 * s},
	} {
		t.Run(test.name, func(t *testing.T) {
			begin := time.Unix(0, 0)
			p := newPlayer(rate, begin)
			for _, step := range test.steps {
				p.arrive(begin.Add(step.at), int(step.film*rate))
			}
			p.finish(begin.Add(test.end))
			if p.started != test.started || p.startup != test.startup {
				t.Errorf("started %v after %v, want %v after %v", p.started, p.startup, test.started, test.startup)
			}
			if p.stalls != test.stalls || p.stalled != test.stalled || p.longest != test.longest {
				t.Errorf("%d stalls of %v, longest %v; want %d of %v, longest %v", p.stalls, p.stalled, p.longest, test.stalls, test.stalled, test.longest)
			}
		})
	}
}

func TestPlayerKeepsTenSeconds(t *testing.T) {
	begin := time.Unix(0, 0)
	p := newPlayer(1000, begin)
	p.arrive(begin, 15_000)
	if wait := p.full(); wait != 5*time.Second {
		t.Errorf("with 15 s of film the viewer pauses %v, want 5 s", wait)
	}
	p.advance(begin.Add(5 * time.Second))
	if wait := p.full(); wait != 0 {
		t.Errorf("with 10 s of film the viewer pauses %v, want not at all", wait)
	}
}
