package relay

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/relay/share"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// agent is one registered connection of an agent.
type agent struct {
	session *session
	route   wire.Route
	group   *group // set by put

	streams int // forwarded here; guarded by registry.mu
}

// group is the connections of one agent: those of one instance.
type group struct {
	route    wire.Route
	instance wire.Instance

	// guarded by registry.mu
	tokens  []wire.TokenHash    // replaced as a whole
	verdict verdict             // the latest; its grant is the agent's
	ends    *time.Timer         // has the agent judged anew; nil while its grant has no end
	agents  []*agent            // at least one while the group is in the registry, at most wire.MaxConnections
	places  map[*session]*place // of devices that have streams; nil if there was none

	// its limits, guarded by registry.mu
	terms   terms
	share   *share.Route
	measure *share.Device              // what all measurements are of together; constant
	devices map[wire.TokenHash]*device // that have come; nil before the first
	present int                        // of them, those that have streams
	streams int
	telling *time.Timer // calls report; nil: nothing to report
	left    uint64      // of the volume, as the agent was told last
}

func newGroup(route wire.Route, instance wire.Instance, s *share.Route) *group {
	return &group{route: route, instance: instance, share: s, measure: s.Device(0)}
}

// place is where a device's streams go while it has any.
type place struct {
	group   *group
	device  *session
	share   *share.Device // of the session's latest stream
	agent   *agent
	streams int // guarded by registry.mu
}

// registry knows which agent serves a route now, over which of its connections
// the streams of each device go, and what each route may.
type registry struct {
	line    *share.Line
	metrics *metrics

	mu      sync.Mutex
	groups  map[wire.Route]*group
	limits  Limits // resolved
	streams int    // forwarded, of all routes
	volumes volumes
}

// find returns the agent of a route if it lists a token with this hash, or the
// code that says why not. It compares hashes: its time tells nothing about the
// tokens.
func (r *registry) find(route wire.Route, token wire.TokenHash) (*group, wire.Code) {
	r.mu.Lock()
	g := r.groups[route]
	var tokens []wire.TokenHash
	if g != nil {
		tokens = g.tokens
	}
	r.mu.Unlock()
	switch {
	case g == nil:
		return nil, wire.CodeRouteUnknown
	case !slices.Contains(tokens, token):
		return nil, wire.CodeTokenRefused
	}
	return g, wire.CodeNone
}

// put makes a serve its route beside the connections of the same instance, and
// returns those of another one, which it replaces, or says why there is no room
// for it.
func (r *registry) put(a *agent, reg wire.Register, v verdict) (replaced []*agent, no *refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.groups[a.route]
	switch {
	case g == nil:
		if most := r.limits.MaxRoutes; most > 0 && len(r.groups) >= most {
			return nil, &refusal{wire.CodeRouteLimit, fmt.Sprintf("this relay takes %d servers and has them", most)}
		}
		g = newGroup(a.route, reg.Instance, r.line.Route(1, 0))
	case g.instance != reg.Instance:
		replaced = g.agents
		g = newGroup(a.route, reg.Instance, g.share)
	case len(g.agents) >= wire.MaxConnections:
		return nil, &refusal{wire.CodeTooManyConns, fmt.Sprintf("this agent has %d connections here already, which is the most", wire.MaxConnections)}
	}
	g.agents = append(g.agents, a)
	a.group = g
	r.groups[a.route] = g
	r.accept(g, reg, v)
	return replaced, nil
}

// update takes one more REGISTER of a's instance.
func (r *registry) update(a *agent, reg wire.Register, v verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accept(a.group, reg, v)
}

// accept replaces the tokens and the verdict of a group, and forgets the devices
// that may not come any more. Needs mu.
func (r *registry) accept(g *group, reg wire.Register, v verdict) {
	g.tokens, g.verdict = reg.Tokens, v
	maps.DeleteFunc(g.devices, func(t wire.TokenHash, d *device) bool {
		return d.streams == 0 && !slices.Contains(g.tokens, t)
	})
	r.apply(g)
	if reg.Receipt != "" && g.terms.volume > 0 {
		if r.volumes.present(g.route, reg.Receipt) {
			r.metrics.receiptsTaken.Inc()
		} else {
			r.metrics.receiptsRefused.Inc()
		}
	}
}

// remove takes a away, and with its last connection the route, unless another
// instance has it.
func (r *registry) remove(a *agent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := a.group
	if i := slices.Index(g.agents, a); i >= 0 {
		g.agents = slices.Delete(slices.Clone(g.agents), i, i+1) // put may have handed the old slice out
	}
	if len(g.agents) > 0 {
		return
	}
	for _, timer := range []*time.Timer{g.ends, g.telling} {
		if timer != nil {
			timer.Stop()
		}
	}
	if r.groups[g.route] == g {
		delete(r.groups, g.route)
	}
}

// enter counts a stream of the device in, and returns the place where it goes:
// where the device's others go, or else the connection with the fewest. It
// returns nil if the agent has no connection left. The caller leaves the place
// when the stream is over.
func (r *registry) enter(s *slot, device *session) *place {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := s.group
	p := g.places[device]
	if p == nil || p.agent.session.Err() != nil {
		a := g.quietest()
		if a == nil {
			return nil
		}
		p = &place{group: g, device: device, agent: a}
		if g.places == nil {
			g.places = make(map[*session]*place)
		}
		g.places[device] = p
	}
	p.share = s.device.share
	p.streams++
	p.agent.streams++
	return p
}

// leave counts a stream out.
func (r *registry) leave(p *place) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p.agent.streams--
	if p.streams--; p.streams == 0 && p.group.places[p.device] == p {
		delete(p.group.places, p.device)
	}
}

// quietest returns the connection with the fewest streams, of equals the
// newest; one that has gone silent only if all have, one that is over never.
func (g *group) quietest() *agent {
	var best *agent
	var bestMute bool
	for _, a := range slices.Backward(g.agents) {
		if a.session.Err() != nil {
			continue
		}
		mute := len(g.agents) > 1 && a.mute()
		if best == nil || bestMute && !mute || bestMute == mute && a.streams < best.streams {
			best, bestMute = a, mute
		}
	}
	return best
}

// muteAfter is when an agent's connection is passed over: it has missed two
// keep-alives.
const muteAfter = 2*transport.KeepAlive + time.Second/2

// mute reports whether nothing was heard of the agent for so long.
func (a *agent) mute() bool {
	s, ok := a.session.Session.(interface{ Silent() time.Duration })
	return ok && s.Silent() > muteAfter
}

// bounds returns the limits in effect.
func (r *registry) bounds() Limits {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.limits
}

// volumeSpent is how many bytes were counted against volumes.
func (r *registry) volumeSpent() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.volumes.spent
}

// size is the number of routes.
func (r *registry) size() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.groups)
}
