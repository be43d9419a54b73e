package netwatch

import (
	"encoding/binary"
	"slices"
	"testing"
)

func message(kind uint16, body ...byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(headerLen+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(append(b, make([]byte, headerLen-6)...), body...)
	return append(b, make([]byte, align(len(b))-len(b))...)
}

func linkMessage(kind uint16, index, flags uint32) []byte {
	b := make([]byte, linkLen)
	binary.NativeEndian.PutUint32(b[4:], index)
	binary.NativeEndian.PutUint32(b[8:], flags)
	return message(kind, b...)
}

func attribute(kind uint16, value ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(attrLen+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, align(len(b))-len(b))...)
}

func addrMessage(kind uint16, scope byte, index uint32, attrs ...[]byte) []byte {
	b := binary.NativeEndian.AppendUint32([]byte{familyIPv4, 24, 0, scope}, index)
	return message(kind, append(b, slices.Concat(attrs...)...)...)
}

func routeMessage(kind uint16, prefix, routeType byte, flags uint32) []byte {
	return message(kind, binary.NativeEndian.AppendUint32([]byte{familyIPv4, prefix, 0, 0, 254, 3, 0, routeType}, flags)...)
}

// TestApply feeds a state one message after the other.
func TestApply(t *testing.T) {
	const carrier = flagUp | flagLowerUp
	ip, other := attribute(attrAddress, 10, 0, 0, 1), attribute(attrAddress, 10, 0, 0, 2)
	var s state
	for i, c := range []struct {
		what string
		b    []byte
		want bool
	}{
		{"a default route comes", routeMessage(typeNewRoute, 0, routeUnicast, 0), true},
		{"a default route goes", routeMessage(typeDelRoute, 0, routeUnicast, 0), true},
		{"another route", routeMessage(typeNewRoute, 24, routeUnicast, 0), false},
		{"an unreachable default", routeMessage(typeNewRoute, 0, 7, 0), false},
		{"a cached route", routeMessage(typeNewRoute, 0, routeUnicast, routeCloned), false},
		{"an interface is there", linkMessage(typeNewLink, 3, 0), false},
		{"an address on it, which is down", addrMessage(typeNewAddr, 0, 3, ip), false},
		{"it is up", linkMessage(typeNewLink, 3, flagUp), false},
		{"it has a carrier", linkMessage(typeNewLink, 3, carrier), true},
		{"its counters", linkMessage(typeNewLink, 3, carrier|1<<6), false},
		{"the address is renewed", addrMessage(typeNewAddr, 0, 3, ip), false},
		{"a link-local address", addrMessage(typeNewAddr, scopeLink, 3, other), false},
		{"a tentative address", addrMessage(typeNewAddr, 0, 3, other, attribute(attrFlags, binary.NativeEndian.AppendUint32(nil, addrTentative)...)), false},
		{"it is no longer tentative", addrMessage(typeNewAddr, 0, 3, other, attribute(attrFlags, 0, 0, 0, 0)), true},
		{"it goes", addrMessage(typeDelAddr, 0, 3, other), true},
		{"it goes again", addrMessage(typeDelAddr, 0, 3, other), false},
		{"the local address counts", addrMessage(typeNewAddr, 0, 3, other, attribute(attrLocal, 10, 0, 0, 1)), false},
		{"the carrier is lost", linkMessage(typeNewLink, 3, flagUp), true},
		{"an address goes meanwhile", addrMessage(typeDelAddr, 0, 3, ip), false},
		{"the carrier is back", linkMessage(typeNewLink, 3, carrier), false},
		{"a container's interface", linkMessage(typeNewLink, 4, carrier), false},
		{"the loopback", linkMessage(typeNewLink, 1, carrier|flagLoopback), false},
		{"its address", addrMessage(typeNewAddr, 0, 1, ip), false},
		{"an address of a wrong length", addrMessage(typeNewAddr, 0, 3, attribute(attrAddress, 1, 2, 3)), false},
		{"several at once", slices.Concat(linkMessage(typeNewLink, 4, carrier), routeMessage(typeNewRoute, 0, routeUnicast, 0), message(3)), true},
		{"the interface is gone", linkMessage(typeDelLink, 4, carrier), false},
		{"a neighbour", message(28, make([]byte, 12)...), false},
		{"a body that is too short", message(typeNewRoute, 2, 0), false},
		{"a length that is too long", append([]byte{200, 0, 0, 0}, routeMessage(typeNewRoute, 0, 1, 0)[4:]...), false},
	} {
		if got := s.apply(c.b); got != c.want {
			t.Errorf("%d, %s: matters is %v", i, c.what, got)
		}
	}
}

// TestBounds feeds more interfaces and addresses than a machine has.
func TestBounds(t *testing.T) {
	var s state
	for i := range uint32(3 * maxAddrs) {
		s.apply(linkMessage(typeNewLink, i, flagUp|flagLowerUp))
		s.apply(addrMessage(typeNewAddr, 0, i, attribute(attrAddress, 10, 0, 0, 1)))
		if len(s.up) > maxInterfaces || len(s.addrs) > maxAddrs {
			t.Fatalf("%d interfaces and %d addresses are kept", len(s.up), len(s.addrs))
		}
	}
}

func FuzzApply(f *testing.F) {
	f.Add(linkMessage(typeNewLink, 3, flagUp|flagLowerUp), addrMessage(typeNewAddr, 0, 3, attribute(attrAddress, 10, 0, 0, 1)))
	f.Add(routeMessage(typeNewRoute, 0, routeUnicast, 0), message(typeDelAddr, familyIPv6, 64, 0, 0, 3, 0, 0, 0))
	f.Add([]byte{16, 0, 0, 0}, []byte{255, 255, 255, 255, 16, 0})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var s state
		s.apply(a)
		s.apply(b)
		if len(s.up) > maxInterfaces || len(s.addrs) > maxAddrs {
			t.Errorf("%d interfaces and %d addresses are kept", len(s.up), len(s.addrs))
		}
		for addr := range s.addrs {
			if addr.family == familyIPv4 && [12]byte(addr.ip[4:]) != [12]byte{} {
				t.Errorf("IPv4 address % x", addr.ip)
			}
		}
	})
}
