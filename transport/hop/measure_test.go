package hop

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// TestMeasureUp measures against a relay that takes all, takes a part, or
// lies.
func TestMeasureUp(t *testing.T) {
	const asked = 100_000
	answer := func(m wire.Measured) []byte { return m.Append(nil) }
	for name, c := range map[string]struct {
		play func(*script, transport.Stream)
		rate float64 // 0: an error
	}{
		"all of it": {func(s *script, st transport.Stream) {
			if n, err := io.Copy(io.Discard, st); n != asked || err != nil {
				s.t.Errorf("%d bytes came, %v", n, err)
			}
			s.write(st, answer(wire.Measured{Bytes: asked, Time: 250_000}))
			st.CloseWrite()
		}, 400_000},
		"a part, in time": {func(s *script, st transport.Stream) {
			io.ReadFull(st, make([]byte, 5000))
			st.StopRead()
			s.write(st, answer(wire.Measured{Bytes: 5000, Time: 10_000_000}))
			st.CloseWrite()
		}, 500},
		"in no time":  {func(s *script, st transport.Stream) { s.write(st, answer(wire.Measured{Bytes: 1})) }, 1e6},
		"nothing":     {func(s *script, st transport.Stream) { s.write(st, answer(wire.Measured{Time: 9})) }, 0},
		"a refusal":   {func(_ *script, st transport.Stream) { st.Reset(wire.CodeMeasureLimit) }, 0},
		"no answer":   {func(_ *script, st transport.Stream) { st.CloseWrite() }, 0},
		"another one": {func(s *script, st transport.Stream) { s.write(st, registered) }, 0},
		"silence":     {func(*script, transport.Stream) {}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(s *script) {
				r, _ := s.registered()
				go func() {
					st := s.accept()
					s.read(st, wire.Measure{Bytes: asked}.Append(nil))
					c.play(s, st)
				}()
				begin := time.Now()
				rate, err := r.Measure(s.t.Context(), true, asked)
				if rate != c.rate || (err == nil) != (c.rate > 0) {
					t.Errorf("%.0f bytes/s, %v; want %.0f", rate, err, c.rate)
				}
				if took := time.Since(begin); took > measurePatience {
					t.Errorf("that took %v", took)
				}
				if r.Err() != nil {
					t.Errorf("the session is over: %v", r.Err())
				}
				r.Close(wire.CodeNone, "")
			})
		})
	}
}

// TestMeasureDown lets the relay send a first part, wait a second, and send
// the rest: the rate is that of the rest.
func TestMeasureDown(t *testing.T) {
	for name, c := range map[string]struct {
		first, rest int
		code        wire.Code
		rate        float64 // 0: an error
	}{
		"all of it":  {1000, 9000, 0, 9000},
		"a part":     {1000, 500, 0, 500},
		"too much":   {1000, 9001, 0, 0},
		"nothing":    {0, 0, 0, 0},
		"is refused": {1000, 0, wire.CodeTokenRefused, 0},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(s *script) {
				a, err := Attach(s.t.Context(), s.endpoint, target)
				if err != nil {
					t.Fatal(err)
				}
				s.write(s.accept(), welcome)
				go func() {
					st := s.accept()
					s.read(st, wire.Measure{Down: true, Bytes: 10_000, Route: target.Route, Token: target.Token}.Append(nil))
					if c.first > 0 {
						s.write(st, make([]byte, c.first))
					}
					time.Sleep(time.Second)
					if c.code != wire.CodeNone {
						st.Reset(c.code)
						return
					}
					st.Write(make([]byte, c.rest))
					st.CloseWrite()
				}()
				rate, err := a.Measure(s.t.Context(), false, 10_000)
				if rate != c.rate || (err == nil) != (c.rate > 0) {
					t.Errorf("%.0f bytes/s, %v; want %.0f", rate, err, c.rate)
				}
				if reset, ok := errors.AsType[*wire.ResetError](err); c.code != wire.CodeNone && (!ok || reset.Code != c.code) {
					t.Errorf("got %v, want %v", err, c.code)
				}
				a.Close(wire.CodeNone, "")
			})
		})
	}
}

func TestMeasureEnds(t *testing.T) {
	play(t, func(s *script) {
		r, _ := s.registered()
		for _, up := range []bool{true, false} {
			ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
			begin := time.Now()
			if _, err := r.Measure(ctx, up, wire.MaxMeasure); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
				t.Errorf("up %v: %v after %v", up, err, time.Since(begin))
			}
			cancel()
			for _, n := range []int{0, -1, wire.MaxMeasure + 1} {
				if _, err := r.Measure(s.t.Context(), up, n); err == nil {
					t.Errorf("up %v: %d bytes are measured", up, n)
				}
			}
		}
		r.Close(wire.CodeOff, "")
		if got := s.closed(func() error { _, err := r.Measure(s.t.Context(), true, 1); return err }()); got.Code != wire.CodeOff {
			t.Errorf("on a session that is over: %v", &got)
		}
	})
}
