package relay

import (
	"github.com/blindrelay/blindrelay/relay/share"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// device is one device of a route: who shows the same token. It may have
// several sessions. It stays while its group does, so that nobody gains by
// leaving and coming back; guarded by registry.mu.
type device struct {
	share   *share.Device
	streams int
}

// slot is the right to forward one stream.
type slot struct {
	group  *group
	device *device
	flow   *share.Flow
}

// take gives a stream of the device with the token a slot, or says which limit
// of the route or the relay it would exceed. The caller gives the slot back.
func (r *registry) take(g *group, token wire.TokenHash, u wire.Urgency) (*slot, *wire.Limit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if over := r.exceeded(g, token); over != nil {
		return nil, over
	}
	d := g.devices[token]
	if d == nil {
		if g.devices == nil {
			g.devices = make(map[wire.TokenHash]*device)
		}
		d = &device{share: g.share.Device(g.terms.deviceRate)}
		g.devices[token] = d
	}
	if d.streams == 0 {
		g.present++
	}
	d.streams++
	g.streams++
	r.streams++
	return &slot{g, d, d.share.Flow(u)}, nil
}

// exceeded returns the limit that one more stream would exceed, or nil. Needs
// mu.
func (r *registry) exceeded(g *group, token wire.TokenHash) *wire.Limit {
	d := g.devices[token]
	switch {
	case r.limits.MaxStreams > 0 && r.streams >= r.limits.MaxStreams:
		return &wire.Limit{Code: wire.CodeRelayStreams, Limit: uint64(r.limits.MaxStreams)}
	case g.terms.streams > 0 && g.streams >= g.terms.streams:
		return &wire.Limit{Code: wire.CodeStreamLimit, Limit: uint64(g.terms.streams)}
	case g.terms.devices > 0 && g.present >= g.terms.devices && (d == nil || d.streams == 0):
		return &wire.Limit{Code: wire.CodeDeviceLimit, Limit: uint64(g.terms.devices)}
	}
	if v := r.volumes.limit(g); v != nil && v.Left == 0 {
		return v
	}
	return nil
}

// give takes a slot back. What it held up ends.
func (r *registry) give(s *slot) {
	s.flow.Leave()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.streams--
	s.group.streams--
	if s.device.streams--; s.device.streams == 0 {
		s.group.present--
	}
}

// spend counts bytes of a route, and reports whether it may forward more in
// this month.
func (r *registry) spend(g *group, bytes int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g.terms.volume == 0 {
		return true
	}
	return r.volumes.spend(g.route, bytes) < g.terms.volume
}

// spent returns the route's volume if it is used up, else nil.
func (r *registry) spent(g *group) *wire.Limit {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v := r.volumes.limit(g); v != nil && v.Left == 0 {
		return v
	}
	return nil
}

// apply has the route's grant rule its terms. Needs mu.
func (r *registry) apply(g *group) {
	g.terms = r.limits.terms(g.verdict.grant)
	g.share.Set(g.terms.weight, g.terms.rate)
	for _, d := range g.devices {
		d.share.Set(g.terms.deviceRate)
	}
}

// limit replaces the limits and returns a function that hands out the groups,
// as all does.
func (r *registry) limit(l Limits) func() (*group, bool) {
	r.mu.Lock()
	r.limits = l
	for _, g := range r.groups {
		r.apply(g)
	}
	r.mu.Unlock()
	return r.all()
}
