package endpoint

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/fleet"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// Where and how often an agent registers.
const (
	registrations   = 2               // relays at a time, if there are as many
	maxAttempts     = 4               // at a time
	attemptPatience = 4 * time.Second // for one attempt to register
	// slowAfter is when an attempt no longer keeps the agent from trying the
	// next relay beside it.
	slowAfter = time.Second
	// longestWait bounds the pause between two attempts at a relay. With the
	// patience it makes that an agent is back within 5 s of its relay.
	longestWait = 3 * time.Second
	// failingShare stretches longestWait by the number of relays that fail, so
	// that a large fleet out of reach is not tried all the time.
	failingShare = longestWait / 4
	// leisure stretches the pauses before a relay that failed is tried again
	// while enough others work.
	leisure = 10
	calm    = 10 * time.Second // a registration that lasts so long ends the backing off
	// settled is how long better relays have to work before a worse one is left.
	settled = 30 * time.Second
	// lingering bounds how long streams keep a connection that is to be left.
	lingering = 10 * time.Minute
	// farthestMove bounds the time that a relay being emptied says to wait.
	farthestMove = time.Minute
)

// roster keeps an agent registered at the best relays of its fleet: those that
// come first in the order of the route, passing over those that fail. These are
// tried again, with growing pauses; when a better relay works again, and has
// for a while, the worst one is left. What it decides, step decides; keep calls
// that whenever something has changed.
type roster struct {
	agent    *Agent
	set      *fleet.Set
	dialer   dialer
	handle   func(attachment uint64, st e2e.Stream) // takes the devices' streams
	instance wire.Instance                          // of this process, for relays to tell it from a copy
	began    time.Time
	moved    signal // something that mu guards has changed, or the set has

	mu       sync.Mutex
	places   []*place // in the order of the route; those that DNS no longer names are last
	attempts int      // under way
}

// dialer is what a roster needs of a *transport.Dialer.
type dialer interface {
	Dial(context.Context, wire.Relay, *tls.Certificate) (transport.Session, error)
	DialQUIC(context.Context, wire.Relay, *tls.Certificate) (transport.Session, error)
}

func newRoster(a *Agent, set *fleet.Set) *roster {
	r := &roster{agent: a, set: set, dialer: a.dialer, handle: a.server.Handle, began: time.Now()}
	rand.Read(r.instance[:]) // never fails
	r.list(r.began)
	return r
}

// keep makes and ends registrations until the agent is closed.
func (r *roster) keep() {
	ctx := r.agent.ctx
	var wait sync.WaitGroup // one for each attempt, and for the link that comes of it
	defer wait.Wait()
	for ctx.Err() == nil {
		moved, changed := r.moved.next(), r.agent.home.Changed()
		again := time.NewTimer(r.step(time.Now(), wait.Go))
		select {
		case <-moved:
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
	}
}

// agenda is one step: what it may start, and when it is time for the next.
type agenda struct {
	now   time.Time
	again time.Time
	run   func(func()) // runs in a goroutine of its own
}

// at has the next step come at t at the latest.
func (g *agenda) at(t time.Time) {
	if t.After(g.now) && t.Before(g.again) {
		g.again = t
	}
}

// step does what is due now. It returns how long nothing else will be, unless
// something moves.
func (r *roster) step(now time.Time, run func(func())) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := &agenda{now: now, again: now.Add(time.Hour), run: run}
	r.list(now)
	if !r.agent.home.Enabled() { // the links see it themselves
		for _, p := range r.places {
			p.setState(stateOff, now)
			p.err, p.next, p.later = nil, time.Time{}, time.Time{}
			p.retry.reset()
		}
		return time.Hour
	}
	r.choose(g)
	for _, p := range r.places {
		if len(p.links) > 0 && p.wanted && !p.draining() {
			r.adjust(g, p)
		}
		r.dismiss(g, p)
	}
	r.spare(g)
	return g.again.Sub(now)
}

// list brings places into line with what the configured relays lead to now.
func (r *roster) list(now time.Time) {
	known := make(map[string]*place, len(r.places))
	for _, p := range r.places {
		known[p.id] = p
		p.listed, p.addresses = false, p.addresses[:0:0]
	}
	old := r.places
	r.places = nil
	for _, relay := range fleet.Order(r.agent.home.Route(), r.set.Relays()) {
		p := known[relay.ID]
		if p == nil {
			p = &place{
				id: relay.ID, state: stateConnecting, since: now,
				retry: backoff{first: firstPause}, updating: make(chan struct{}, 1),
			}
			known[relay.ID] = p
		}
		if !p.listed {
			p.listed = true
			r.places = append(r.places, p)
		}
		p.addresses = append(p.addresses, relay)
	}
	for _, p := range old {
		if !p.listed && (len(p.links) > 0 || p.trying()) {
			r.places = append(r.places, p)
		}
	}
}

// choose walks the places from the best one and starts attempts until enough of
// them work or promise to.
func (r *roster) choose(g *agenda) {
	enough, up := 0, 0
	for _, p := range r.places {
		if p.listed && p.up(g.now) {
			up++
		}
	}
	for _, p := range r.places {
		p.wanted = p.listed && enough < registrations
		if !p.wanted {
			if len(p.links) == 0 && !p.trying() {
				p.setState(stateStandby, g.now)
				p.err = nil
			}
			continue
		}
		if len(p.links) == 0 {
			p.setState(stateConnecting, g.now)
		}
		next := p.next
		if up >= registrations {
			next = p.later
		}
		if len(p.links) == 0 && !p.trying() && !next.After(g.now) && r.attempts < maxAttempts {
			r.attempt(g, p, first)
		}
		if p.promises(g.now) {
			enough++
		}
		g.at(next)
		g.at(p.began.Add(slowAfter))
		for _, l := range p.links {
			g.at(l.move)
		}
	}
}

// dismiss leaves a relay that is being emptied, once its time has come and the
// agent can be reached elsewhere.
func (r *roster) dismiss(g *agenda, p *place) {
	if !p.leaving(g.now) {
		return
	}
	p.setState(stateLeaving, g.now)
	others, up, pending := 0, 0, 0
	for _, o := range r.places {
		if o == p || !o.listed {
			continue
		}
		others++
		switch {
		case o.up(g.now):
			up++
		case o.wanted && o.err == nil && !o.leaving(g.now):
			pending++
		}
	}
	switch {
	case others == 0: // it can only come back, and the sooner it ends the better
		p.endLinks(errDrained)
	case up >= registrations, up > 0 && pending == 0:
		p.endIdleLinks(errDrained)
	}
}

// spare leaves relays that are not needed, as enough better ones have worked
// for a while.
func (r *roster) spare(g *agenda) {
	listed, steady := 0, 0
	for _, p := range r.places {
		if p.listed {
			listed++
		}
	}
	for _, p := range r.places {
		enough := steady >= min(registrations, listed)
		if p.listed && p.up(g.now) {
			if g.now.Sub(p.since) >= settled {
				steady++
			}
			g.at(p.since.Add(settled))
		}
		if p.wanted || len(p.links) == 0 || !enough {
			p.spare = time.Time{}
			continue
		}
		if p.spare.IsZero() {
			p.spare = g.now
		}
		if g.now.Sub(p.spare) >= lingering {
			p.endLinks(errSpare)
		} else {
			p.endIdleLinks(errSpare)
		}
		g.at(p.spare.Add(lingering))
	}
}

// publish tells every relay which devices may come, through one connection.
func (r *roster) publish(ctx context.Context) error {
	r.mu.Lock()
	var ways [][]*link
	for _, p := range r.places {
		if len(p.links) > 0 {
			ways = append(ways, slices.Clone(p.links))
		}
	}
	r.mu.Unlock()
	errs := make([]error, len(ways))
	var wait sync.WaitGroup
	for i, links := range ways {
		wait.Go(func() {
			for _, l := range links {
				if errs[i] = l.update(ctx); errs[i] == nil || ctx.Err() != nil {
					return
				}
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// verdict reports whether a relay has the route. If none has, the error says
// why, or is nil while there is still one that has not failed.
func (r *roster) verdict() (ready bool, err error) {
	if !r.agent.home.Enabled() {
		return false, errOff
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	undecided := false
	var failure, urgent error
	tried := make(map[wire.Relay]bool)
	for _, p := range r.places {
		if p.up(time.Now()) {
			return true, nil
		}
		for _, a := range p.addresses {
			tried[a.Configured] = true
		}
		switch {
		case p.err == nil:
			undecided = true
		case hopeless(p.err):
			urgent = cmp.Or(urgent, p.err)
		}
		failure = cmp.Or(failure, p.err)
	}
	for _, c := range r.agent.relays {
		if !tried[c] {
			err := r.set.Failure(c)
			undecided = undecided || err == nil
			failure = cmp.Or(failure, err)
		}
	}
	if undecided {
		return false, nil
	}
	return false, cmp.Or(urgent, failure)
}
