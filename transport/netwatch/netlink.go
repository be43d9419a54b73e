package netwatch

import "encoding/binary"

// Messages of rtnetlink(7), as uapi/linux/netlink.h, rtnetlink.h, if_link.h and
// if_addr.h define them. Numbers are in the machine's byte order. They are
// written down here so that the parser is tested on every system.
const (
	typeNewLink, typeDelLink   = 16, 17
	typeNewAddr, typeDelAddr   = 20, 21
	typeNewRoute, typeDelRoute = 24, 25

	headerLen = 16 // struct nlmsghdr: length 4, type 2, flags 2, sequence 4, port 4
	linkLen   = 16 // struct ifinfomsg: family 1, pad 1, type 2, index 4, flags 4, change 4
	addrLen   = 8  // struct ifaddrmsg: family 1, prefix 1, flags 1, scope 1, index 4
	routeLen  = 12 // struct rtmsg: family 1, dst 1, src 1, tos 1, table 1, protocol 1, scope 1, type 1, flags 4
	attrLen   = 4  // struct rtattr: length 2, type 2

	flagUp, flagLoopback, flagLowerUp = 1 << 0, 1 << 3, 1 << 16 // of interfaces (netdevice(7))

	attrAddress, attrLocal, attrFlags = 1, 2, 8 // of addresses
	addrTentative                     = 0x40    // duplicates are still looked for (RFC 4862, section 5.4)

	routeUnicast             = 1
	routeCloned              = 0x200 // a cache entry, not a route
	scopeLink, scopeHost     = 253, 254
	maxInterfaces, maxAddrs  = 1024, 4096
	familyAny                = 0
	familyIPv4, familyIPv6   = 2, 10
	lenAddrIPv4, lenAddrIPv6 = 4, 16
)

// state is what is known of interfaces and addresses: the kernel reports them
// also when nothing has changed, as it does for each IPv6 address whose lifetime
// a router renews, and for statistics of an interface.
type state struct {
	up    map[uint32]bool // interfaces with a carrier, by index; bounded by maxInterfaces
	addrs map[address]struct{}
}

// address is one of an interface.
type address struct {
	index  uint32
	family byte
	prefix byte
	ip     [16]byte
}

// apply reads the messages of one datagram from the kernel and reports whether
// any of them matters: a default route that comes or goes, an address that comes
// or goes on an interface that is up, an interface with an address that goes up
// or down (for which the kernel reports neither addresses nor routes). What
// cannot be read is skipped.
func (s *state) apply(b []byte) (matters bool) {
	for len(b) >= headerLen {
		size := binary.NativeEndian.Uint32(b)
		if size < headerLen || uint64(size) > uint64(len(b)) {
			break
		}
		kind := binary.NativeEndian.Uint16(b[4:])
		if s.message(kind, b[headerLen:size]) {
			matters = true
		}
		b = b[min(align(int(size)), len(b)):]
	}
	return matters
}

func (s *state) message(kind uint16, body []byte) bool {
	switch kind {
	case typeNewLink, typeDelLink:
		return len(body) >= linkLen && s.link(kind == typeNewLink, body)
	case typeNewAddr, typeDelAddr:
		return len(body) >= addrLen && s.addr(kind == typeNewAddr, body)
	case typeNewRoute, typeDelRoute:
		return len(body) >= routeLen && defaultRoute(body)
	}
	return false
}

// link notes whether an interface is up and has a carrier.
func (s *state) link(is bool, body []byte) bool {
	index, flags := binary.NativeEndian.Uint32(body[4:]), binary.NativeEndian.Uint32(body[8:])
	if body[0] != familyAny || flags&flagLoopback != 0 {
		return false // a bridge's view of an interface, or one that leads nowhere
	}
	was, up := s.up[index], is && flags&flagUp != 0 && flags&flagLowerUp != 0
	if s.up == nil || len(s.up) >= maxInterfaces {
		s.up = make(map[uint32]bool)
	}
	if up {
		s.up[index] = true
	} else {
		delete(s.up, index)
	}
	if was == up {
		return false
	}
	for a := range s.addrs {
		if a.index == index {
			return true
		}
	}
	return false
}

// addr notes an address. Those of link and host scope lead nowhere; one that is
// tentative cannot be used yet and is reported again when it can.
func (s *state) addr(is bool, body []byte) bool {
	if scope := body[3]; scope == scopeLink || scope == scopeHost {
		return false
	}
	a := address{index: binary.NativeEndian.Uint32(body[4:]), family: body[0], prefix: body[1]}
	flags := uint32(body[2])
	var ip, local []byte
	attributes(body[addrLen:], func(kind uint16, value []byte) {
		switch {
		case kind == attrAddress:
			ip = value
		case kind == attrLocal: // on a link of two, attrAddress is the other end
			local = value
		case kind == attrFlags && len(value) >= 4:
			flags = binary.NativeEndian.Uint32(value)
		}
	})
	if local != nil {
		ip = local
	}
	if a.family == familyIPv4 && len(ip) != lenAddrIPv4 || a.family == familyIPv6 && len(ip) != lenAddrIPv6 {
		return false
	}
	copy(a.ip[:], ip)
	if is && flags&addrTentative != 0 {
		return false
	}
	_, was := s.addrs[a]
	if s.addrs == nil || len(s.addrs) >= maxAddrs {
		s.addrs = make(map[address]struct{})
	}
	if is {
		s.addrs[a] = struct{}{}
	} else {
		delete(s.addrs, a)
	}
	return was != is && s.up[a.index]
}

// defaultRoute reports whether a route leads anywhere, of whichever table:
// VPNs have tables of their own.
func defaultRoute(body []byte) bool {
	return body[1] == 0 && body[7] == routeUnicast && binary.NativeEndian.Uint32(body[8:])&routeCloned == 0
}

// attributes calls f for each attribute that b holds in whole.
func attributes(b []byte, f func(kind uint16, value []byte)) {
	for len(b) >= attrLen {
		size := int(binary.NativeEndian.Uint16(b))
		if size < attrLen || size > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:]), b[attrLen:size])
		b = b[min(align(size), len(b)):]
	}
}

// align is the length up to the next message or attribute.
func align(n int) int { return (n + 3) &^ 3 }
