package endpoint

import (
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/blindrelay/blindrelay/transport/fleet"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// How many connections an agent has to one relay.
const (
	// maxLinks is for as many devices that stream at once, each of which could
	// hold up the others of its connection.
	maxLinks   = 4
	maxRetired = 3           // connections over TCP that others have replaced
	slackAfter = time.Minute // without need, before a connection is closed
	quicEvery  = 3 * time.Minute
)

// place is a relay at which the agent is registered, or could be. The roster's
// mu guards it.
type place struct {
	id        string
	addresses []fleet.Relay // of the relay, as DNS has them; none if it no longer does
	turn      int           // which of them is next
	listed    bool          // DNS still names the relay
	wanted    bool          // it is one of those to be registered at

	links   []*link // registered now
	traffic traffic

	state string
	since time.Time // when the state began
	err   error     // why there is no link; nil before the first attempt, and while there is one
	said  string    // the latest failure that was logged

	warned time.Time // the end of the ticket that was logged last
	limits limitLog

	began time.Time // when the attempt that is under way began; zero while none is
	retry backoff
	next  time.Time // no attempt at a first link before
	later time.Time // and not before this while enough other relays work

	extraNext time.Time // no attempt at a further link before
	quicNext  time.Time // when to try QUIC where there is a link over TCP; zero while there is none
	slack     time.Time // since when there are more links than needed
	spare     time.Time // since when the place is not needed at all

	updating chan struct{} // holds a value while a word about tokens is on its way; room for one
}

// String names the relay in logs.
func (p *place) String() string {
	if len(p.addresses) == 0 {
		return p.id
	}
	a := p.address()
	if host, _, err := net.SplitHostPort(a.Addr); err == nil && host != a.IP.String() {
		return a.Addr + " (" + a.IP.String() + ")"
	}
	return a.Addr
}

// address is where to dial next.
func (p *place) address() fleet.Relay { return p.addresses[p.turn%len(p.addresses)] }

func (p *place) setState(state string, now time.Time) {
	if state != p.state {
		p.state, p.since = state, now
	}
}

func (p *place) trying() bool { return !p.began.IsZero() }

// draining reports whether the relay is being emptied.
func (p *place) draining() bool {
	return slices.ContainsFunc(p.links, func(l *link) bool { return !l.move.IsZero() })
}

// leaving reports whether the relay is being emptied and the time to move has come.
func (p *place) leaving(now time.Time) bool {
	return slices.ContainsFunc(p.links, func(l *link) bool { return !l.move.IsZero() && !l.move.After(now) })
}

// up reports whether devices find the agent here, and will.
func (p *place) up(now time.Time) bool { return len(p.links) > 0 && !p.leaving(now) }

// promises reports whether no other place has to be tried for this one: it is
// up, or about to be. Where another process took the agent's place it waits,
// too, instead of following it over all relays.
func (p *place) promises(now time.Time) bool {
	if len(p.links) > 0 {
		return p.up(now)
	}
	replaced := codeOf(p.err) == wire.CodeReplaced
	if p.trying() {
		return (p.err == nil || replaced) && now.Sub(p.began) < slowAfter
	}
	return replaced && p.next.After(now)
}

// active are the links that nothing has replaced.
func (p *place) active() []*link {
	var all []*link
	for _, l := range p.links {
		if l.retired.IsZero() {
			all = append(all, l)
		}
	}
	return all
}

func (p *place) endLinks(why error) {
	for _, l := range p.links {
		l.end(why)
	}
}

func (p *place) endIdleLinks(why error) {
	for _, l := range p.links {
		if l.streams == 0 {
			l.end(why)
		}
	}
}

// adjust gives a place that is up as many connections as its devices need, and
// QUIC instead of TCP where that has become possible. Needs mu.
func (r *roster) adjust(g *agenda, p *place) {
	active := p.active()
	need := max(1, min(p.traffic.streaming, maxLinks))
	if !p.trying() && r.attempts < maxAttempts {
		tcp := slices.ContainsFunc(active, (*link).onTCP)
		switch {
		case !tcp:
			p.quicNext = time.Time{}
		case p.quicNext.IsZero():
			p.quicNext = g.now.Add(quicEvery - rand.N(quicEvery/10))
		}
		switch {
		case len(active) < need && !p.extraNext.After(g.now):
			r.attempt(g, p, extra)
		case tcp && !p.quicNext.After(g.now):
			r.attempt(g, p, quicAgain)
		}
		g.at(p.extraNext)
		g.at(p.quicNext)
	}
	p.retire(g)
	if len(active) <= need {
		p.slack = time.Time{}
		return
	}
	if p.slack.IsZero() {
		p.slack = g.now
	}
	if g.now.Sub(p.slack) >= slackAfter {
		if i := slices.IndexFunc(active, func(l *link) bool { return l.streams == 0 }); i >= 0 {
			active[i].end(errSlack)
		}
	}
	g.at(p.slack.Add(slackAfter))
}

// retire ends what has been replaced, as soon as nothing streams over it.
func (p *place) retire(g *agenda) {
	retired := 0
	for _, l := range slices.Backward(p.links) { // the latest first
		if l.retired.IsZero() {
			continue
		}
		retired++
		if l.streams == 0 || retired > maxRetired || g.now.Sub(l.retired) >= lingering {
			l.end(errSlack)
		}
		g.at(l.retired.Add(lingering))
	}
}

// Why an agent leaves a relay that works.
var (
	errDrained = errors.New("the relay is being emptied")
	errSpare   = errors.New("better relays work")
	errSlack   = errors.New("fewer connections are enough")
)
