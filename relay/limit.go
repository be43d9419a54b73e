package relay

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/blindrelay/blindrelay/relay/admit"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// Defaults of Limits.
const (
	DefaultMaxSessions           = 16 << 10
	DefaultMaxSessionsPerAddress = 256
	DefaultMaxRoutes             = 16 << 10
	DefaultRouteDevices          = 64
	DefaultRouteStreams          = 1024
)

// Limits bound what a relay does for everybody, and for one address, route or
// device. Each is one limit, whatever the number of sockets. 0 means the
// default, negative no limit. Rates are in bit/s of what streams carry, both
// directions together; what QUIC, UDP and IP add is some 4 % more.
type Limits struct {
	// Egress is the rate of the whole relay, which its routes share by weight
	// while they want more. Default none: then the network divides, by
	// connections.
	Egress int64
	// MaxSessions bounds the sessions at one time, MaxSessionsPerAddress those
	// that come from one address, IPv4 /32 or IPv6 /56; loopback is not counted.
	// One network has the part of MaxSessions that transport.Share says.
	// A session stays with the address that it came from. MaxRoutes bounds the
	// agents, MaxStreams the forwarded streams; default of the latter: none but
	// BufferMemory.
	MaxSessions, MaxSessionsPerAddress, MaxRoutes, MaxStreams int
	// RouteRate is the rate of one route, DeviceRate that of one of its devices,
	// which is who shows the same token. Default none.
	RouteRate, DeviceRate int64
	// RouteDevices bounds the devices of one route that have a stream,
	// RouteStreams the streams.
	RouteDevices, RouteStreams int
	// RouteVolume is what one route may forward in a calendar month (UTC), in
	// bytes. Default none.
	RouteVolume int64
}

// orDefault returns n, or the default for 0, or 0 for no limit.
func orDefault[T int | int64](n, otherwise T) T {
	if n == 0 {
		return otherwise
	}
	return max(0, n)
}

// resolved returns the limits with their defaults; 0 is no limit there.
func (l Limits) resolved() Limits {
	return Limits{
		Egress:                orDefault(l.Egress, 0),
		MaxSessions:           orDefault(l.MaxSessions, DefaultMaxSessions),
		MaxSessionsPerAddress: orDefault(l.MaxSessionsPerAddress, DefaultMaxSessionsPerAddress),
		MaxRoutes:             orDefault(l.MaxRoutes, DefaultMaxRoutes),
		MaxStreams:            orDefault(l.MaxStreams, 0),
		RouteRate:             orDefault(l.RouteRate, 0),
		DeviceRate:            orDefault(l.DeviceRate, 0),
		RouteDevices:          orDefault(l.RouteDevices, DefaultRouteDevices),
		RouteStreams:          orDefault(l.RouteStreams, DefaultRouteStreams),
		RouteVolume:           orDefault(l.RouteVolume, 0),
	}
}

// terms is what one route may, of its grant or else of the relay's limits; 0 is
// no limit.
type terms struct {
	weight           int
	rate, deviceRate int64 // bit/s
	devices, streams int
	volume           int64 // bytes a month
}

// terms returns those of a route with a grant. The limits are resolved.
func (l Limits) terms(g admit.Grant) terms {
	return terms{
		weight:     max(1, g.Weight),
		rate:       orDefault(g.Rate, l.RouteRate),
		deviceRate: l.DeviceRate,
		devices:    orDefault(g.Sessions, l.RouteDevices),
		streams:    l.RouteStreams,
		volume:     orDefault(g.Volume, l.RouteVolume),
	}
}

// SetLimits replaces the limits. What runs goes on: who has more than may be
// now gets no more. The agents are told in the background, as some may take no
// word.
func (r *Relay) SetLimits(l Limits) {
	l = l.resolved()
	r.mu.Lock()
	r.limit.set(l.MaxSessions, l.MaxSessionsPerAddress)
	r.mu.Unlock()
	r.line.SetRate(l.Egress)
	groups := r.registry.limit(l)
	r.background(func() {
		for g, ok := groups(); ok; g, ok = groups() {
			r.tellTerms(g)
		}
	})
}

// limit bounds how many sessions a relay has at the same time: all together, of
// one address, so that one household cannot take all of them, and of one
// network, so that who owns it cannot either. It is guarded by Relay.mu.
type limit struct {
	all, each, share int // at most; negative: no limit
	taken            int
	of               map[netip.Prefix]int // of each address and network that has any
}

// set changes the bounds; 0 is no limit.
func (l *limit) set(all, each int) {
	if all == 0 {
		all = -1
	}
	if each == 0 {
		each = -1
	}
	l.all, l.each, l.share = all, each, transport.Share(all, each)
}

// take counts a session from an address, or says why there is no room for it.
func (l *limit) take(from net.Addr) *refusal {
	if l.all >= 0 && l.taken >= l.all {
		return &refusal{wire.CodeRelayFull, fmt.Sprintf("this relay takes %d connections and has them", l.all)}
	}
	address, network := transport.SourceOf(from), transport.NetworkOf(from)
	if l.each >= 0 && l.of[address] >= l.each {
		return &refusal{wire.CodeAddressLimit, fmt.Sprintf("this relay takes %d connections from one address and has them", l.each)}
	}
	if l.share >= 0 && l.of[network] >= l.share {
		return &refusal{wire.CodeAddressLimit, fmt.Sprintf("this relay takes %d connections from one network and has them", l.share)}
	}
	l.taken++
	l.add(address, 1)
	l.add(network, 1)
	return nil
}

// give gives back what take has counted.
func (l *limit) give(from net.Addr) {
	l.taken--
	l.add(transport.SourceOf(from), -1)
	l.add(transport.NetworkOf(from), -1)
}

// add counts n more for an address or a network, if it is one.
func (l *limit) add(p netip.Prefix, n int) {
	if !p.IsValid() {
		return
	}
	if l.of[p] += n; l.of[p] == 0 {
		delete(l.of, p)
	}
}
