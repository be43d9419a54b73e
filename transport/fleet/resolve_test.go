package fleet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
	"golang.org/x/net/dns/dnsmessage"
)

// zone answers as DNS does.
type zone struct {
	mu      sync.Mutex
	srv     map[string][]*net.SRV
	ips     map[string][]netip.Addr
	srvErr  error // of every question for SRV records
	ipErr   error
	silent  bool // no question for SRV records is answered
	queries int  // for addresses
}

var errNone = &net.DNSError{Err: "no such host", IsNotFound: true}

func (z *zone) LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error) {
	if service != "blindrelay" || proto != "udp" {
		panic(service + proto)
	}
	if z.silent {
		<-ctx.Done()
		return "", nil, ctx.Err()
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.srvErr != nil {
		return "", nil, z.srvErr
	}
	if r := z.srv[name]; r != nil {
		return "", r, nil
	}
	return "", nil, errNone
}

func (z *zone) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	if network != "ip" {
		panic(network)
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.queries++
	if z.ipErr != nil {
		return nil, z.ipErr
	}
	if ips := z.ips[host]; ips != nil {
		return ips, nil
	}
	return nil, errNone
}

// change alters the zone between two questions.
func (z *zone) change(f func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	f()
}

// asked returns how many questions for addresses there were.
func (z *zone) asked() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.queries
}

func ips(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, s := range texts {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

func describe(all []Relay) string {
	var lines []string
	for _, r := range all {
		lines = append(lines, fmt.Sprintf("%s %v %s %d %.2f", r.Addr, r.IP, r.ID, r.Tier, r.Weight))
	}
	return strings.Join(lines, "\n")
}

func TestResolve(t *testing.T) {
	pin := wire.KeyPin{7}
	for _, c := range []struct {
		name string
		in   string
		zone *zone
		want []string // address, IP, ID, tier, weight
		err  string
	}{
		{"IPv4", "192.0.2.1:4433", nil, []string{"192.0.2.1:4433 192.0.2.1 192.0.2.1:4433 0 1.00"}, ""},
		{"IPv6", "[2001:db8::1]:4433", nil, []string{"[2001:db8::1]:4433 2001:db8::1 [2001:db8::1]:4433 0 1.00"}, ""},
		{"loopback", "127.0.0.1:9", nil, []string{"127.0.0.1:9 127.0.0.1 127.0.0.1:9 0 1.00"}, ""},
		{"addresses", "r.example:4433", &zone{ips: map[string][]netip.Addr{"r.example": ips("192.0.2.2", "192.0.2.1", "192.0.2.2")}}, []string{
			"r.example:4433 192.0.2.1 192.0.2.1:4433 0 1.00",
			"r.example:4433 192.0.2.2 192.0.2.2:4433 0 1.00",
		}, ""},
		{"both families, IPv6 preferred", "r.example:4433", &zone{ips: map[string][]netip.Addr{"r.example": ips("2001:db8::2", "192.0.2.1", "2001:db8::1", "192.0.2.2")}}, []string{
			"r.example:4433 2001:db8::1 192.0.2.1:4433 0 1.00",
			"r.example:4433 192.0.2.1 192.0.2.1:4433 0 1.00",
			"r.example:4433 2001:db8::2 192.0.2.2:4433 0 1.00",
			"r.example:4433 192.0.2.2 192.0.2.2:4433 0 1.00",
		}, ""},
		{"more IPv4 than IPv6", "r.example:4433", &zone{ips: map[string][]netip.Addr{"r.example": ips("192.0.2.1", "192.0.2.2", "2001:db8::1")}}, []string{
			"r.example:4433 192.0.2.1 192.0.2.1:4433 0 1.00",
			"r.example:4433 2001:db8::1 192.0.2.1:4433 0 1.00",
			"r.example:4433 192.0.2.2 192.0.2.2:4433 0 1.00",
		}, ""},
		{"IPv6 only, and what no relay has", "r.example:4433", &zone{ips: map[string][]netip.Addr{"r.example": ips(
			"::ffff:0.0.0.0", "224.0.0.1", "255.255.255.255", "fe80::1%eth0", "ff02::1", "::", "2001:db8::1")}}, []string{
			"r.example:4433 2001:db8::1 [2001:db8::1]:4433 0 1.00",
		}, ""},
		{"mapped", "r.example:4433", &zone{ips: map[string][]netip.Addr{"r.example": ips("::ffff:192.0.2.1")}}, []string{
			"r.example:4433 192.0.2.1 192.0.2.1:4433 0 1.00",
		}, ""},
		{"SRV", "r.example:4433", &zone{
			srv: map[string][]*net.SRV{"r.example": {
				{Target: "B.r.example.", Port: 443, Priority: 20, Weight: 10},
				{Target: "a.r.example.", Port: 4433, Priority: 5, Weight: 30},
				{Target: "c.r.example.", Port: 443, Priority: 5, Weight: 60},
				{Target: "c.r.example.", Port: 443, Priority: 5, Weight: 10}, // twice
				{Target: "d.r.example.", Port: 0, Priority: 5},
				{Target: "gone.r.example.", Port: 443, Priority: 5},
			}},
			ips: map[string][]netip.Addr{
				"r.example": ips("203.0.113.1"), "b.r.example": ips("192.0.2.2"),
				"a.r.example": ips("192.0.2.1", "2001:db8::1"), "c.r.example": ips("192.0.2.3"), "d.r.example": ips("192.0.2.4"),
			},
		}, []string{
			"r.example:4433 192.0.2.1 a.r.example:4433 0 0.50",
			"r.example:4433 2001:db8::1 a.r.example:4433 0 0.50",
			"r.example:443 192.0.2.3 c.r.example:443 0 1.00",
			"r.example:443 192.0.2.2 b.r.example:443 1 1.00",
		}, ""},
		{"SRV without weights", "r.example:1", &zone{
			srv: map[string][]*net.SRV{"r.example": {{Target: "a.", Port: 1}, {Target: "b.", Port: 1}}},
			ips: map[string][]netip.Addr{"a": ips("192.0.2.1"), "b": ips("192.0.2.2")},
		}, []string{"r.example:1 192.0.2.1 a:1 0 1.00", "r.example:1 192.0.2.2 b:1 0 1.00"}, ""},
		{"SRV with a weight of 0", "r.example:1", &zone{
			srv: map[string][]*net.SRV{"r.example": {{Target: "a.", Port: 1}, {Target: "b.", Port: 1, Weight: 9}}},
			ips: map[string][]netip.Addr{"a": ips("192.0.2.1"), "b": ips("192.0.2.2")},
		}, []string{"r.example:1 192.0.2.1 a:1 0 0.01", "r.example:1 192.0.2.2 b:1 0 1.00"}, ""},
		{"SRV fails", "r.example:1", &zone{srvErr: errors.New("SERVFAIL"), ips: map[string][]netip.Addr{"r.example": ips("192.0.2.1")}},
			[]string{"r.example:1 192.0.2.1 192.0.2.1:1 0 1.00"}, ""},
		{"no service", "r.example:1", &zone{srv: map[string][]*net.SRV{"r.example": {{Target: "."}}}}, nil, "no relay"},
		{"targets without addresses", "r.example:1", &zone{srv: map[string][]*net.SRV{"r.example": {{Target: "a.", Port: 1}}}}, nil, "none of the 1 targets"},
		{"target with a bad address", "r.example:1", &zone{
			srv: map[string][]*net.SRV{"r.example": {{Target: "a.", Port: 1}}},
			ips: map[string][]netip.Addr{"a": ips("0.0.0.0")},
		}, nil, "none of the 1 targets"},
		{"only bad addresses", "r.example:1", &zone{ips: map[string][]netip.Addr{"r.example": ips("0.0.0.0")}}, nil, "no address"},
		{"unknown", "r.example:1", &zone{}, nil, "does not resolve"},
	} {
		t.Run(c.name, func(t *testing.T) {
			relay, err := wire.ParseRelay(c.in + "#" + pin.String())
			if err != nil {
				t.Fatal(err)
			}
			got, err := Resolve(t.Context(), c.zone, relay)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), c.in) {
					t.Errorf("got %v, %v, want %q", got, err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if text := describe(got); text != strings.Join(c.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", text, strings.Join(c.want, "\n"))
			}
			for _, r := range got {
				if r.Pin != pin || r.Configured != relay || r.Check() != nil {
					t.Errorf("%v has lost its pin or its origin", r)
				}
			}
		})
	}
}

// TestResolveHostile asks who answers with far too much, at random.
func TestResolveHostile(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		z := &zone{srv: map[string][]*net.SRV{}, ips: map[string][]netip.Addr{}}
		address := func() netip.Addr {
			var b [16]byte
			for i := range b {
				b[i] = byte(random.Uint32())
			}
			if random.IntN(2) == 0 {
				return netip.AddrFrom4([4]byte(b[:]))
			}
			return netip.AddrFrom16(b)
		}
		names := []string{"r.example", ".", ""}
		for range 300 {
			name := fmt.Sprintf("%c.r.example", 'a'+random.IntN(200))
			names = append(names, name)
			for range random.IntN(300) {
				z.ips[name] = append(z.ips[name], address())
			}
		}
		z.ips["r.example"] = append(z.ips["a.r.example"], address())
		if random.IntN(2) == 0 {
			for range 1000 {
				z.srv["r.example"] = append(z.srv["r.example"], &net.SRV{
					Target: names[random.IntN(len(names))] + ".", Port: uint16(random.Uint32()), Priority: uint16(random.Uint32N(3)), Weight: uint16(random.Uint32()),
				})
			}
		}
		got, err := Resolve(t.Context(), z, wire.Relay{Addr: "r.example:4433"})
		if err != nil {
			t.Fatal(err)
		}
		addresses := make(map[string]int)
		for _, r := range got {
			addresses[r.ID]++
			if r.Check() != nil || !strings.HasPrefix(r.Addr, "r.example:") || !r.IP.IsValid() || r.Weight <= 0 || r.Weight > 1 || r.Tier < 0 || r.Tier > 2 {
				t.Errorf("got %+v", r)
			}
		}
		if len(addresses) > maxRelays {
			t.Errorf("%d relays, at most %d", len(addresses), maxRelays)
		}
		for id, n := range addresses {
			if n > maxAddresses {
				t.Errorf("%s has %d addresses, at most %d", id, n, maxAddresses)
			}
		}
	}
}

// TestSilentSRV is a router that answers no question for SRV records.
func TestSilentSRV(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{silent: true, ips: map[string][]netip.Addr{"r.example": ips("192.0.2.1")}}
		start := time.Now()
		got, err := Resolve(t.Context(), z, wire.Relay{Addr: "r.example:1"})
		if err != nil || len(got) != 1 || time.Since(start) != srvPatience {
			t.Errorf("after %v: %v, %v", time.Since(start), got, err)
		}
		z.ips = nil
		start = time.Now()
		if _, err := Resolve(t.Context(), z, wire.Relay{Addr: "r.example:1"}); err == nil || time.Since(start) > patience {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

// TestResolver asks through Go's own resolver, a DNS server in this process.
func TestResolver(t *testing.T) {
	r := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		a, b := net.Pipe() // no PacketConn, so the resolver frames as on TCP
		go serveDNS(b)
		return a, nil
	}}
	got, err := Resolve(t.Context(), r, wire.Relay{Addr: "srv.example.org:9"})
	if err != nil {
		t.Fatal(err)
	}
	if want := "srv.example.org:4433 192.0.2.7 one.example.org:4433 0 1.00"; describe(got) != want {
		t.Errorf("got\n%s\nwant\n%s", describe(got), want)
	}
	if got, err = Resolve(t.Context(), r, wire.Relay{Addr: "one.example.org:9"}); err != nil {
		t.Fatal(err)
	}
	if want := "one.example.org:9 192.0.2.7 192.0.2.7:9 0 1.00"; describe(got) != want {
		t.Errorf("got\n%s\nwant\n%s", describe(got), want)
	}
	if _, err := Resolve(t.Context(), r, wire.Relay{Addr: "none.example.org:9"}); !notFound(err) {
		t.Errorf("a name that does not exist: %v", err)
	}
}

func serveDNS(c net.Conn) {
	defer c.Close()
	for {
		var n uint16
		if binary.Read(c, binary.BigEndian, &n) != nil {
			return
		}
		query := make([]byte, n)
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(query) != nil || len(m.Questions) != 1 {
			return
		}
		q := m.Questions[0]
		m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
		h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}
		switch {
		case q.Name.String() == "one.example.org." && q.Type == dnsmessage.TypeA:
			m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 7}}}}
		case q.Name.String() == "_blindrelay._udp.srv.example.org." && q.Type == dnsmessage.TypeSRV:
			m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.SRVResource{Target: dnsmessage.MustNewName("one.example.org."), Port: 4433}}}
		case q.Name.String() != "one.example.org.":
			m.RCode = dnsmessage.RCodeNameError
		}
		answer, err := m.Pack()
		if err != nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}
