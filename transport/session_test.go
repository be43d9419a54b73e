package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
)

func TestClientKey(t *testing.T) {
	carriers(t, func(w *world) {
		t := w.t
		cert := transporttest.Certificate(t)
		agent, relay := w.dial(&cert)
		if !bytes.Equal(relay.ClientKey(), cert.Leaf.RawSubjectPublicKeyInfo) {
			t.Errorf("the agent's key is %x", relay.ClientKey())
		}
		if agent.ClientKey() != nil {
			t.Error("the relay's key is taken for a client's")
		}
		_, relay = w.dial(nil)
		if relay.ClientKey() != nil {
			t.Errorf("a device showed %x", relay.ClientKey())
		}
		if relay.RemoteAddr().String() != endpointAddr.String() {
			t.Errorf("the device is at %v", relay.RemoteAddr())
		}
	})
}

// TestSetCertificate shows another certificate to who comes next. The one who
// is there does not notice.
func TestSetCertificate(t *testing.T) {
	carriers(t, func(w *world) {
		t := w.t
		endpoint, relay := w.dial(nil)
		next := transporttest.Certificate(t)
		w.ln.SetCertificate(next)
		w.tcpLn.SetCertificate(next)
		if _, err := w.connect(t.Context(), nil); !errors.Is(err, ErrWrongRelay) {
			t.Errorf("who knows the key before: %v", err)
		}
		open(t, endpoint, relay)
		w.ln.SetCertificate(w.cfg.Certificate)
		w.tcpLn.SetCertificate(w.cfg.Certificate)
		w.dial(nil)
	})
}

func TestRTT(t *testing.T) {
	carriers(t, func(w *world) {
		t := w.t
		endpoint, relay := w.dial(nil)
		time.Sleep(10 * time.Second)
		for _, s := range []Session{endpoint, relay} {
			if rtt := s.RTT(); rtt < 2*oneWay || rtt > 4*oneWay {
				t.Errorf("RTT is %v", rtt)
			}
		}
	})
}

func TestSessionClose(t *testing.T) {
	long := strings.Repeat("é", 3000)
	for _, c := range []struct {
		code       wire.Code
		text, want string
	}{
		{wire.CodeNone, "", ""},
		{wire.CodeNotAdmitted, "the operator said no", "the operator said no"},
		{wire.CodeOff, long, long[:wire.MaxGoodbyeText]},
		{wire.CodeOff, "x" + long, "x" + long[:wire.MaxGoodbyeText-2]},
	} {
		carriers(t, func(w *world) {
			t := w.t
			endpoint, relay := w.dial(nil)
			a, b := open(t, endpoint, relay)
			if endpoint.Err() != nil || relay.Err() != nil {
				t.Errorf("Err before the end: %v, %v", endpoint.Err(), relay.Err())
			}
			relay.Close(c.code, c.text)
			relay.Close(wire.CodeInternal, "again")
			<-relay.Done()
			<-endpoint.Done()
			here := &wire.ClosedError{Code: c.code, Text: c.want}
			there := &wire.ClosedError{Code: c.code, Text: c.want, Remote: true}
			_, reads := a.Read(make([]byte, 1))
			_, writes := a.Write([]byte("x"))
			_, readsHere := b.Read(make([]byte, 1))
			_, opens := endpoint.OpenStream(context.Background())
			_, tries := endpoint.TryOpenStream()
			_, accepts := endpoint.AcceptStream(context.Background())
			for what, got := range map[string][2]error{
				"Err at the other end":   {endpoint.Err(), there},
				"Err here":               {relay.Err(), here},
				"Read at the other end":  {reads, there},
				"Write at the other end": {writes, there},
				"Read here":              {readsHere, here},
				"OpenStream":             {opens, there},
				"TryOpenStream":          {tries, there},
				"AcceptStream":           {accepts, there},
			} {
				closed, ok := errors.AsType[*wire.ClosedError](got[0])
				if !ok || *closed != *got[1].(*wire.ClosedError) {
					t.Errorf("%s: %v, want %v", what, got[0], got[1])
				}
			}
		})
	}
}

// restart replaces the relay by one that knows nothing but its keys.
func (w *world) restart(after time.Duration) {
	w.ln.Close()
	w.tcpLn.Close()
	w.cut(true)
	time.Sleep(after)
	w.cut(false)
	w.listen()
}

// TestRestartIsNoticed restarts the relay at different times after its last
// packet, and with traffic in either direction.
func TestRestartIsNoticed(t *testing.T) {
	const limit = 3 * time.Second
	for _, idle := range []time.Duration{0, time.Second, 1990 * time.Millisecond, 7500 * time.Millisecond} {
		for _, down := range []time.Duration{0, 500 * time.Millisecond, 1500 * time.Millisecond} {
			t.Run(fmt.Sprintf("idle %v, down %v", idle, down), func(t *testing.T) {
				carriers(t, func(w *world) {
					t := w.t
					endpoint, relay := w.dial(nil)
					a, b := open(t, endpoint, relay)
					if idle == 0 { // both sides send all the time
						go a.Write(make([]byte, 8<<20))
						go b.Write(make([]byte, 8<<20))
						time.Sleep(100 * time.Millisecond)
					}
					time.Sleep(idle)
					start := time.Now()
					w.restart(down)
					<-endpoint.Done()
					d := time.Since(start)
					t.Logf("noticed after %v", d)
					if d > down+limit {
						t.Errorf("more than %v after the relay is back", limit)
					}
					lost, ok := errors.AsType[*LostError](endpoint.Err())
					if !ok || !lost.Reset {
						t.Errorf("Err is %v", endpoint.Err())
					}
					if _, err := a.Read(make([]byte, 1)); errors.Is(err, net.ErrClosed) || err.Error() != endpoint.Err().Error() {
						t.Errorf("Read: %v", err)
					}
					w.dial(nil) // the same dialer reaches the new relay
				})
			})
		}
	}
}

// TestSilence cuts the network: both sides give up, and no error looks as if
// this side had closed.
func TestSilence(t *testing.T) {
	carriers(t, func(w *world) {
		t := w.t
		endpoint, relay := w.dial(nil)
		a, b := open(t, endpoint, relay)
		time.Sleep(time.Minute) // keep-alives hold the session
		w.cut(true)
		start := time.Now()
		for _, c := range []struct {
			s   Session
			st  Stream
			max time.Duration
		}{{relay, b, EndpointIdle}, {endpoint, a, EndpointIdle + KeepAlive}} {
			<-c.s.Done()
			if d := time.Since(start); d > c.max {
				t.Errorf("noticed after %v", d)
			}
			lost, ok := errors.AsType[*LostError](c.s.Err())
			if !ok || lost.Reset {
				t.Errorf("Err is %v", c.s.Err())
			}
			if _, err := c.st.Read(make([]byte, 1)); errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Read: %v", err)
			}
		}
	})
}

// TestDialerClose ends a session whose dialer goes away.
func TestDialerClose(t *testing.T) {
	carriers(t, func(w *world) {
		t := w.t
		endpoint, _ := w.dial(nil)
		w.dialer.Close()
		<-endpoint.Done()
		if _, ok := errors.AsType[*LostError](endpoint.Err()); !ok {
			t.Errorf("Err is %v", endpoint.Err())
		}
	})
}

func TestStop(t *testing.T) {
	carriers(t, func(w *world) {
		t := w.t
		cert := transporttest.Certificate(t)
		endpoint, relay := w.dial(&cert)
		var waiting []Session // that nobody has accepted
		for range 5 {
			s, err := w.connect(context.Background(), nil)
			if err != nil {
				t.Fatal(err)
			}
			waiting = append(waiting, s)
		}
		time.Sleep(time.Second) // the last handshake ends at the relay, too
		if err := w.stop(); err != nil {
			t.Errorf("Stop: %v", err)
		}
		if _, err := w.accept(context.Background()); err != net.ErrClosed {
			t.Errorf("Accept: %v", err)
		}
		for _, s := range waiting {
			select {
			case <-s.Done():
			case <-time.After(time.Minute):
				t.Error("a session that was not accepted goes on")
				continue
			}
			closed, ok := errors.AsType[*wire.ClosedError](s.Err())
			if !ok || closed.Code != wire.CodeShutdown || !closed.Remote {
				t.Errorf("a session that was not accepted: %v", s.Err())
			}
		}
		time.Sleep(time.Minute)
		open(t, endpoint, relay)
		open(t, relay, endpoint)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := w.connect(ctx, nil); err == nil {
			t.Error("a stopped listener takes sessions")
		}
	})
}

// TestStopRace stops while sessions come in: each is accepted, refused or
// closed, and none is left to itself.
func TestStopRace(t *testing.T) {
	for round := range 10 {
		carriers(t, func(w *world) {
			t := w.t
			const n = 20
			dialed := make(chan Session, n)
			for i := range n {
				go func() {
					if round%2 == 0 { // all at once in the other rounds
						time.Sleep(time.Duration(i) * time.Millisecond)
					}
					s, err := w.connect(context.Background(), nil)
					if err != nil {
						s = nil
					}
					dialed <- s
				}()
			}
			accepted := make(chan int)
			go func() {
				count := 0
				for {
					if _, err := w.accept(context.Background()); err != nil {
						break
					}
					count++
					time.Sleep(3 * time.Millisecond)
				}
				accepted <- count
			}()
			if round%2 == 0 {
				time.Sleep(2*oneWay + time.Duration(2*round)*time.Millisecond)
			} else {
				time.Sleep(3 * oneWay) // the relay learns just now that the handshakes are over
			}
			w.stop()
			want := <-accepted
			time.Sleep(time.Minute)
			alive := 0
			for range n {
				if s := <-dialed; s != nil && s.Err() == nil {
					alive++
				}
			}
			if alive != want {
				t.Errorf("%d sessions were accepted, %d live", want, alive)
			}
		})
	}
}
