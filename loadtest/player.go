package loadtest

import "time"

// Times of the player model.
const (
	startAt  = 2 * time.Second  // content in the buffer when playing starts, or goes on after a stall
	bufferTo = 10 * time.Second // content in the buffer when the viewer stops reading
)

// player is a model of a media player: bytes arrive, it plays them at the
// film's bitrate, and stalls while it has none. It reads no clock: the caller
// says when things happen.
type player struct {
	rate float64 // bytes/s

	begun    time.Time // of the first request
	now      time.Time // up to which the model has been advanced
	received float64   // bytes
	played   float64   // bytes, at most received
	playing  bool
	started  bool

	startup time.Duration // from begun to the first picture
	stalls  int
	stalled time.Duration // in all
	longest time.Duration // the longest stall
	stall   time.Time     // when the current stall began; zero while playing
}

func newPlayer(rate float64, now time.Time) *player {
	return &player{rate: rate, begun: now, now: now}
}

// advance plays until now.
func (p *player) advance(now time.Time) {
	if p.playing {
		want := p.played + p.rate*now.Sub(p.now).Seconds()
		if want > p.received {
			// The buffer ran empty on the way.
			dry := p.now.Add(time.Duration((p.received - p.played) / p.rate * float64(time.Second)))
			p.playing, p.stall = false, dry
			p.stalls++
			want = p.received
		}
		p.played = want
	}
	p.now = now
}

// arrive adds n bytes at now.
func (p *player) arrive(now time.Time, n int) {
	p.advance(now)
	p.received += float64(n)
	if p.playing || p.received-p.played < p.rate*startAt.Seconds() {
		return
	}
	p.playing = true
	if !p.started {
		p.started = true
		p.startup = now.Sub(p.begun)
	}
	p.endStall()
}

func (p *player) endStall() {
	if p.stall.IsZero() {
		return
	}
	d := p.now.Sub(p.stall)
	p.stalled += d
	p.longest = max(p.longest, d)
	p.stall = time.Time{}
}

// finish ends the model at now: a stall that lasts still counts.
func (p *player) finish(now time.Time) {
	p.advance(now)
	p.endStall()
}

// full returns how long the viewer may pause before it reads on.
func (p *player) full() time.Duration {
	ahead := time.Duration((p.received - p.played) / p.rate * float64(time.Second))
	if !p.playing || ahead <= bufferTo {
		return 0
	}
	return ahead - bufferTo
}
