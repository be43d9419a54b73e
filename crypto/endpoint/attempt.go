package endpoint

import (
	"errors"
	"slices"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// purpose is what an attempt is for.
type purpose int

const (
	first     purpose = iota // a registration where there is none
	extra                    // another connection beside those that there are
	quicAgain                // a connection over QUIC in place of one over TCP
)

// attempt starts to register at a place. Needs mu.
func (r *roster) attempt(g *agenda, p *place, why purpose) {
	p.began = g.now
	r.attempts++
	relay := p.address()
	g.run(func() {
		changed, renewed := r.agent.home.Changed(), r.agent.renewed.next()
		l, err := r.register(p, relay.Relay, why)
		r.mu.Lock()
		p.began = time.Time{}
		r.attempts--
		if err != nil {
			r.failed(p, why, err)
		} else {
			r.joined(p, l, why)
		}
		r.mu.Unlock()
		r.moved.broadcast()
		if err == nil {
			err = l.serve(r.agent.ctx, changed, renewed)
			r.left(l, err)
		}
	})
}

// joined notes a new link. Needs mu.
func (r *roster) joined(p *place, l *link, why purpose) {
	if len(p.links) == 0 {
		p.setState(stateReachable, l.since)
		p.err, p.said = nil, ""
		r.agent.log.Info("reachable", "relay", p.String(), "protocol", l.sess.Protocol(), "route", r.agent.home.Route().String())
	}
	if why == quicAgain {
		if i := slices.IndexFunc(p.links, (*link).onTCP); i >= 0 {
			p.links[i].retired = l.since
		}
		p.quicNext = l.since // for the next one of them
	}
	p.links = append(p.links, l)
}

// failed notes an attempt that came to nothing. Needs mu.
func (r *roster) failed(p *place, why purpose, err error) {
	now := time.Now()
	switch {
	case r.agent.ctx.Err() != nil:
	case why == extra:
		p.extraNext = now.Add(hopelessPause)
		r.agent.log.Debug("no further connection", "relay", p.String(), "error", err)
	case why == quicAgain:
		p.quicNext = now.Add(quicEvery)
	default:
		p.turn++
		r.lost(p, err, 0)
	}
}

// left notes the end of a link.
func (r *roster) left(l *link, err error) {
	p := l.place
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.moved.broadcast()
	p.links = slices.DeleteFunc(p.links, func(o *link) bool { return o == l })
	now := time.Now()
	switch {
	case r.agent.ctx.Err() != nil:
	case len(p.links) > 0:
		r.agent.log.Debug("one connection fewer", "relay", p.String(), "error", err)
	case errors.Is(err, errOff):
		p.setState(stateOff, now)
	case errors.Is(err, errSpare):
		p.setState(stateStandby, now)
		p.retry.reset()
		r.agent.log.Info("left a relay as better ones work", "relay", p.String())
	default:
		if now.Sub(l.since) >= calm {
			p.retry.reset()
		}
		r.lost(p, err, min(l.reg.RetryAfter(), farthestMove))
	}
}

// lost notes why a place has no link, and when to try again. after is how long
// the relay asked to be left alone. Needs mu.
func (r *roster) lost(p *place, err error, after time.Duration) {
	now := time.Now()
	p.setState(stateConnecting, now)
	p.err = err
	failing := 0
	for _, o := range r.places {
		if o.wanted && o.err != nil {
			failing++
		}
	}
	p.retry.most = max(longestWait, time.Duration(failing)*failingShare)
	wait := p.retry.next()
	longer := (leisure - 1) * wait
	if !errors.Is(err, errDrained) { // then it was how long to stay
		wait += after
	}
	switch {
	case codeOf(err) == wire.CodeReplaced:
		wait += replacedPause
	case hopeless(err):
		wait += hopelessPause
	}
	p.next = now.Add(wait)
	p.later = p.next.Add(longer)
	r.set.Lost()
	if text := err.Error(); text != p.said {
		p.said = text
		r.agent.log.Warn("not reachable", "relay", p.String(), "error", err, "next_try", wait.Round(time.Millisecond))
	}
}

// forgive has relays tried again at once that did not take the ticket.
func (r *roster) forgive() {
	r.mu.Lock()
	for _, p := range r.places {
		switch codeOf(p.err) {
		case wire.CodeTicketMissing, wire.CodeTicketRefused, wire.CodeTicketExpired:
			p.next, p.later = time.Time{}, time.Time{}
			p.retry.reset()
		}
	}
	r.mu.Unlock()
	r.moved.broadcast()
}
