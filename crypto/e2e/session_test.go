package e2e

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// inWorld runs f with a world in virtual time.
func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) { f(t, newWorld(t, nil)) })
}

func TestWelcomeArrives(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		id := newIdentity(t)
		want := Welcome{MaxStreams: 3, Idle: 6 * time.Second, Relays: []string{"a:1", "b:2#pin"}, RouteToken: wire.Token{1, 2, 3}}
		w.devices[id.Pin()] = want
		s := w.connect(id, 1)
		got, err := s.Welcome(context.Background())
		if err != nil || got.MaxStreams != 3 || got.Idle != want.Idle || len(got.Relays) != 2 || got.Relays[1] != "b:2#pin" || got.RouteToken != want.RouteToken {
			t.Fatalf("welcome %+v, %v", got, err)
		}
		for range 3 {
			if _, err := s.OpenStream(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.OpenStream(context.Background()); err != ErrTooManyStreams {
			t.Errorf("a fourth stream: %v", err)
		}
		for _, c := range s.session.open() {
			c.Reset(wire.CodeCancelled)
			break
		}
		if _, err := s.OpenStream(context.Background()); err != nil {
			t.Errorf("a stream after one has ended: %v", err)
		}
		time.Sleep(time.Hour) // PINGs keep the session, at both ends
		if s.Err() != nil || len(w.server.Sessions()) != 1 {
			t.Errorf("an idle session has ended: %v", s.Err())
		}
		time.Sleep(sessionLife)
		var away *GoAwayError
		var closed *ClosedError
		if !errors.As(s.Err(), &away) && !errors.As(s.Err(), &closed) || len(w.server.Sessions()) != 0 {
			t.Errorf("after a day: %v, %d sessions", s.Err(), len(w.server.Sessions()))
		}
	})
}

// TestDeadControlChannel: a relay that swallows the control channel, or cuts
// it, ends the session and its streams at both ends when no other link comes.
func TestDeadControlChannel(t *testing.T) {
	for name, cut := range map[string]func(d, a Stream){
		"swallowed": func(d, a Stream) {},
		"reset":     func(d, a Stream) { d.Reset(wire.CodeDeviceGone); a.Reset(wire.CodeDeviceGone) },
		"FIN":       func(d, a Stream) { d.CloseWrite(); a.CloseWrite() },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				var swallow atomic.Bool
				var ends []Stream
				filter := func(b []byte) []byte {
					if swallow.Load() {
						return nil
					}
					return b
				}
				w.relay = func(n int, d, a Stream) {
					if n > 0 {
						filter = nil
					} else {
						ends = []Stream{d, a}
					}
					forward(d, a, filter, filter)
				}
				s := w.connect(w.allow(newIdentity(t)), 1)
				device, agent := w.streams(s)
				v := w.served()[0]
				synctest.Wait() // WELCOME is there
				swallow.Store(true)
				cut(ends[0], ends[1])
				for _, c := range []*Conn{device, agent} {
					if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil || err == io.EOF {
						t.Errorf("read %d, %v", n, err)
					}
				}
				<-s.Done()
				<-v.done
				if !errors.Is(s.Err(), ErrSilent) || !errors.Is(v.reason(), ErrSilent) {
					t.Errorf("the session ended with %v and %v, want ErrSilent", s.Err(), v.reason())
				}
				synctest.Wait()
				if n := len(w.server.Sessions()); n != 0 {
					t.Errorf("%d sessions left", n)
				}
				for _, e := range ends {
					e.Reset(0)
				}
			})
		})
	}
}

// TestParking lets a device use its session while the last flight of its
// handshake is still on its way.
func TestParking(t *testing.T) {
	for name, release := range map[string]bool{"handshake completes": true, "handshake never completes": false} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				gate := make(chan struct{})
				w.relay = func(n int, d, a Stream) {
					passed := 0
					hold := func(b []byte) []byte {
						if passed += len(b); n == 0 && passed > 1500 { // the second flight
							<-gate
						}
						return b
					}
					forward(d, a, hold, nil)
				}
				s := w.connect(w.allow(newIdentity(t)), 1)
				stranger := w.open(2)
				stranger.Write(bytes.Repeat([]byte{kindSealed}, openPrefaceLen))
				var conns []*Conn
				for range maxParked + 1 {
					c, err := s.OpenStream(context.Background())
					if err != nil {
						t.Fatal(err)
					}
					if _, err := c.Write([]byte("early")); err != nil {
						t.Fatal(err)
					}
					conns = append(conns, c)
					synctest.Wait()
				}
				var reset *wire.ResetError
				if _, err := stranger.Read(make([]byte, 1)); !errors.As(err, &reset) || reset.Code != wire.CodeRefused {
					t.Errorf("a sealed stream without any handshake: %v", err)
				}
				if _, err := conns[maxParked].Read(make([]byte, 1)); release && err == nil || !release && err == nil {
					t.Errorf("one parked stream too many: %v", err)
				}
				if !release {
					start := time.Now()
					if _, err := conns[0].Read(make([]byte, 1)); err == nil || time.Since(start) > handshakeTimeout {
						t.Errorf("a parked stream after %v: %v", time.Since(start), err)
					}
					close(gate)
					synctest.Wait()
					if len(w.server.attachments) != 0 || w.server.arrivals != 0 || w.server.handshakes != 0 {
						t.Errorf("left over: %d attachments, %d arrivals", len(w.server.attachments), w.server.arrivals)
					}
					return
				}
				close(gate)
				for range maxParked {
					c, err := w.server.Accept()
					if err != nil {
						t.Fatal(err)
					}
					if p := make([]byte, 5); true {
						if _, err := io.ReadFull(c, p); err != nil || string(p) != "early" {
							t.Errorf("read %q, %v", p, err)
						}
					}
				}
			})
		})
	}
}

// TestReplayedStream delivers a device's stream twice.
func TestReplayedStream(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.connect(w.allow(newIdentity(t)), 1)
		var copies []byte
		w.mu.Lock()
		w.relay = func(_ int, d, a Stream) {
			forward(d, a, func(b []byte) []byte { copies = append(copies, b...); return b }, nil)
		}
		w.mu.Unlock()
		device, agent := w.streams(s)
		agent.Close()
		device.Close()
		synctest.Wait()
		w.mu.Lock()
		w.relay = nil
		w.mu.Unlock()
		for i := range maxTampered {
			if err := s.Err(); err != nil {
				t.Fatalf("the session has ended after %d attacks: %v", i, err)
			}
			again := w.open(1)
			again.Write(copies)
			var reset *wire.ResetError
			if _, err := again.Read(make([]byte, 1)); !errors.As(err, &reset) || reset.Code != wire.CodeTampered {
				t.Fatalf("a stream delivered twice: %v", err)
			}
		}
		<-s.Done()
		if !errors.Is(s.Err(), ErrTampered) {
			t.Errorf("after %d attacks the session ended with %v, want ErrTampered", maxTampered, s.Err())
		}
		if n := len(w.server.accepted); n != 0 {
			t.Errorf("%d replayed streams were accepted", n)
		}
	})
}

// TestOtherAttachment: a stream of one attachment is not accepted on another.
func TestOtherAttachment(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		id := w.allow(newIdentity(t))
		a, b := w.connect(id, 1), w.connect(id, 2)
		a.first.open = b.first.open
		c, err := a.OpenStream(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte("x"))
		var reset *wire.ResetError
		if _, err := c.Read(make([]byte, 1)); !errors.As(err, &reset) || reset.Code != wire.CodeRefused {
			t.Errorf("read: %v", err)
		}
	})
}

// TestRevoke revokes a device whose streams run at full rate both ways.
func TestRevoke(t *testing.T) {
	w := newWorld(t, nil)
	victim, other := w.allow(newIdentity(t)), w.allow(newIdentity(t))
	s, bystander := w.connect(victim, 1), w.connect(other, 2)
	var moved atomic.Int64
	var wg sync.WaitGroup
	var revoked atomic.Bool
	for range 3 {
		device, agent := w.streams(s)
		for _, c := range []*Conn{device, agent} {
			wg.Go(func() {
				for p := make([]byte, 20_000); ; {
					before := revoked.Load()
					n, err := c.Write(p)
					if before && c == agent && n > 0 {
						t.Errorf("%d bytes accepted after the revocation", n)
					}
					if err != nil {
						return
					}
				}
			})
			wg.Go(func() {
				for p := make([]byte, 20_000); ; {
					before := revoked.Load()
					n, err := c.Read(p)
					moved.Add(int64(n))
					if before && c == agent && n > 0 {
						t.Errorf("%d bytes handed out after the revocation", n)
					}
					if err == io.EOF {
						t.Error("a revoked stream reads as a clean end")
					}
					if err != nil {
						return
					}
				}
			})
		}
	}
	d2, a2 := w.streams(bystander)
	for moved.Load() < 5<<20 {
		time.Sleep(time.Millisecond)
	}
	w.disallow(victim.Pin())
	w.server.Revoke(victim.Pin())
	in := w.server.Sessions()
	revoked.Store(true)
	wg.Wait()
	<-s.Done()
	var away *GoAwayError
	if !errors.As(s.Err(), &away) || away.Code != wire.CodeRefused {
		t.Errorf("the device is told %v", s.Err())
	}
	if len(in) != 1 || in[0].Device != other.Pin() || in[0].BytesIn == 0 || in[0].Streams != 1 {
		t.Errorf("sessions after the revocation: %+v", in)
	}
	if _, err := d2.Write([]byte("still here")); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(a2, make([]byte, 10)); err != nil {
		t.Error(err)
	}
	back := w.connect(victim, 3)
	if _, err := back.Welcome(context.Background()); !errors.As(err, &away) {
		t.Errorf("the revoked device comes back: %v", err)
	}
}

// TestRevokedBetweenStreams: Admit is asked for each stream, even if Revoke
// was never called.
func TestRevokedBetweenStreams(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		id := w.allow(newIdentity(t))
		s := w.connect(id, 1)
		w.streams(s)
		w.disallow(id.Pin())
		c, err := s.OpenStream(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte("x"))
		<-s.Done()
		synctest.Wait()
		if n := len(w.server.accepted); n != 0 || len(w.server.Sessions()) != 0 {
			t.Errorf("%d streams, %d sessions of a refused device", n, len(w.server.Sessions()))
		}
	})
}

func TestCloseSessions(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.connect(w.allow(newIdentity(t)), 1)
		_, agent := w.streams(s)
		w.server.CloseSessions(wire.CodeOff, "remote access is off")
		if _, err := agent.Write([]byte("x")); err == nil {
			t.Error("a stream works on")
		}
		<-s.Done()
		var away *GoAwayError
		if !errors.As(s.Err(), &away) || away.Code != wire.CodeOff || away.Reason != "remote access is off" {
			t.Errorf("the device is told %v", s.Err())
		}
	})
}

// TestBounds fills what an unauthenticated relay can fill.
func TestBounds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		refused := func(st Stream) wire.Code {
			t.Helper()
			st.SetReadDeadline(time.Now().Add(time.Millisecond))
			var reset *wire.ResetError
			if _, err := st.Read(make([]byte, 1)); errors.As(err, &reset) {
				return reset.Code
			}
			return wire.CodeNone
		}
		start := time.Now()
		var held []Stream
		begin := func(attachment uint64) Stream {
			st := w.open(attachment)
			st.Write([]byte{kindControl})
			synctest.Wait()
			return st
		}
		for i := range maxHandshakes {
			held = append(held, begin(uint64(i/maxPerAttachment)))
		}
		if c := refused(begin(99)); c != wire.CodeBusy {
			t.Errorf("one handshake too many: %s", c)
		}
		held[0].Reset(wire.CodeCancelled)
		synctest.Wait()
		if c := refused(begin(1)); c != wire.CodeBusy {
			t.Errorf("one handshake of an attachment too many: %s", c)
		}
		for range maxArrivals - maxHandshakes + 1 {
			held = append(held, w.open(200))
		}
		if c := refused(w.open(200)); c != wire.CodeBusy {
			t.Errorf("one silent stream too many: %s", c)
		}
		for _, st := range held[1:] {
			st.SetReadDeadline(noDeadline)
			if _, err := st.Read(make([]byte, 1)); err == nil {
				t.Error("a silent stream got an answer")
			}
		}
		if d := time.Since(start); d > handshakeTimeout+time.Second {
			t.Errorf("silent streams were held for %v", d)
		}
		if c := refused(func() Stream { st := w.open(1); st.Write([]byte{9}); return st }()); c != wire.CodeRefused {
			t.Errorf("an unknown kind of stream: %s", c)
		}
	})
}

func TestOldestSessionMakesRoom(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		id := w.allow(newIdentity(t))
		var all []*Session
		for i := range maxSessionsOfDevice + 1 {
			all = append(all, w.connect(id, uint64(i)))
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		if all[0].Err() == nil || all[1].Err() != nil || all[maxSessionsOfDevice].Err() != nil {
			t.Errorf("oldest %v, second %v, newest %v", all[0].Err(), all[1].Err(), all[maxSessionsOfDevice].Err())
		}
	})
}

func TestServerClose(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.connect(w.allow(newIdentity(t)), 1)
		c, _ := s.OpenStream(context.Background())
		c.Write([]byte("never accepted"))
		silent := w.open(2)
		synctest.Wait()
		if err := w.server.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := w.server.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept: %v", err)
		}
		for _, st := range []io.Reader{c, silent, w.open(3)} {
			if _, err := st.Read(make([]byte, 1)); err == nil || err == io.EOF {
				t.Errorf("read: %v", err)
			}
		}
		<-s.Done()
	})
}

func TestStrangeControlFrames(t *testing.T) {
	for name, f := range map[string]Frame{
		"second welcome":  {Type: frameWelcome, Payload: (&Welcome{MaxStreams: 1, Idle: time.Minute}).payload()},
		"unknown":         {Type: 0x7f},
		"pairing":         {Type: 0x10},
		"GOAWAY, empty":   {Type: frameGoAway},
		"GOAWAY, too big": {Type: frameGoAway, Payload: make([]byte, 3+maxReason)},
		"optional":        {Type: FrameOptional, Payload: make([]byte, MaxFramePayload)},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				s := w.connect(w.allow(newIdentity(t)), 1)
				s.Welcome(context.Background())
				for _, v := range w.served() {
					l, _ := v.current()
					l.say(f)
				}
				synctest.Wait()
				if optional := name == "optional"; optional != (s.Err() == nil) || !optional && !errors.Is(s.Err(), ErrFrame) {
					t.Errorf("session: %v", s.Err())
				}
			})
		})
	}
}
