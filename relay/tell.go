package relay

import (
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// tellEvery is how often an endpoint hears of a limit that goes on holding it
// up, and how often an agent gets a receipt while its volume is used.
const tellEvery = 10 * time.Second

// news is what one endpoint is told.
type news struct {
	to      *session
	limits  []wire.Limit
	receipt wire.Receipt // "": none
}

// tell tells the endpoint on the control stream, if it is there: before the
// greeting and after a goodbye it is not. A limit of which it heard less than
// tellEvery ago is left out, unless this answers a REGISTER.
func (n news) tell(answer bool) {
	s := n.to
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.control == nil {
		return
	}
	var b []byte
	now := time.Now()
	for _, l := range n.limits {
		if told, ok := s.told[l.Code]; ok && !answer && now.Sub(told) < tellEvery {
			continue
		}
		if !answer { // an idle agent needs no map
			if s.told == nil {
				s.told = make(map[wire.Code]time.Time)
			}
			s.told[l.Code] = now
		}
		s.relay.metrics.limitsTold.of(l.Code).Inc()
		b = l.Append(b)
	}
	if n.receipt != "" {
		s.relay.metrics.receiptsGiven.Inc()
		b = n.receipt.Append(b)
	}
	if len(b) == 0 {
		return
	}
	s.control.SetWriteDeadline(now.Add(goodbyeWithin))
	if n, err := s.control.Write(b); err != nil && n > 0 {
		s.control = nil // half a frame has gone: nothing can follow
	}
}

// tellTerms tells the agent which limits its route has, and gives it a receipt
// if it has a volume. Streams that run may be held up by these limits from now on.
func (r *Relay) tellTerms(g *group) {
	for _, n := range r.registry.terms(g) {
		n.tell(true)
	}
	r.watch(g)
}

// terms returns what to tell each session of the agent about its limits.
func (r *registry) terms(g *group) (all []news) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var limits []wire.Limit
	add := func(code wire.Code, most int64, taken int) {
		if most > 0 {
			limits = append(limits, wire.Limit{Code: code, Limit: uint64(most), Left: uint64(max(0, most-int64(taken)))})
		}
	}
	add(wire.CodeRouteRate, g.terms.rate, 0)
	add(wire.CodeDeviceRate, g.terms.deviceRate, 0)
	add(wire.CodeDeviceLimit, int64(g.terms.devices), g.present)
	add(wire.CodeStreamLimit, int64(g.terms.streams), g.streams)
	var receipt wire.Receipt
	if v := r.volumes.limit(g); v != nil {
		limits = append(limits, *v)
		receipt = r.volumes.receipt(g.route)
		g.left = v.Left
	}
	for _, a := range g.agents {
		all = append(all, news{a.session, limits, receipt})
	}
	return all
}

// lastReceipt returns a RECEIPT for the agent of a route, nothing if it has no
// volume.
func (r *Relay) lastReceipt(g *group) []byte {
	r.registry.mu.Lock()
	defer r.registry.mu.Unlock()
	if r.registry.volumes.limit(g) == nil {
		return nil
	}
	receipt := r.registry.volumes.receipt(g.route)
	if receipt == "" {
		return nil
	}
	r.metrics.receiptsGiven.Inc()
	return receipt.Append(nil)
}

// met tells a device, and the agent of the route, which limit a stream met.
func (r *Relay) met(s *session, g *group, l wire.Limit) {
	news{to: s, limits: []wire.Limit{l}}.tell(false)
	for _, a := range r.registry.agents(g) {
		news{to: a.session, limits: []wire.Limit{l}}.tell(false)
	}
}

// watch has the endpoints of a route told, as long as it forwards, what holds
// them up, and the agent how much of its volume is used.
func (r *Relay) watch(g *group) {
	r.registry.mu.Lock()
	defer r.registry.mu.Unlock()
	if g.telling != nil || len(g.agents) == 0 || !r.registry.bounded(g) {
		return
	}
	g.telling = time.AfterFunc(tellEvery, func() {
		r.background(func() {
			news, again := r.registry.report(g)
			for _, n := range news {
				n.tell(false)
			}
			if again {
				r.watch(g)
			}
		})
	})
}

// bounded reports whether a limit may hold a route's streams up. Needs mu.
func (r *registry) bounded(g *group) bool {
	return r.limits.Egress > 0 || g.terms.rate > 0 || g.terms.deviceRate > 0 || g.terms.volume > 0
}

// report returns what holds up the streams of a route, and whether there is
// something to come.
func (r *registry) report(g *group) (all []news, again bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g.telling = nil
	var common []wire.Limit
	now := time.Now()
	add := func(to []wire.Limit, code wire.Code, rate int64, reached time.Time) []wire.Limit {
		if now.Sub(reached) <= tellEvery {
			to = append(to, wire.Limit{Code: code, Limit: uint64(rate)})
		}
		return to
	}
	common = add(common, wire.CodeEgressRate, r.limits.Egress, r.line.Reached())
	common = add(common, wire.CodeRouteRate, g.terms.rate, g.share.Reached())
	toAgent := common[:len(common):len(common)]
	slow := false // some device
	for _, p := range g.places {
		own := add(common[:len(common):len(common)], wire.CodeDeviceRate, g.terms.deviceRate, p.share.Reached())
		slow = slow || len(own) > len(common)
		all = append(all, news{to: p.device, limits: own})
	}
	if slow {
		toAgent = append(toAgent, wire.Limit{Code: wire.CodeDeviceRate, Limit: uint64(g.terms.deviceRate)})
	}
	var receipt wire.Receipt
	again = g.streams > 0
	if v := r.volumes.limit(g); v != nil && v.Left != g.left {
		g.left = v.Left
		toAgent = append(toAgent, *v)
		receipt = r.volumes.receipt(g.route)
		again = true
	}
	for _, a := range g.agents {
		all = append(all, news{a.session, toAgent, receipt})
	}
	return all, again
}

// agents returns the agent's connections.
func (r *registry) agents(g *group) []*agent {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*agent(nil), g.agents...)
}
