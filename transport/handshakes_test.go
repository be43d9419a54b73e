package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// from returns a client's address.
func from(ip string) net.Addr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 5000))
}

// begun begins so many handshakes from an address that is verified, and
// returns those that may.
func begun(h *Handshakes, addr net.Addr, n int) (some []*handshake) {
	for range n {
		if s, ok := h.begin(addr, true); ok {
			some = append(some, s)
		}
	}
	return some
}

func end(some []*handshake) {
	for _, s := range some {
		s.end(true)
	}
}

// TestHandshakeLimits meets each limit, of which each leaves others alone where
// it can.
func TestHandshakeLimits(t *testing.T) {
	none := HandshakeLimits{Max: -1, MaxPerAddress: -1, Rate: -1, RatePerAddress: -1}
	for name, tc := range map[string]struct {
		limits func(*HandshakeLimits)
		from   string // 100 handshakes begin from here
		may    int    // so many of them
		other  string // then 100 from here
		others int    // so many of them
		after  time.Duration
		again  int // so many from the first after that time, if those before have not ended
		ended  int // and if they have
	}{
		"none":        {func(l *HandshakeLimits) {}, "203.0.113.7", 100, "198.51.100.7", 100, time.Second, 100, 100},
		"all":         {func(l *HandshakeLimits) { l.Max = 40 }, "127.0.0.1", 40, "198.51.100.7", 0, time.Hour, 0, 40},
		"address":     {func(l *HandshakeLimits) { l.MaxPerAddress = 30 }, "203.0.113.7", 30, "203.0.113.8", 30, time.Hour, 0, 30},
		"loopback":    {func(l *HandshakeLimits) { l.MaxPerAddress, l.RatePerAddress = 1, 1 }, "127.0.0.1", 100, "::1", 100, time.Second, 100, 100},
		"mapped":      {func(l *HandshakeLimits) { l.MaxPerAddress = 30 }, "::ffff:203.0.113.7", 30, "203.0.113.7", 0, time.Hour, 0, 30},
		"IPv6 /56":    {func(l *HandshakeLimits) { l.MaxPerAddress = 30 }, "2001:db8:1:2ff::7", 30, "2001:db8:1:200::8", 0, time.Hour, 0, 30},
		"IPv6 others": {func(l *HandshakeLimits) { l.MaxPerAddress = 30 }, "2001:db8:1:2ff::7", 30, "2001:db8:1:300::7", 30, time.Hour, 0, 30},
		"network":     {func(l *HandshakeLimits) { l.Max, l.MaxPerAddress = 100, 25 }, "203.0.113.7", 25, "203.0.113.8", 0, time.Hour, 0, 25},
		"elsewhere":   {func(l *HandshakeLimits) { l.Max, l.MaxPerAddress = 100, 25 }, "203.0.113.7", 25, "203.0.114.7", 25, time.Hour, 0, 25},
		"IPv6 /48":    {func(l *HandshakeLimits) { l.Max, l.MaxPerAddress = 100, 25 }, "2001:db8:1::7", 25, "2001:db8:1:ff00::8", 0, time.Hour, 0, 25},

		"rate of all":        {func(l *HandshakeLimits) { l.Rate = 10 }, "127.0.0.1", 40, "198.51.100.7", 0, 2 * time.Second, 20, 20},
		"after a rest":       {func(l *HandshakeLimits) { l.Rate = 10 }, "127.0.0.1", 40, "198.51.100.7", 0, time.Hour, 40, 40},
		"rate of an address": {func(l *HandshakeLimits) { l.RatePerAddress = 5 }, "203.0.113.7", 40, "203.0.113.8", 40, 2 * time.Second, 10, 10},
		"rate of a network":  {func(l *HandshakeLimits) { l.Rate, l.RatePerAddress = 40, 10 }, "203.0.113.7", 40, "203.0.113.8", 0, 2 * time.Second, 20, 20},
		"rate elsewhere":     {func(l *HandshakeLimits) { l.Rate, l.RatePerAddress = 40, 10 }, "203.0.113.7", 40, "203.0.114.8", 40, 2 * time.Second, 20, 20},
	} {
		t.Run(name, func(t *testing.T) {
			for _, ends := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					limits := none
					tc.limits(&limits)
					h := NewHandshakes(limits)
					first := begun(h, from(tc.from), 100)
					other := begun(h, from(tc.other), 100)
					if len(first) != tc.may || len(other) != tc.others || h.UnderWay() != tc.may+tc.others {
						t.Errorf("%d and %d may begin, %d are under way, want %d and %d", len(first), len(other), h.UnderWay(), tc.may, tc.others)
					}
					again := tc.again
					if ends {
						end(first)
						end(other)
						again = tc.ended
					}
					time.Sleep(tc.after)
					if n := len(begun(h, from(tc.from), 100)); n != again {
						t.Errorf("%d may begin after %v, want %d", n, tc.after, again)
					}
				})
			}
		})
	}
}

// TestHandshakeDefaults checks that zeros are no open door.
func TestHandshakeDefaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHandshakes(HandshakeLimits{})
		if n := len(begun(h, from("203.0.113.7"), 1000)); n != DefaultMaxHandshakesPerAddress {
			t.Errorf("%d may begin from one address", n)
		}
		if n := len(begun(h, from("127.0.0.1"), 5000)); n != DefaultMaxHandshakes-DefaultMaxHandshakesPerAddress {
			t.Errorf("%d more may begin", n)
		}
		h = NewHandshakes(HandshakeLimits{Max: -1})
		for i := range 2 {
			for range 5000 {
				if s, ok := h.begin(from("127.0.0.1"), true); ok {
					s.end(true)
				}
			}
			used := h.pace.used(h.due, time.Now())
			if used > burstSeconds*time.Second || used < burstSeconds*time.Second-10*time.Millisecond {
				t.Errorf("round %d: %v of the rate are used", i, used)
			}
		}
	})
}

// TestForgedAddresses begins handshakes in the name of somebody who then comes
// himself: he has to show that he receives there, and is let in.
func TestForgedAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHandshakes(HandshakeLimits{})
		victim := from("203.0.113.7")
		forged := 0
		for range 10000 {
			if !h.doubts(victim) {
				if _, ok := h.begin(victim, false); ok {
					forged++
				}
			}
		}
		if forged != calmHandshakes {
			t.Errorf("%d forged handshakes begin, want %d", forged, calmHandshakes)
		}
		if h.Retries() != 10000-calmHandshakes {
			t.Errorf("%d had to show that they receive", h.Retries())
		}
		if n := len(h.addresses.known); n != 0 {
			t.Errorf("%d forged addresses are counted", n)
		}
		if n := len(begun(h, victim, 100)); n != DefaultMaxHandshakesPerAddress {
			t.Errorf("%d handshakes of the victim may begin, want %d", n, DefaultMaxHandshakesPerAddress)
		}
	})
}

// TestDoubts has clients of a calm relay complete their handshakes, which shows
// that they receive: they are counted then, and asked as soon as they have had
// their share; and all are asked when half of the burst is used.
func TestDoubts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHandshakes(HandshakeLimits{RatePerAddress: 5})
		come := func(addr net.Addr) (n int) {
			for !h.doubts(addr) {
				s, ok := h.begin(addr, false)
				if !ok {
					t.Fatal("refused without a doubt")
				}
				s.end(true)
				n++
			}
			return n
		}
		if n := come(from("203.0.113.7")); n != 5*burstSecondsAddress {
			t.Errorf("%d of one address are taken without a doubt, want %d", n, 5*burstSecondsAddress)
		}
		if _, ok := h.begin(from("203.0.113.7"), true); ok {
			t.Error("an address that is verified has more than its share")
		}
		if h.doubts(from("203.0.114.7")) {
			t.Error("another address is doubted")
		}
		n := come(from("127.0.0.1"))
		if used := DefaultHandshakeRate*burstSeconds/2 - 5*burstSecondsAddress; n != used+1 {
			t.Errorf("%d of no address are taken without a doubt, want %d", n, used+1)
		}
		if !h.doubts(from("203.0.114.7")) {
			t.Error("another address is not doubted when half of the burst is used")
		}
		if h.UnderWay() != 0 {
			t.Errorf("%d are under way", h.UnderWay())
		}
	})
}

// TestCrowdIsBounded comes from more IPv6 networks than a relay keeps.
func TestCrowdIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHandshakes(HandshakeLimits{Max: -1, Rate: -1})
		of := func(i int) net.Addr {
			ip := netip.MustParseAddr("2001:db8::1").As16()
			binary.BigEndian.PutUint32(ip[2:], 0xdb80000+uint32(i)) // up to the /48
			return net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom16(ip), 1))
		}
		var some []*handshake
		for i := range 3 * maxMembers {
			some = append(some, begun(h, of(i), 1)...)
		}
		if len(some) != 3*maxMembers {
			t.Errorf("%d of %d may begin", len(some), 3*maxMembers)
		}
		if n := len(h.addresses.known); n != maxMembers || h.addresses.order.Len() != n {
			t.Errorf("%d addresses are kept in %d places, want %d", n, h.addresses.order.Len(), maxMembers)
		}
		if n := len(h.networks.known); n != maxMembers || h.networks.order.Len() != n {
			t.Errorf("%d networks are kept in %d places, want %d", n, h.networks.order.Len(), maxMembers)
		}
		end(some)
		begun(h, of(0), 1)
		time.Sleep(burstSecondsAddress*time.Second + tidyEvery)
		synctest.Wait()
		if a, n := len(h.addresses.known), len(h.networks.known); a != 1 || n != 1 {
			t.Errorf("%d addresses and %d networks are kept after a rest", a, n)
		}
	})
}

// TestHandshakesAreRefused meets the limit of its address over QUIC and TCP,
// which share it, and gets in again after a while.
func TestHandshakesAreRefused(t *testing.T) {
	var failed failures
	simulate(t, func(c *ListenConfig) {
		c.Failed, c.Handshakes = failed.add, NewHandshakes(HandshakeLimits{RatePerAddress: 1})
	}, func(w *world) {
		var sessions []Session
		for i := range burstSecondsAddress {
			w.tcp = i%2 == 0
			endpoint, _ := w.dial(nil)
			sessions = append(sessions, endpoint)
		}
		w.tcp = false
		err := w.dialError()
		w.wantSentence(err, "refuses connections", "limits", "handshake_limit")
		if closed, ok := errors.AsType[*wire.ClosedError](err); !ok || closed.Code != wire.CodeHandshakeLimit {
			t.Errorf("got %v", err)
		}
		w.tcp = true
		w.wantSentence(w.dialError(), "cut the TCP connection", "limits")
		if n := w.cfg.Handshakes.UnderWay(); n != 0 {
			t.Errorf("%d handshakes are under way", n)
		}
		time.Sleep(time.Second)
		w.dial(nil)
		for _, s := range sessions {
			if s.Err() != nil {
				t.Errorf("a session that was there ended: %v", s.Err())
			}
		}
		failed.expect(t, wire.CodeHandshakeLimit, wire.CodeHandshakeLimit)
	})
}

// TestHandshakesUnderWay fills a relay with handshakes that do not go on, from
// addresses that receive. The next is refused until they have been given up.
func TestHandshakesUnderWay(t *testing.T) {
	var failed failures
	simulate(t, func(c *ListenConfig) {
		c.Failed, c.Handshakes = failed.add, NewHandshakes(HandshakeLimits{Max: 8, MaxPerAddress: 2})
	}, func(w *world) {
		raw, err := w.tcpNet.Dial(context.Background(), endpointAddr)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		synctest.Wait()
		w.dial(nil)
		if raw, err = w.tcpNet.Dial(context.Background(), endpointAddr); err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		synctest.Wait()
		w.wantSentence(w.dialError(), "refuses connections")
		time.Sleep(HandshakeTimeout)
		w.dial(nil)
		failed.expect(t, wire.CodeHandshakeLimit, wire.CodeSilent, wire.CodeSilent)
	})
}

// TestHurriedHandshakes stops in the middle of handshakes. Those that begin while
// half of those that may be are under way are given up sooner.
func TestHurriedHandshakes(t *testing.T) {
	simulate(t, func(c *ListenConfig) {
		c.Handshakes = NewHandshakes(HandshakeLimits{Max: 4, MaxPerAddress: 4})
	}, func(w *world) {
		begin := time.Now()
		want := func(after time.Duration, n int) {
			t.Helper()
			time.Sleep(after - time.Since(begin))
			synctest.Wait()
			if got := w.cfg.Handshakes.UnderWay(); got != n {
				t.Errorf("%d handshakes are under way after %v, want %d", got, after, n)
			}
		}
		var open []net.Conn
		silent := func() {
			raw, err := w.tcpNet.Dial(context.Background(), endpointAddr)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, raw)
			synctest.Wait()
		}
		silent()
		silent()
		calm := time.Since(begin)
		silent() // hurried
		hurried := time.Since(begin)
		ctx, cancel := context.WithCancel(context.Background())
		var dial sync.WaitGroup
		dial.Go(func() { w.dialer.DialQUIC(ctx, w.relay, nil) }) // hurried, after a Retry
		dialed := time.Since(begin)
		time.Sleep(3*oneWay + oneWay/2)
		w.net.cut.Store(true)
		want(dialed+4*oneWay, 4)
		want(dialed+3*oneWay+hurriedHandshake/2-time.Millisecond, 4)
		want(dialed+4*oneWay+hurriedHandshake/2, 3) // nothing came for so long
		want(hurried+hurriedHandshake, 2)
		cancel()
		dial.Wait()
		want(HandshakeTimeout, 2)
		want(calm+HandshakeTimeout, 0)
		for _, c := range open {
			c.Close()
		}
	})
}

// TestQueueIsFull leaves sessions unaccepted until there is no place for
// another: it is refused before anything is made of it, and gets in once one
// was accepted, or has gone.
func TestQueueIsFull(t *testing.T) {
	carriers(t, func(w *world) {
		t := w.t
		w.ln.queue, w.tcpLn.queue = newQueue(2), newQueue(2)
		connect := func() error {
			_, err := w.connect(t.Context(), nil)
			time.Sleep(time.Second)
			return err
		}
		for range 2 {
			if err := connect(); err != nil {
				t.Fatal(err)
			}
		}
		if err := connect(); err == nil {
			t.Error("a session is taken for which there is no place")
		}
		if _, err := w.accept(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := connect(); err != nil {
			t.Errorf("after one was accepted: %v", err)
		}
		for range 2 {
			if _, err := w.accept(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n := w.ln.taken.Load() + w.tcpLn.taken.Load(); n != 0 {
			t.Errorf("%d places are taken by nobody", n)
		}
	})
}
