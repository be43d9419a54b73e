package endpoint

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
)

// A relay connection keeps little of its rate where packets are lost for other
// reasons than a full queue: QUIC here has the congestion control of RFC 9002,
// section 7 (NewReno). TCP with BBR keeps it, if the sender's kernel has that, and
// several connections together have a multiple of one. What helps is found by
// trial, on the stream that needs it.
const (
	// MaxCarriers is how many relay connections carry one stream at most.
	MaxCarriers = 8
	// enough is a rate from which on nothing is tried: no film needs more.
	enough = 100e6 / 8 // bytes per second
	// worthwhile is what a trial has to gain, and clearly what TCP has to, which
	// takes the place of QUIC until the network changes.
	worthwhile = 1.15
	clearly    = 1.5

	pressedLeast = 1500 * time.Millisecond // before a trial
	fresh        = time.Second             // how old the latest sign of need may be
	trialDial    = 3 * time.Second         // to make its connections
	trialStart   = time.Second             // for these to reach their rate
	trialTime    = 1500 * time.Millisecond // of measurement
	trialPause   = time.Minute             // after one that gained nothing; doubles
	trialPauses  = 10 * time.Minute
	retireAfter  = 2 * time.Second  // from when streams have left a connection
	shedAfter    = 30 * time.Second // without need, of further connections, if less than one brings is wanted
	// logged is how many bytes of a stream still come after its writer has ended:
	// e2e's log of one.
	logged = 4 << 20
)

// spreader finds out over which relay connections a session's large streams go
// fastest, while its one path is slower than what writes and reads at its ends.
// It tries TCP instead of QUIC, and then twice as many connections each time. It
// belongs to the holder's goroutine.
type spreader struct {
	h       *holder
	most    int     // connections
	further []*path // beside the holder's
	one     float64 // the rate without these
	retired []retired
	speed   speed
	since   time.Time // when the need began; zero: there is none
	trial   *trial    // nil: none runs
	tcp     float64   // the rate of TCP when it was tried and gained nothing; 0: not known
	failed  float64   // the rate at which the latest trial gained nothing
	next    time.Time // no trial at such a rate before
	pause   time.Duration
	wait    sync.WaitGroup
}

type retired struct {
	path *path
	at   time.Time
}

// trial compares the rate over other connections with what it was before.
type trial struct {
	instead bool // its path in place of the holder's; else beside it
	before  float64
	cancel  context.CancelFunc
	made    chan []*path // one value, by the goroutine that dials
	paths   []*path
	stood   time.Time // when these were there; zero before
	needed  int64     // what had come when the need was last there
}

func newSpreader(h *holder, most int) *spreader {
	if most == 0 {
		most = MaxCarriers
	}
	return &spreader{h: h, most: min(most, MaxCarriers), pause: trialPause}
}

// look sees whether there is something to be done.
func (s *spreader) look(now time.Time) {
	session := s.h.session
	in, out := session.Traffic()
	s.speed.add(now, in+out)
	s.bury(now)
	s.sortOut(now)
	pressed := now.Sub(session.Pressed()) < fresh
	switch {
	case s.trial != nil:
		s.judge(now, in+out, pressed)
	case !pressed:
		s.since = time.Time{}
		if len(s.further) > 0 && now.Sub(session.Pressed()) >= shedAfter && s.speed.rate(now, speedSpan) < s.one {
			s.shed(now)
		}
	case s.since.IsZero():
		s.since = now
	case now.Sub(s.since) >= pressedLeast:
		s.consider(now)
	}
}

// consider begins a trial if the rate is too low and does not grow by itself,
// unless one has failed lately at a rate like this.
func (s *spreader) consider(now time.Time) {
	rate, before := s.speed.rate(now, pressedLeast/2), s.speed.rate(now.Add(-pressedLeast/2), pressedLeast/2)
	if rate < enough && rate < worthwhile*before && (!now.Before(s.next) || rate < s.failed/2) {
		s.begin(s.speed.rate(now, pressedLeast))
	}
}

// paths are all over which large streams go.
func (s *spreader) paths() []*path { return append([]*path{s.h.path}, s.further...) }

// made is where the connections of a trial come.
func (s *spreader) made() <-chan []*path {
	if s.trial == nil {
		return nil
	}
	return s.trial.made
}

// begin dials for a trial: for TCP in the place of QUIC where that is not known
// to be no better, else for as many connections as there are.
func (s *spreader) begin(before float64) {
	h := s.h
	tcp := h.path.hop.Protocol() == protocolTCP
	instead := !tcp && (s.tcp == 0 && len(s.further) == 0 || s.tcp >= clearly*before)
	in, out := h.session.Traffic()
	n, dial := 1, h.d.dialer.DialTCP
	if !instead {
		n = min(len(s.further)+1, s.most-1-len(s.further))
		if !tcp {
			dial = h.d.dialer.DialQUIC
		}
	}
	if n == 0 || s.most == 1 {
		return
	}
	ctx, cancel := context.WithTimeout(h.d.ctx, trialDial)
	t := &trial{instead: instead, before: before, needed: in + out, cancel: cancel, made: make(chan []*path, 1)}
	relay, session := h.path.relay, h.session
	s.trial = t
	s.wait.Go(func() {
		var wait sync.WaitGroup
		paths := make([]*path, n)
		for i := range paths {
			wait.Go(func() {
				p, err := h.d.join(ctx, session, relay, dial)
				if err != nil {
					h.d.log.Debug("no further connection", "relay", relay.Addr, "error", err)
					return
				}
				paths[i] = p
			})
		}
		wait.Wait()
		t.made <- slices.DeleteFunc(paths, func(p *path) bool { return p == nil })
	})
}

// try carries the large streams over a trial's connections.
func (s *spreader) try(paths []*path, now time.Time) {
	t := s.trial
	t.cancel()
	if t.paths = paths; len(paths) == 0 {
		s.undo(now, 0)
		return
	}
	t.stood = now
	if t.instead {
		s.spread(paths)
	} else {
		s.spread(append(s.paths(), paths...))
	}
}

// spread has the session carry large streams over these paths.
func (s *spreader) spread(paths []*path) {
	var links []*e2e.Link
	for _, p := range paths {
		links = append(links, p.link)
	}
	s.h.session.Spread(links)
}

// judge ends a trial when its result is known. One that meets the need has
// gained, whatever the rate is. Where there is none because the writer has ended,
// what it left goes on at the old rate for a while, and then stops. total is what
// has come so far.
func (s *spreader) judge(now time.Time, total int64, pressed bool) {
	t := s.trial
	if pressed {
		t.needed = total
	}
	if t.stood.IsZero() {
		return
	}
	over, rate, wanted := now.Sub(t.stood), s.speed.rate(now, trialTime), worthwhile
	if t.instead {
		wanted = clearly
	}
	switch {
	case over >= trialStart+trialTime && rate >= wanted*t.before:
		s.keep(now, rate)
	case pressed && over >= trialStart+trialTime, !pressed && over >= trialStart && rate < t.before:
		s.undo(now, rate)
	case !pressed && over >= trialStart && total-t.needed > logged:
		s.keep(now, rate)
	}
}

// keep makes what was tried the way it is.
func (s *spreader) keep(now time.Time, rate float64) {
	t, h := s.trial, s.h
	s.trial, s.pause = nil, trialPause
	if t.instead {
		s.retire(now, s.paths()...)
		s.further = nil
		h.prefer(t.paths[0], fmt.Sprintf("TCP carries %.1f times as much as QUIC on this network; QUIC is tried again when the network changes", rate/t.before))
	} else {
		if len(s.further) == 0 {
			s.one = t.before
		}
		s.further = append(s.further, t.paths...)
	}
	h.d.spread(s.further)
	h.d.log.Debug("more goes over other connections", "protocol", h.path.hop.Protocol(), "connections", len(s.further)+1, "before", int64(t.before), "now", int64(rate))
}

// undo goes back to what was before a trial, which brought rate.
func (s *spreader) undo(now time.Time, rate float64) {
	t := s.trial
	s.trial = nil
	if len(t.paths) > 0 {
		s.since = now // the rate has to be what it was
		s.spread(s.paths())
		s.retire(now, t.paths...)
	}
	if t.instead {
		s.tcp = max(rate, 1)
		return // several of QUIC are next
	}
	s.tcp = 0
	s.failed, s.next = t.before, now.Add(s.pause)
	s.pause = min(2*s.pause, trialPauses)
}

// shed gives the further connections up.
func (s *spreader) shed(now time.Time) {
	s.retire(now, s.further...)
	s.further = nil
	s.spread(s.paths())
	s.h.d.spread(nil)
}

// sortOut gives up further connections that have ended, are about to, or have
// gone silent.
func (s *spreader) sortOut(now time.Time) {
	broken := func(p *path) bool {
		select {
		case <-p.attachment.Leaving():
			return true
		case <-p.link.Done():
			return true
		default:
			return p.hop.Silent() >= silentFor+probeLeast
		}
	}
	if i := slices.IndexFunc(s.further, broken); i >= 0 {
		left := slices.Clone(s.further)
		left = slices.DeleteFunc(left, func(p *path) bool {
			if broken(p) {
				p.close()
				return true
			}
			return false
		})
		s.further = left
		s.h.d.spread(left)
	}
	if t := s.trial; t != nil && slices.ContainsFunc(t.paths, broken) {
		s.undo(now, 0)
	}
}

// retire closes paths once streams have had the time to leave them.
func (s *spreader) retire(now time.Time, paths ...*path) {
	for _, p := range paths {
		s.retired = append(s.retired, retired{p, now})
	}
}

func (s *spreader) bury(now time.Time) {
	s.retired = slices.DeleteFunc(s.retired, func(r retired) bool {
		if now.Sub(r.at) < retireAfter {
			return false
		}
		r.path.close()
		return true
	})
}

// reset forgets all that was found out: the session has another path.
func (s *spreader) reset() {
	if t := s.trial; t != nil {
		t.cancel()
		if t.stood.IsZero() {
			s.wait.Go(func() {
				for _, p := range <-t.made {
					p.close()
				}
			})
		}
		for _, p := range t.paths {
			p.close()
		}
	}
	for _, p := range s.further {
		p.close()
	}
	for _, r := range s.retired {
		r.path.close()
	}
	s.trial, s.further, s.retired = nil, nil, nil
	s.tcp, s.since, s.failed, s.next, s.pause = 0, time.Time{}, 0, time.Time{}, trialPause
	s.h.session.Spread(nil)
	s.h.d.spread(nil)
}

// end closes all that the spreader has made.
func (s *spreader) end() {
	s.reset()
	s.wait.Wait()
}

// speed measures a rate from a growing count that is looked at now and then.
type speed struct{ samples []sample }

type sample struct {
	at time.Time
	n  int64
}

// speedSpan is how far back it remembers.
const speedSpan = 5 * time.Second

func (s *speed) add(now time.Time, n int64) {
	s.samples = append(s.samples, sample{now, n})
	old := 0
	for now.Sub(s.samples[old].at) > speedSpan {
		old++
	}
	s.samples = slices.Delete(s.samples, 0, old)
}

// rate returns how much was counted per second, over the time d before now.
func (s *speed) rate(now time.Time, d time.Duration) float64 {
	var first, last *sample
	for i := range s.samples {
		x := &s.samples[i]
		if x.at.After(now) {
			break
		}
		if first == nil || now.Sub(x.at) >= d {
			first = x
		}
		last = x
	}
	if first == nil || last.at.Equal(first.at) {
		return 0
	}
	return float64(last.n-first.n) / last.at.Sub(first.at).Seconds()
}
