package relay

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
)

func TestLimit(t *testing.T) {
	at := func(ip string) net.Addr {
		return net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 5000))
	}
	a, b, none := at("203.0.113.7"), at("198.51.100.8"), at("127.0.0.1")
	l := limit{of: make(map[netip.Prefix]int)}
	l.set(5, 2)
	want := func(from net.Addr, code wire.Code) {
		t.Helper()
		got := wire.CodeNone
		if no := l.take(from); no != nil {
			got = no.code
		}
		if got != code {
			t.Errorf("one more of %v gets %v, want %v", from, got, code)
		}
	}
	want(a, wire.CodeNone)
	want(a, wire.CodeNone)
	want(a, wire.CodeAddressLimit)
	want(b, wire.CodeNone)
	want(none, wire.CodeNone)
	want(none, wire.CodeNone)
	want(b, wire.CodeRelayFull)
	l.give(a)
	want(a, wire.CodeNone)
	for _, from := range []net.Addr{a, a, b, none, none} {
		l.give(from)
	}
	if l.taken != 0 || len(l.of) != 0 {
		t.Errorf("%d sessions are counted, of %d addresses, and all were given back", l.taken, len(l.of))
	}
	l.set(0, 0)
	for range 2 * DefaultMaxSessions {
		want(a, wire.CodeNone)
	}
	l = limit{of: make(map[netip.Prefix]int)}
	l.set(12, 2) // three of one network
	want(a, wire.CodeNone)
	want(a, wire.CodeNone)
	want(at("203.0.113.8"), wire.CodeNone)
	want(at("203.0.113.9"), wire.CodeAddressLimit)
	want(b, wire.CodeNone)
	if l := (Limits{}).resolved(); l.MaxSessions != DefaultMaxSessions || l.MaxSessionsPerAddress != DefaultMaxSessionsPerAddress {
		t.Errorf("the defaults are %+v", l)
	}
	if l := (Limits{MaxSessions: -1, RouteDevices: -1}).resolved(); l.MaxSessions != 0 || l.RouteDevices != 0 {
		t.Errorf("no limits are %+v", l)
	}
}

// TestSessionLimits fills a relay with sessions of one network, of which one
// address has as many as it may, and expects that each refusal is told and leaves
// the others alone, and that who leaves makes room.
func TestSessionLimits(t *testing.T) {
	cfg := admitAll
	cfg.Limits = Limits{MaxSessions: 20, MaxSessionsPerAddress: 3}
	simulate(t, cfg, func(w *world) {
		refused := func(err error, code wire.Code) {
			t.Helper()
			if closed, ok := errors.AsType[*wire.ClosedError](err); !ok || closed.Code != code || closed.Text == "" {
				t.Errorf("one session too many gets %v, want %v and a sentence", err, code)
			}
		}
		cert := transporttest.Certificate(t)
		crowd := w.dialer() // all from one address
		var of []*hop.Registration
		for range cfg.Limits.MaxSessionsPerAddress {
			s, err := crowd(w.addr, &cert)
			if err != nil {
				t.Fatal(err)
			}
			reg, err := hop.Register(w.ctx(), s, wire.Register{Instance: wire.Instance{1}})
			if err != nil {
				t.Fatal(err)
			}
			of = append(of, reg)
		}
		again := func() error {
			s, err := crowd(w.addr, &cert)
			if err == nil {
				_, err = hop.Register(w.ctx(), s, wire.Register{Instance: wire.Instance{1}})
			}
			return err
		}
		refused(again(), wire.CodeAddressLimit)

		home, route := w.agent()
		away := w.device(route)
		other := transporttest.Certificate(t)
		_, err := hop.Register(w.ctx(), w.dial(&other), wire.Register{})
		refused(err, wire.CodeAddressLimit)
		w.open(away, home)

		of[0].Close(wire.CodeNone, "")
		time.Sleep(time.Second)
		if err := again(); err != nil {
			t.Errorf("after one of its address has left: %v", err)
		}
		ended := w.relay.metrics.sessionsEnded
		wantCount(t, "sessions ended", ended, wire.CodeAddressLimit, 2)
	})
}
