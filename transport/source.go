package transport

import (
	"net"
	"net/netip"
)

// SourceOf returns what a relay counts as one address: an IPv4 address, and of
// IPv6 a /56, which one household has (RFC 6177, section 2). Loopback is none:
// what comes from this machine is a test or stands for many others. The zero
// Prefix stands for none.
func SourceOf(addr net.Addr) netip.Prefix { return prefixOf(addr, 32, 56) }

// NetworkOf returns what a relay counts as one network: an IPv4 /24, or an IPv6
// /48, which one site has. Otherwise it is as SourceOf.
func NetworkOf(addr net.Addr) netip.Prefix { return prefixOf(addr, 24, 48) }

// prefixOf returns the network around an address with so many bits, of IPv4 or
// IPv6.
func prefixOf(addr net.Addr, v4, v6 int) netip.Prefix {
	a, ok := addr.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return netip.Prefix{}
	}
	ip := a.AddrPort().Addr().Unmap().WithZone("")
	if !ip.IsValid() || ip.IsLoopback() {
		return netip.Prefix{}
	}
	bits := v6
	if ip.Is4() {
		bits = v4
	}
	return netip.PrefixFrom(ip, bits).Masked()
}
