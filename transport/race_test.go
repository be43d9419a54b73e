package transport

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// noUDP drops datagrams while it is set, as a hotel does.
func (w *world) noUDP(drop bool) { w.net.noUDP.Store(drop) }

// race dials and returns the carrier that won and how long that took.
func (w *world) race() (protocol string, took time.Duration) {
	w.t.Helper()
	start := time.Now()
	s, err := w.dialer.Dial(context.Background(), w.relay, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	took = time.Since(start)
	// What the relay sees is the session that was returned and works.
	w.tcp = s.Protocol() == "TCP"
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	relay, err := w.accept(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	a, b := open(w.t, s, relay)
	a.Reset(wire.CodeNone)
	b.Reset(wire.CodeNone)
	return s.Protocol(), took
}

// handshakeTCP is TCP's round trip and that of TLS 1.3.
const handshakeTCP = 4 * oneWay

func TestRace(t *testing.T) {
	simulate(t, nil, func(w *world) {
		want := func(name, protocol string, took time.Duration) {
			t.Helper()
			if p, d := w.race(); p != protocol || d != took {
				t.Errorf("%s: %s after %v, want %s after %v", name, p, d, protocol, took)
			}
		}
		want("UDP passes", "QUIC", 2*oneWay)
		if n := w.tcpNet.Dials(); n != 0 {
			t.Errorf("TCP was dialed %d times where QUIC was fast enough", n)
		}
		w.noUDP(true)
		want("UDP is blocked", "TCP", HeadStart+handshakeTCP)
		want("UDP was blocked before", "TCP", handshakeTCP)
		w.dialer.NetworkChanged()
		want("on another network", "TCP", HeadStart+handshakeTCP)
		w.noUDP(false)
		want("UDP is back", "QUIC", 2*oneWay)
		w.noUDP(true)
		want("QUIC got through before", "TCP", HeadStart+handshakeTCP)
		w.noUDP(false)
		s, err := w.dialer.DialQUIC(context.Background(), w.relay, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.Close(wire.CodeNone, "")
		w.noUDP(true)
		want("the caller took QUIC back", "TCP", HeadStart+handshakeTCP)
	})
}

// TestRaceLoser lets both ways arrive: the relay is rid of the one that lost.
func TestRaceLoser(t *testing.T) {
	simulate(t, nil, func(w *world) {
		w.dialer.blocked.Store(true) // both start at once, and QUIC is faster
		if p, _ := w.race(); p != "QUIC" {
			t.Fatalf("%s won", p)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		w.tcpLn.running.mu.Lock()
		defer w.tcpLn.running.mu.Unlock()
		if n := len(w.tcpLn.running.live); n != 0 {
			t.Errorf("%d sessions over TCP are left at the relay", n)
		}
	})
}

func TestRaceErrors(t *testing.T) {
	simulate(t, nil, func(w *world) {
		_, err := func() (Session, error) {
			w.cut(true)
			return w.dialer.Dial(context.Background(), w.relay, nil)
		}()
		w.wantSentence(err, "relay 1.0.0.1:4433 does not answer: ", "UDP", "; and relay 1.0.0.1:4433 does not answer over TCP")
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Second, cancel)
		if _, err := w.dialer.Dial(ctx, w.relay, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		w.cut(false)
		w.relay.Pin[0]++
		if _, err := w.dialer.Dial(context.Background(), w.relay, nil); !errors.Is(err, ErrWrongRelay) {
			t.Errorf("got %v", err)
		}
		w.relay.Pin[0]--
		w.tcpNet.Close() // QUIC goes on where TCP is refused
		w.dialer.blocked.Store(true)
		if p, _ := w.race(); p != "QUIC" {
			t.Errorf("%s won", p)
		}
	})
}

// TestRaceClose closes the dialer while both ways are tried.
func TestRaceClose(t *testing.T) {
	simulate(t, nil, func(w *world) {
		w.cut(true)
		failed := make(chan error)
		go func() {
			_, err := w.dialer.Dial(context.Background(), w.relay, nil)
			failed <- err
		}()
		time.Sleep(HeadStart + oneWay)
		start := time.Now()
		w.dialer.Close()
		if err := <-failed; err == nil || time.Since(start) > time.Second {
			t.Errorf("Dial ended with %v after %v", err, time.Since(start))
		}
		if _, err := w.dialer.Dial(context.Background(), w.relay, nil); err == nil {
			t.Error("a closed dialer dials")
		}
	})
}
