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

// TestAttach opens a stream before the relay said anything.
func TestAttach(t *testing.T) {
	play(t, func(s *script) {
		start := time.Now()
		a, err := Attach(s.t.Context(), s.endpoint, target)
		if err != nil {
			t.Fatal(err)
		}
		st, err := a.Open(s.t.Context())
		if err != nil {
			t.Fatal(err)
		}
		st.Write([]byte("request"))
		st.CloseWrite()
		if d := time.Since(start); d != 0 {
			t.Errorf("Attach and Open waited %v", d)
		}
		control, data := s.accept(), s.accept()
		s.read(control, hello)
		s.read(data, target.Append(nil))
		if b, err := io.ReadAll(data); string(b) != "request" || err != nil {
			t.Errorf("behind OPEN: %q, %v", b, err)
		}
		if d := time.Since(start); d != oneWay {
			t.Errorf("the request came after %v", d)
		}
		s.write(control, optional, welcome)
		control.StopRead()
		time.Sleep(time.Hour)
		s.write(data, []byte("answer"))
		data.CloseWrite()
		if b, err := io.ReadAll(st); string(b) != "answer" || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
		if a.Err() != nil {
			t.Errorf("Err is %v", a.Err())
		}
		s.write(control, wire.Goodbye{Code: wire.CodeShutdown, RetryAfter: 5}.Append(nil))
		<-a.Leaving()
		if a.RetryAfter() != 5*time.Millisecond {
			t.Errorf("RetryAfter is %v", a.RetryAfter())
		}
		a.Close(wire.CodeNone, "")
		s.relaySees(wire.CodeNone)
	})
}

func TestAttachLies(t *testing.T) {
	wrongVersion := lies[0]
	wrongVersion.name, wrongVersion.answer = "wrong version", wire.Welcome{Version: wire.MaxVersion + 1}.Append(nil)
	second := lies[0]
	second.name, second.answer = "a second WELCOME", append(welcome, welcome...)
	for _, lie := range append(lies[:len(lies):len(lies)], wrongVersion, second) {
		t.Run(lie.name, func(t *testing.T) {
			play(t, func(s *script) {
				a, err := Attach(s.t.Context(), s.endpoint, target)
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				control := s.accept()
				s.write(control, lie.answer)
				if lie.then != nil {
					lie.then(control)
				}
				<-a.Leaving()
				<-a.Done()
				if got := s.closed(a.Err()); got.Code != lie.code || got.Remote {
					t.Errorf("got %v, want %v", &got, lie.code)
				}
				if d := time.Since(start); (d == Patience) != (lie.code == wire.CodeTimeout) {
					t.Errorf("that took %v", d)
				}
				if _, err := a.Open(s.t.Context()); err == nil {
					t.Error("Open on a session that is over")
				}
				s.relaySees(lie.code)
			})
		})
	}
}

func TestAttachRefused(t *testing.T) {
	play(t, func(s *script) {
		a, err := Attach(s.t.Context(), s.endpoint, target)
		if err != nil {
			t.Fatal(err)
		}
		s.relay.Close(wire.CodeVersion, "too old")
		<-a.Leaving()
		want := wire.ClosedError{Code: wire.CodeVersion, Text: "too old", Remote: true}
		if got := s.closed(a.Err()); got != want {
			t.Errorf("Err is %v", &got)
		}
		_, err = Attach(s.t.Context(), s.endpoint, target)
		if got := s.closed(err); got != want {
			t.Errorf("Attach on a session that is over: %v", &got)
		}
	})
}

func TestAttachCancelled(t *testing.T) {
	play(t, func(s *script) {
		ctx, cancel := context.WithCancel(s.t.Context())
		cancel()
		if _, err := Attach(ctx, s.endpoint, target); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		s.relaySees(wire.CodeNone)
	})
}

func TestAttachLost(t *testing.T) {
	play(t, func(s *script) {
		a, err := Attach(s.t.Context(), s.endpoint, target)
		if err != nil {
			t.Fatal(err)
		}
		s.write(s.accept(), welcome)
		time.Sleep(time.Minute)
		s.net.cut.Store(true)
		<-a.Leaving()
		if _, ok := errors.AsType[*transport.LostError](a.Err()); !ok {
			t.Errorf("Err is %v", a.Err())
		}
	})
}

func TestOpenRefused(t *testing.T) {
	play(t, func(s *script) {
		a, err := Attach(s.t.Context(), s.endpoint, target)
		if err != nil {
			t.Fatal(err)
		}
		s.write(s.accept(), welcome)
		for _, code := range []wire.Code{wire.CodeRouteUnknown, wire.CodeTokenRefused, wire.CodeMemory} {
			st, err := a.Open(s.t.Context())
			if err != nil {
				t.Fatal(err)
			}
			relay := s.accept()
			relay.Reset(code)
			_, err = st.Read(make([]byte, 1))
			if reset, ok := errors.AsType[*wire.ResetError](err); !ok || reset.Code != code {
				t.Errorf("got %v, want %v", err, code)
			}
			st.Reset(wire.CodeCancelled)
		}
		if a.Err() != nil {
			t.Errorf("Err is %v", a.Err())
		}
		time.Sleep(time.Second) // until the refused streams are forgotten
		// All streams taken: Open waits for ctx, no longer.
		for {
			if _, err := s.endpoint.TryOpenStream(); err != nil {
				break
			}
		}
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := a.Open(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		a.Close(wire.CodeNone, "")
	})
}
