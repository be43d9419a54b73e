package relay

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// Defaults of Config.MaxSessions and Config.MaxSessionsPerAddress.
const (
	DefaultMaxSessions           = 16 << 10
	DefaultMaxSessionsPerAddress = 256
)

// limit bounds how many sessions a relay has at the same time: all together,
// and of one address, so that one household cannot take all of them. It is
// guarded by Relay.mu.
type limit struct {
	all, each int // at most; negative: no limit
	taken     int
	of        map[netip.Prefix]int // of each address that has any: all at most
}

func newLimit(all, each int) limit {
	if all == 0 {
		all = DefaultMaxSessions
	}
	if each == 0 {
		each = DefaultMaxSessionsPerAddress
	}
	return limit{all: all, each: each, of: make(map[netip.Prefix]int)}
}

// take counts a session from a source, or says why there is no room for it.
func (l *limit) take(from netip.Prefix) *refusal {
	if l.all >= 0 && l.taken >= l.all {
		return &refusal{wire.CodeRelayFull, fmt.Sprintf("this relay takes %d connections and has them", l.all)}
	}
	if l.each >= 0 && from.IsValid() && l.of[from] >= l.each {
		return &refusal{wire.CodeAddressLimit, fmt.Sprintf("this relay takes %d connections from one address and has them", l.each)}
	}
	l.taken++
	if from.IsValid() {
		l.of[from]++
	}
	return nil
}

// give gives back what take has counted.
func (l *limit) give(from netip.Prefix) {
	l.taken--
	if !from.IsValid() {
		return
	}
	if l.of[from]--; l.of[from] == 0 {
		delete(l.of, from)
	}
}

// sourceOf returns what counts as one address: an IPv4 address, and of IPv6 a
// /56, which one household has (RFC 6177, section 2). Loopback is none: what
// comes from this machine is a test or stands for many others.
func sourceOf(addr net.Addr) netip.Prefix {
	a, ok := addr.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return netip.Prefix{}
	}
	ip := a.AddrPort().Addr().Unmap().WithZone("")
	if !ip.IsValid() || ip.IsLoopback() {
		return netip.Prefix{}
	}
	bits := 56
	if ip.Is4() {
		bits = 32
	}
	return netip.PrefixFrom(ip, bits).Masked()
}
