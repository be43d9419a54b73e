package transport

import (
	"net"
	"net/netip"
)

// SourceOf returns what a relay counts as one address: an IPv4 address, and of
// IPv6 a /56, which one household has (RFC 6177, section 2). Loopback is none:
// what comes from this machine is a test or stands for many others. The zero
// Prefix stands for none.
func SourceOf(addr net.Addr) netip.Prefix { return prefixOf(ipOf(addr), 32, 56) }

// ipOf returns the IP address in addr, which is not valid if there is none or
// it is loopback.
func ipOf(addr net.Addr) netip.Addr {
	a, ok := addr.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return netip.Addr{}
	}
	ip := a.AddrPort().Addr().Unmap().WithZone("")
	if ip.IsLoopback() {
		return netip.Addr{}
	}
	return ip
}

// prefixOf returns the network around ip with so many bits, of IPv4 or IPv6.
func prefixOf(ip netip.Addr, v4, v6 int) netip.Prefix {
	if !ip.IsValid() {
		return netip.Prefix{}
	}
	bits := v6
	if ip.Is4() {
		bits = v4
	}
	return netip.PrefixFrom(ip, bits).Masked()
}
