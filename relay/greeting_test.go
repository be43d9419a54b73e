package relay

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// TestManySilent lets more sessions be silent than a relay keeps: none is cut
// before 2 s, then those that come cut the oldest, and an endpoint that says HELLO
// is greeted all the time.
func TestManySilent(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		var silent []transport.Session
		come := func(n int) {
			for range n {
				silent = append(silent, &mute{done: make(chan struct{})})
				w.relay.start(silent[len(silent)-1])
				synctest.Wait()
			}
		}
		cut := func() (n int) {
			for _, s := range silent {
				if s.(*mute).code.Load() == uint32(wire.CodeSilent) {
					n++
				}
			}
			return n
		}
		come(manySilent + 10)
		if n := cut(); n != 0 {
			t.Errorf("%d sessions are cut at once", n)
		}
		time.Sleep(silentFor)
		come(20)
		if n := cut(); n != 30 {
			t.Errorf("%d sessions are cut when 20 have come, want the 30 oldest", n)
		}
		for _, s := range silent[:30] {
			if s.(*mute).code.Load() == 0 {
				t.Error("it is not the oldest that are cut")
				break
			}
		}
		a, route := w.agent()
		w.open(w.device(route), a)
		time.Sleep(Patience)
		if n := cut(); n != len(silent) {
			t.Errorf("%d of %d sessions are cut in the end", n, len(silent))
		}
		if n := w.relay.greeting.oldest.Len(); n != 0 {
			t.Errorf("%d sessions are kept as silent", n)
		}
	})
}

// mute is a session that says nothing.
type mute struct {
	transport.Session
	code atomic.Uint32
	once sync.Once
	done chan struct{}
}

func (m *mute) AcceptStream(ctx context.Context) (transport.Stream, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-m.done:
		return nil, m.Err()
	}
}

func (m *mute) Close(code wire.Code, _ string) {
	m.once.Do(func() { m.code.Store(uint32(code)); close(m.done) })
}

func (m *mute) Err() error {
	select {
	case <-m.done:
		return &wire.ClosedError{Code: wire.Code(m.code.Load())}
	default:
		return nil
	}
}

func (m *mute) ClientKey() []byte                { return nil }
func (m *mute) RemoteAddr() net.Addr             { return nil }
func (m *mute) Protocol() string                 { return "QUIC" }
func (m *mute) Packets() (sent, received uint64) { return 0, 0 }

// TestTrickle says HELLO, and then OPEN, byte by byte and so slowly that each
// takes longer than the relay's patience: bytes that come do not prolong it.
func TestTrickle(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		trickle := func(s transport.Session, text []byte) (st transport.Stream, begin time.Time) {
			begin = time.Now()
			st = w.say(s, text[:1])
			for _, b := range text[1:] {
				time.Sleep(Patience / time.Duration(len(text)-2)) // the last comes too late
				if _, err := st.Write([]byte{b}); err != nil {
					break
				}
			}
			return st, begin
		}
		took := func(what string, begin time.Time) {
			t.Helper()
			if d := time.Since(begin); d < Patience || d > Patience+Patience/2 {
				t.Errorf("%s was cut after %v, want %v", what, d, Patience)
			}
		}
		s := w.endpoint(false)
		_, begin := trickle(s, wire.Hello{}.Append(nil))
		wantClosed(t, s, wire.CodeSilent)
		took("HELLO", begin)

		s = w.endpoint(false)
		w.say(s, wire.Hello{}.Append(nil))
		st, begin := trickle(s, wire.Open{}.Append(nil))
		wantReset(t, st, wire.CodeSilent)
		took("OPEN", begin)
	})
}
