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
		net  string
	}{
		{&net.UDPAddr{IP: net.IPv4(203, 0, 113, 7), Port: 1}, "203.0.113.7/32", "203.0.113.0/24"},
		{&net.TCPAddr{IP: net.ParseIP("::ffff:203.0.113.7"), Port: 2}, "203.0.113.7/32", "203.0.113.0/24"},
		{&net.UDPAddr{IP: net.ParseIP("2001:db8:1:2ff::7"), Zone: "eth0"}, "2001:db8:1:200::/56", "2001:db8:1::/48"},
		{&net.UDPAddr{IP: net.ParseIP("2001:db8:1:300::7")}, "2001:db8:1:300::/56", "2001:db8:1::/48"},
		{&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, "", ""},
		{&net.TCPAddr{IP: net.IPv6loopback}, "", ""},
		{&net.UDPAddr{}, "", ""},
		{&net.UnixAddr{Name: "x"}, "", ""},
		{nil, "", ""},
	} {
		for _, as := range []struct {
			name string
			of   func(net.Addr) netip.Prefix
			want string
		}{{"an address", SourceOf, test.want}, {"a network", NetworkOf, test.net}} {
			want := netip.Prefix{}
			if as.want != "" {
				want = netip.MustParsePrefix(as.want)
			}
			if got := as.of(test.addr); got != want {
				t.Errorf("%v counts as %s %v, want %v", test.addr, as.name, got, want)
			}
		}
	}
}

func TestShare(t *testing.T) {
	for _, test := range []struct{ all, each, want int }{
		{16384, 256, 4096}, {1024, 64, 256}, {100, 64, 64}, {10, 64, 10}, {1, 1, 1}, {3, 1, 1}, {-1, 64, -1}, {100, -1, -1},
	} {
		if got := Share(test.all, test.each); got != test.want {
			t.Errorf("one network may have %d of %d with %d for each address, want %d", got, test.all, test.each, test.want)
		}
	}
}
