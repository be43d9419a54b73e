package viewer

import "time"

// Phase is what a viewer sees.
type Phase uint8

// Phases.
const (
	Starting Phase = iota // nothing yet, after arriving or after a jump
	Playing               // the picture moves
	Stalled               // the buffer ran empty while the picture moved
	Paused                // the viewer stopped the picture
	Over                  // the film is over, or the viewer is gone
)

// player is the model of a media player. It knows how much content lies ahead
// of the picture, in time and not in bytes, and reads no clock: the caller
// says when things happen, in ascending order.
//
//	Starting -> Playing: startAt is ahead
//	Playing -> Stalled:  nothing is ahead and more will come
//	Stalled -> Playing:  resumeAt is ahead
//	Playing <-> Paused
//	any but Over -> Starting: a jump empties the buffer
//	Playing -> Over:     nothing is ahead and nothing more will come
type player struct {
	startAt, resumeAt time.Duration

	// picture is called when the picture begins to move after Starting, with
	// how long that took.
	picture func(wait time.Duration)
	// stall is called when a stall is over, with its length.
	stall func(length time.Duration)

	phase    Phase
	now      time.Time     // up to which the model is advanced
	since    time.Time     // when the wait in Starting or Stalled began
	ahead    time.Duration // content that has arrived and is not played
	complete bool          // nothing more will come

	started bool // a picture has been seen
	watched time.Duration
	stalls  int64
	stalled time.Duration // in stalls that are over
	longest time.Duration
}

// advance plays until now.
func (p *player) advance(now time.Time) {
	defer func() { p.now = now }()
	if p.phase != Playing {
		return
	}
	d := now.Sub(p.now)
	switch {
	case d < p.ahead || d == p.ahead && !p.complete:
		p.watched += d
		p.ahead -= d
		return
	case p.complete:
		p.phase = Over
	default:
		p.phase = Stalled
		p.stalls++
		p.since = p.now.Add(p.ahead)
	}
	p.watched += p.ahead
	p.ahead = 0
}

// arrive adds content at now.
func (p *player) arrive(now time.Time, content time.Duration) {
	p.advance(now)
	p.ahead += content
	p.try()
}

// end says at now that all content has arrived.
func (p *player) end(now time.Time) {
	p.advance(now)
	p.complete = true
	if p.phase != Over && p.ahead == 0 {
		p.settle()
		p.phase = Over
		return
	}
	p.try()
}

// try lets the picture move if enough is ahead.
func (p *player) try() {
	switch {
	case p.phase == Starting && (p.ahead >= p.startAt || p.complete):
		p.started = true
		p.picture(p.now.Sub(p.since))
	case p.phase == Stalled && (p.ahead >= p.resumeAt || p.complete):
		p.settle()
	default:
		return
	}
	p.phase = Playing
}

// settle counts a stall that is over at p.now, if there is one.
func (p *player) settle() {
	if p.phase != Stalled {
		return
	}
	d := p.now.Sub(p.since)
	p.stalled += d
	p.longest = max(p.longest, d)
	p.stall(d)
}

// jump empties the buffer at now. The wait that follows is no stall: the
// viewer asked for it. The wait for the first picture goes on.
func (p *player) jump(now time.Time) {
	p.advance(now)
	p.settle()
	p.ahead, p.complete = 0, false
	if p.phase == Starting || p.phase == Over {
		return
	}
	p.phase, p.since = Starting, now
}

// pause stops a moving picture at now, and reports whether it was moving.
func (p *player) pause(now time.Time) bool {
	p.advance(now)
	if p.phase != Playing {
		return false
	}
	p.phase = Paused
	return true
}

// play ends a pause at now.
func (p *player) play(now time.Time) {
	p.advance(now)
	if p.phase == Paused {
		p.phase = Playing
	}
}

// finish ends the model at now. A stall that lasts until then counts.
func (p *player) finish(now time.Time) {
	p.advance(now)
	p.settle()
	p.phase = Over
}

// forever is how long a viewer waits whom only another event wakes.
const forever = time.Duration(1<<63 - 1)

// room returns how long it takes, if nothing happens, until at most goal is
// ahead.
func (p *player) room(goal time.Duration) time.Duration {
	switch {
	case p.ahead <= goal || p.phase == Over:
		return 0
	case p.phase == Paused:
		return forever
	}
	// Neither threshold is above any goal, so the picture moves.
	return p.ahead - goal
}
