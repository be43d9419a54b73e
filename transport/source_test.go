package transport

import (
	"net"
	"net/netip"
	"testing"
)

func TestSourceOf(t *testing.T) {
	for _, test := range []struct {
		addr net.Addr
		want string // "": counts as none
	}{
		{&net.UDPAddr{IP: net.IPv4(203, 0, 113, 7), Port: 1}, "203.0.113.7/32"},
		{&net.TCPAddr{IP: net.ParseIP("::ffff:203.0.113.7"), Port: 2}, "203.0.113.7/32"},
		{&net.UDPAddr{IP: net.ParseIP("2001:db8:1:2ff::7"), Zone: "eth0"}, "2001:db8:1:200::/56"},
		{&net.UDPAddr{IP: net.ParseIP("2001:db8:1:300::7")}, "2001:db8:1:300::/56"},
		{&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, ""},
		{&net.TCPAddr{IP: net.IPv6loopback}, ""},
		{&net.UDPAddr{}, ""},
		{&net.UnixAddr{Name: "x"}, ""},
		{nil, ""},
	} {
		want := netip.Prefix{}
		if test.want != "" {
			want = netip.MustParsePrefix(test.want)
		}
		if got := SourceOf(test.addr); got != want {
			t.Errorf("%v counts as %v, want %v", test.addr, got, want)
		}
	}
}
