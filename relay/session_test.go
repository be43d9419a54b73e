package relay

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/relay/admit"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
)

func TestAttachment(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		a, route := w.agent()
		number := func(d *hop.Attachment) uint64 {
			t.Helper()
			w.ask(d)
			st, err := a.Accept(w.ctx())
			if err != nil {
				t.Fatal(err)
			}
			n, err := hop.ReadIncoming(st)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		one, two := w.device(route), w.device(route)
		n := number(one)
		if again := number(one); again != n {
			t.Errorf("one device's streams have the attachments %x and %x", n, again)
		}
		if other := number(two); other == n {
			t.Errorf("two devices share the attachment %x", n)
		}
	})
}

// TestReplaced registers the same key twice: the newer agent wins and stays,
// the older is told.
func TestReplaced(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		cert := transporttest.Certificate(t)
		older := w.register(cert)
		newer := w.register(cert)
		wantClosed(t, older, wire.CodeReplaced)
		time.Sleep(time.Minute) // nothing of the older one's end touches the newer one
		w.open(w.device(wire.RouteOf(cert.Leaf.RawSubjectPublicKeyInfo)), newer)
		wantCount(t, "sessions ended", w.relay.metrics.sessionsEnded, wire.CodeReplaced, 1)
	})
}

func TestNotAdmitted(t *testing.T) {
	for name, cfg := range map[string]Config{
		"nobody is":  {BufferMemory: 4 << 30},
		"another is": {BufferMemory: 4 << 30, Admit: admit.Allow{{1}: true}},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, cfg, func(w *world) {
				cert := transporttest.Certificate(t)
				s := w.dial(&cert)
				if _, err := hop.Register(w.ctx(), s, wire.Register{}); err == nil {
					t.Error("an agent registered that is not admitted")
				}
				wantClosed(t, s, wire.CodeNotAdmitted)
				wantCount(t, "sessions ended", w.relay.metrics.sessionsEnded, wire.CodeNotAdmitted, 1)
				if n := w.relay.registry.size(); n != 0 {
					t.Errorf("%d agents are registered", n)
				}
			})
		})
	}
}

// wantRefused opens a stream, which the relay must refuse with the code.
func (w *world) wantRefused(d *hop.Attachment, code wire.Code) {
	w.t.Helper()
	wantReset(w.t, w.ask(d), code)
	wantCount(w.t, "streams refused", w.relay.metrics.streamsRefused, code, 1)
}

// TestCarriers counts sessions by what carries them.
func TestCarriers(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		w.agent()
		want := map[string]int{"QUIC": 1, "TCP": 0}
		if w.tcp != nil {
			want = map[string]int{"QUIC": 0, "TCP": 1}
		}
		for protocol, n := range want {
			if got := w.relay.carriedBy(protocol); got != n {
				t.Errorf("%d sessions over %s, want %d", got, protocol, n)
			}
		}
	})
}

func TestRouteUnknown(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		a, route := w.agent()
		w.wantRefused(w.device(wire.Route{1, 2, 3}), wire.CodeRouteUnknown)
		w.open(w.device(route), a)
	})
}

func TestAgentThatLeftIsUnknown(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		a, route := w.agent()
		d := w.device(route)
		a.Close(wire.CodeNone, "")
		time.Sleep(time.Second)
		w.wantRefused(d, wire.CodeRouteUnknown)
	})
}

// TestTokens refuses a token that the agent does not list, until it does. A
// stream that is open goes on when its token is no longer listed.
func TestTokens(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		a, route := w.agent(wire.Token{1}.Hash(), wire.Token{2}.Hash())
		d := w.device(route)
		w.wantRefused(d, wire.CodeTokenRefused)
		for range 3 { // each update is a stream of its own, which must be given back
			if err := a.Update(w.ctx(), []wire.TokenHash{wire.Token{1}.Hash(), token.Hash()}, ""); err != nil {
				t.Fatal(err)
			}
		}
		device, agent := w.open(d, a)
		if err := a.Update(w.ctx(), nil, ""); err != nil {
			t.Fatal(err)
		}
		wantReset(t, w.ask(d), wire.CodeTokenRefused)
		agent.Write([]byte("still here"))
		agent.CloseWrite()
		if got, err := io.ReadAll(device); err != nil || string(got) != "still here" {
			t.Errorf("the open stream brought %q and %v", got, err)
		}
	})
}

// TestPackets counts the datagrams of sessions: a session's count when it ends.
func TestPackets(t *testing.T) {
	simulateOver(t, false, admitAll, func(w *world) {
		a, route := w.agent()
		d := w.device(route)
		device, agent := w.open(d, a)
		go func() {
			device.Write(make([]byte, 100_000))
			device.CloseWrite()
		}()
		if n, err := io.Copy(io.Discard, agent); n != 100_000 || err != nil {
			t.Fatalf("%d bytes arrived, %v", n, err)
		}
		out, in := w.relay.packets()
		if out < 50 || in < 50 {
			t.Errorf("100,000 bytes each way took %d datagrams out, %d in", out, in)
		}
		a.Close(wire.CodeNone, "")
		d.Close(wire.CodeNone, "")
		time.Sleep(time.Second)
		if o, i := w.relay.packets(); o < out || i < in {
			t.Errorf("%d out and %d in after the sessions have ended, %d and %d before", o, i, out, in)
		}
	})
}

// TestWaiting opens streams that never say OPEN: each new one pushes out the
// oldest, and a device that does say it is served all the time.
func TestWaiting(t *testing.T) {
	simulate(t, Config{Admit: admitAll.Admit, BufferMemory: 3 * waitingShare * windowMemory()}, func(w *world) {
		a, route := w.agent()
		d := w.device(route)
		stranger := w.dial(nil)
		control, err := stranger.OpenStream(w.ctx())
		if err != nil {
			t.Fatal(err)
		}
		control.Write(wire.Hello{}.Append(nil))
		var silent []transport.Stream
		for range 5 {
			st, err := stranger.OpenStream(w.ctx())
			if err != nil {
				t.Fatal(err)
			}
			st.Write([]byte{byte(wire.FrameOpen)})
			silent = append(silent, st)
			time.Sleep(100 * time.Millisecond)
		}
		device, agent := w.open(d, a)
		agent.Write([]byte("film"))
		agent.CloseWrite()
		if got, err := io.ReadAll(device); err != nil || string(got) != "film" {
			t.Errorf("beside the silent streams came %q, %v", got, err)
		}
		// Three may wait: the film's stream has pushed out the third.
		for i, st := range silent {
			if i < 3 {
				wantReset(t, st, wire.CodeMemory)
			} else {
				wantReset(t, st, wire.CodeSilent)
			}
		}
	})
}

// TestMemory gives the relay memory for two streams: the third is refused,
// until one of the two has ended.
func TestMemory(t *testing.T) {
	one := 2*(64<<10) + streamOverhead()
	simulate(t, Config{Admit: admitAll.Admit, BufferMemory: 2*one + windowMemory() + 1000}, func(w *world) {
		a, route := w.agent()
		d := w.device(route)
		first, _ := w.open(d, a)
		w.open(d, a)
		w.wantRefused(d, wire.CodeMemory)
		first.Reset(wire.CodeCancelled)
		time.Sleep(time.Second)
		w.open(d, a)
	})
}

// TestTooManyStreams opens more streams than the agent's end allows.
func TestTooManyStreams(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		_, route := w.agent()
		for range 2 {
			d := w.device(route)
			for range 128 {
				w.ask(d)
			}
		}
		time.Sleep(time.Second)
		d := w.device(route)
		w.wantRefused(d, wire.CodeTooManyStreams)
	})
}

// TestSilent has endpoints that stop speaking at each point where the protocol
// expects something of them. Each is cut after the same time.
func TestSilent(t *testing.T) {
	hello := wire.Hello{}.Append(nil)
	for name, tc := range map[string]struct {
		agent bool
		says  [][]byte // on streams one after the other
	}{
		"device, nothing":               {says: nil},
		"device, half a HELLO":          {says: [][]byte{hello[:3]}},
		"agent, nothing":                {agent: true},
		"agent, HELLO alone":            {agent: true, says: [][]byte{hello}},
		"agent, half a REGISTER":        {agent: true, says: [][]byte{append(hello, wire.Register{Tokens: make([]wire.TokenHash, 9)}.Append(nil)[:20]...)}},
		"agent, half a second REGISTER": {agent: true, says: [][]byte{append(hello, wire.Register{}.Append(nil)...), {3}}},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, admitAll, func(w *world) {
				s := w.endpoint(tc.agent)
				begin := time.Now()
				for _, text := range tc.says {
					w.say(s, text)
				}
				wantClosed(t, s, wire.CodeSilent)
				if took := time.Since(begin); took < Patience-oneWay || took > Patience+2*oneWay {
					t.Errorf("cut after %v, want %v", took, Patience)
				}
				wantCount(t, "sessions ended", w.relay.metrics.sessionsEnded, wire.CodeSilent, 1)
			})
		})
	}
}

// TestSilentStream opens a stream and says nothing on it: the stream is cut,
// the session goes on.
func TestSilentStream(t *testing.T) {
	for name, text := range map[string][]byte{"one byte": {5}, "half an OPEN": wire.Open{}.Append(nil)[:20]} {
		t.Run(name, func(t *testing.T) {
			simulate(t, admitAll, func(w *world) {
				a, route := w.agent()
				s := w.endpoint(false)
				w.say(s, wire.Hello{}.Append(nil))
				begin := time.Now()
				wantReset(t, w.say(s, text), wire.CodeSilent)
				if took := time.Since(begin); took < Patience || took > Patience+2*oneWay {
					t.Errorf("cut after %v, want %v", took, Patience)
				}
				wantCount(t, "streams refused", w.relay.metrics.streamsRefused, wire.CodeSilent, 1)
				w.say(s, wire.Open{Route: route, Token: token}.Append(nil))
				if _, err := a.Accept(w.ctx()); err != nil {
					t.Errorf("the session does not go on: %v", err)
				}
			})
		})
	}
}

// endpoint opens a session without a word on it.
func (w *world) endpoint(agent bool) transport.Session {
	w.t.Helper()
	if !agent {
		return w.dial(nil)
	}
	cert := transporttest.Certificate(w.t)
	return w.dial(&cert)
}

// say opens a stream and writes to it.
func (w *world) say(s transport.Session, text []byte) transport.Stream {
	w.t.Helper()
	st, err := s.OpenStream(w.ctx())
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := st.Write(text); err != nil {
		w.t.Fatal(err)
	}
	return st
}

// TestShutdown says goodbye to every endpoint, also beside one that cannot
// hear it, and ends streams and sessions with the code.
func TestShutdown(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		s := w.stream()
		mute := w.endpoint(false) // has not said HELLO
		idle, _ := w.agent()
		begin := time.Now()
		w.shutdown()
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("the shutdown took %v", took)
		}
		for name, e := range map[string]interface {
			Done() <-chan struct{}
			Err() error
			Leaving() <-chan struct{}
			RetryAfter() time.Duration
		}{"agent": s.home, "device": s.away, "idle agent": idle} {
			<-e.Leaving()
			wantClosed(t, e, wire.CodeShutdown)
			if d := e.RetryAfter(); d <= 0 || d > time.Second {
				t.Errorf("the %s heard to come back after %v", name, d)
			}
		}
		wantClosed(t, mute, wire.CodeShutdown)
		wantCount(t, "sessions ended", w.relay.metrics.sessionsEnded, wire.CodeShutdown, 4)
		late, err := w.tryDial(nil)
		if err == nil {
			wantClosed(t, late, wire.CodeShutdown)
		}
	})
}

// TestShutdownInTime has a context that ends before the goodbyes arrived.
func TestShutdownInTime(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		w.agent()
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		begin := time.Now()
		err := w.relay.Shutdown(ctx)
		if took := time.Since(begin); took != 50*time.Millisecond {
			t.Errorf("the shutdown took %v", took)
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		synctest.Wait()
	})
}
