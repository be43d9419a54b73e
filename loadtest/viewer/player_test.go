package viewer

import (
	"testing"
	"time"
)

// event is one thing that happens to a player.
type event struct {
	at   time.Duration
	what string        // arrive, end, jump, pause, play
	film time.Duration // for arrive
}

func TestPlayer(t *testing.T) {
	arrive := func(at, film float64) event {
		return event{time.Duration(at * 1e9), "arrive", time.Duration(film * 1e9)}
	}
	do := func(at float64, what string) event { return event{time.Duration(at * 1e9), what, 0} }
	for _, test := range []struct {
		name     string
		events   []event
		end      float64 // all in seconds
		phase    Phase   // just before the end
		pictures []float64
		stalls   []float64
		watched  float64
		ahead    float64
	}{
		{name: "nothing arrives", end: 10, phase: Starting},
		{name: "too little to start", events: []event{arrive(1, 1.9)}, end: 10, phase: Starting, ahead: 1.9},
		{name: "starts at the threshold", events: []event{arrive(1, 1), arrive(3, 1)}, end: 4, phase: Playing, pictures: []float64{3}, watched: 1, ahead: 1},
		{name: "plays on", events: []event{arrive(0, 2), arrive(1, 2), arrive(2, 2)}, end: 5, phase: Playing, pictures: []float64{0}, watched: 5, ahead: 1},
		{name: "dry exactly at the end", events: []event{arrive(0, 2)}, end: 2, phase: Playing, pictures: []float64{0}, watched: 2},
		{name: "dry exactly when more arrives", events: []event{arrive(0, 2), arrive(2, 1)}, end: 3, phase: Playing, pictures: []float64{0}, watched: 3},
		{name: "stalls and resumes", events: []event{arrive(0, 2), arrive(5, 4)}, end: 6, phase: Playing, pictures: []float64{0}, stalls: []float64{3}, watched: 3, ahead: 3},
		{name: "the start's threshold does not resume", events: []event{arrive(0, 2), arrive(5, 2), arrive(7, 2)}, end: 8, phase: Playing, pictures: []float64{0}, stalls: []float64{5}, watched: 3, ahead: 3},
		{name: "a stall that lasts", events: []event{arrive(0, 2)}, end: 10, phase: Stalled, pictures: []float64{0}, stalls: []float64{8}, watched: 2},
		{name: "two stalls", events: []event{arrive(0, 2), arrive(3, 4), arrive(10, 4)}, end: 11, phase: Playing, pictures: []float64{0}, stalls: []float64{1, 3}, watched: 7, ahead: 3},
		{name: "the longer stall first", events: []event{arrive(0, 2), arrive(5, 4), arrive(10, 4)}, end: 11, phase: Playing, pictures: []float64{0}, stalls: []float64{3, 1}, watched: 7, ahead: 3},
		{name: "ends", events: []event{arrive(0, 2), do(1, "end")}, end: 10, phase: Over, pictures: []float64{0}, watched: 2},
		{name: "a short film starts under the threshold", events: []event{arrive(1, 1), do(2, "end")}, end: 9, phase: Over, pictures: []float64{2}, watched: 1},
		{name: "the last piece resumes under the threshold", events: []event{arrive(0, 2), arrive(4, 1), do(4, "end")}, end: 9, phase: Over, pictures: []float64{0}, stalls: []float64{2}, watched: 3},
		{name: "ends in a stall", events: []event{arrive(0, 2), do(5, "end")}, end: 9, phase: Over, pictures: []float64{0}, stalls: []float64{3}, watched: 2},
		{name: "an empty film", events: []event{do(1, "end")}, end: 2, phase: Over},
		{name: "a jump waits and is no stall", events: []event{arrive(0, 9), do(4, "jump"), arrive(6, 2)}, end: 7, phase: Playing, pictures: []float64{0, 2}, watched: 5, ahead: 1},
		{name: "a jump ends a stall", events: []event{arrive(0, 2), do(5, "jump"), arrive(6, 2)}, end: 7, phase: Playing, pictures: []float64{0, 1}, stalls: []float64{3}, watched: 3, ahead: 1},
		{name: "a jump before the picture", events: []event{arrive(1, 1), do(2, "jump"), arrive(5, 2)}, end: 6, phase: Playing, pictures: []float64{5}, watched: 1, ahead: 1},
		{name: "a jump back from the end", events: []event{arrive(0, 4), do(0, "end"), do(3, "jump"), arrive(4, 2)}, end: 5, phase: Playing, pictures: []float64{0, 1}, watched: 4, ahead: 1},
		{name: "a pause", events: []event{arrive(0, 3), do(1, "pause"), arrive(5, 1), do(8, "play")}, end: 9, phase: Playing, pictures: []float64{0}, watched: 2, ahead: 2},
		{name: "paused until the end", events: []event{arrive(0, 3), do(1, "pause")}, end: 9, phase: Paused, pictures: []float64{0}, watched: 1, ahead: 2},
		{name: "a stall cannot be paused", events: []event{arrive(0, 2), do(3, "pause"), do(4, "play"), arrive(5, 4)}, end: 6, phase: Playing, pictures: []float64{0}, stalls: []float64{3}, watched: 3, ahead: 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			begin := time.Unix(0, 0)
			var pictures, stalls []float64
			p := player{
				startAt: 2 * second, resumeAt: 4 * second, now: begin, since: begin,
				picture: func(d time.Duration) { pictures = append(pictures, d.Seconds()) },
				stall:   func(d time.Duration) { stalls = append(stalls, d.Seconds()) },
			}
			for _, e := range test.events {
				now := begin.Add(e.at)
				switch e.what {
				case "arrive":
					p.arrive(now, e.film)
				case "end":
					p.end(now)
				case "jump":
					p.jump(now)
				case "pause":
					p.pause(now)
				case "play":
					p.play(now)
				}
			}
			end := begin.Add(time.Duration(test.end * 1e9))
			p.advance(end)
			if p.phase != test.phase || p.ahead.Seconds() != test.ahead {
				t.Errorf("in the end phase %d with %v ahead, want %d with %g s", p.phase, p.ahead, test.phase, test.ahead)
			}
			p.finish(end)
			if !equal(pictures, test.pictures) || !equal(stalls, test.stalls) {
				t.Errorf("pictures after %v s, stalls of %v s; want %v and %v", pictures, stalls, test.pictures, test.stalls)
			}
			var sum, longest float64
			for _, d := range test.stalls {
				sum += d
				longest = max(longest, d)
			}
			if p.watched.Seconds() != test.watched || p.stalls != int64(len(test.stalls)) || p.stalled.Seconds() != sum || p.longest.Seconds() != longest {
				t.Errorf("watched %v, %d stalls of %v, longest %v", p.watched, p.stalls, p.stalled, p.longest)
			}
		})
	}
}

func equal(a, b []float64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestPlayerRoom(t *testing.T) {
	begin := time.Unix(0, 0)
	p := player{startAt: second, now: begin, since: begin, picture: func(time.Duration) {}, stall: func(time.Duration) {}}
	if d := p.room(10 * second); d != 0 {
		t.Errorf("an empty buffer has room in %v", d)
	}
	p.arrive(begin, 15*second)
	if d := p.room(10 * second); d != 5*second {
		t.Errorf("15 s ahead: room in %v, want 5 s", d)
	}
	p.pause(begin.Add(2 * second))
	if d := p.room(10 * second); d != forever {
		t.Errorf("paused: room in %v", d)
	}
	p.play(begin.Add(9 * second))
	p.advance(begin.Add(12 * second))
	if d := p.room(10 * second); d != 0 {
		t.Errorf("10 s ahead: room in %v", d)
	}
}
