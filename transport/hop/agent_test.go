package hop

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// registered is Register against a relay that does as it should. It returns
// the relay's end of the control stream as well.
func (s *script) registered() (*Registration, transport.Stream) {
	s.t.Helper()
	type result struct {
		r   *Registration
		err error
	}
	done := make(chan result, 1)
	go func() {
		r, err := Register(s.t.Context(), s.endpoint, registration)
		done <- result{r, err}
	}()
	control := s.accept()
	s.read(control, hello, register)
	s.write(control, optional, welcome, optional, registered)
	control.StopRead()
	res := <-done
	if res.err != nil {
		s.t.Fatal(res.err)
	}
	return res.r, control
}

func TestRegister(t *testing.T) {
	play(t, func(s *script) {
		start := time.Now()
		r, _ := s.registered()
		if d := time.Since(start); d != 2*oneWay {
			t.Errorf("registered after %v, want one round trip", d)
		}
		time.Sleep(time.Hour)
		if r.Err() != nil || r.RetryAfter() != 0 || r.Draining() {
			t.Errorf("an hour later: %v", r.Err())
		}
		select {
		case <-r.Leaving():
			t.Error("Leaving is closed")
		case <-r.Done():
			t.Error("Done is closed")
		default:
		}
		if r.RTT() < 2*oneWay {
			t.Errorf("RTT is %v", r.RTT())
		}
		r.Close(wire.CodeOff, "off")
		<-r.Done()
		<-r.Leaving()
		if got := s.closed(r.Err()); got.Code != wire.CodeOff || got.Remote {
			t.Errorf("Err is %v", &got)
		}
		s.relaySees(wire.CodeOff)
	})
}

// TestRegisterLies gives each lie in place of WELCOME and of REGISTERED.
func TestRegisterLies(t *testing.T) {
	for _, lie := range lies {
		for _, first := range [][]byte{nil, welcome} {
			t.Run(lie.name, func(t *testing.T) {
				play(t, func(s *script) {
					go func() {
						control := s.accept()
						s.write(control, first, lie.answer)
						if lie.then != nil {
							lie.then(control)
						}
					}()
					start := time.Now()
					_, err := Register(s.t.Context(), s.endpoint, registration)
					if got := s.closed(err); got.Code != lie.code || got.Remote {
						t.Errorf("got %v, want %v", &got, lie.code)
					}
					if d := time.Since(start); d > Patience || (d == Patience) != (lie.code == wire.CodeTimeout) {
						t.Errorf("that took %v", d)
					}
					s.relaySees(lie.code)
				})
			})
		}
	}
}

func TestRegisterWrongVersion(t *testing.T) {
	play(t, func(s *script) {
		go func() {
			s.write(s.accept(), wire.Welcome{Version: wire.MaxVersion + 1}.Append(nil), registered)
		}()
		_, err := Register(s.t.Context(), s.endpoint, registration)
		if got := s.closed(err); got.Code != wire.CodeProtocol {
			t.Errorf("got %v", &got)
		}
		s.relaySees(wire.CodeProtocol)
	})
}

func TestRegisterTrickle(t *testing.T) {
	play(t, func(s *script) {
		go func() { trickle(s.accept()) }()
		start := time.Now()
		_, err := Register(s.t.Context(), s.endpoint, registration)
		if got := s.closed(err); got.Code != wire.CodeTimeout || time.Since(start) != Patience {
			t.Errorf("after %v: %v", time.Since(start), &got)
		}
		time.Sleep(time.Minute)
	})
}

func TestRegisterRefused(t *testing.T) {
	play(t, func(s *script) {
		go func() {
			control := s.accept()
			s.write(control, welcome)
			s.relay.Close(wire.CodeNotAdmitted, "not you")
		}()
		_, err := Register(s.t.Context(), s.endpoint, registration)
		want := wire.ClosedError{Code: wire.CodeNotAdmitted, Text: "not you", Remote: true}
		if got := s.closed(err); got != want {
			t.Errorf("got %v", &got)
		}
	})
}

// TestRegisterLost cuts the network: the connection and the exchange end at
// about the same time.
func TestRegisterLost(t *testing.T) {
	play(t, func(s *script) {
		s.net.cut.Store(true)
		for range 2 { // the second time on a session that is over
			start := time.Now()
			_, err := Register(s.t.Context(), s.endpoint, registration)
			_, lost := errors.AsType[*transport.LostError](err)
			closed, ok := errors.AsType[*wire.ClosedError](err)
			if !lost && !(ok && closed.Code == wire.CodeTimeout) || time.Since(start) > Patience {
				t.Errorf("after %v: %v", time.Since(start), err)
			}
		}
	})
}

func TestRegisterCancelled(t *testing.T) {
	for _, after := range []time.Duration{0, time.Millisecond, time.Second, Patience - 1} {
		play(t, func(s *script) {
			ctx, cancel := context.WithCancel(s.t.Context())
			start := time.Now()
			if after == 0 {
				cancel()
			} else {
				time.AfterFunc(after, cancel)
			}
			defer cancel()
			_, err := Register(ctx, s.endpoint, registration)
			if !errors.Is(err, context.Canceled) || time.Since(start) != after {
				t.Errorf("cancelled after %v: %v after %v", after, err, time.Since(start))
			}
			s.relaySees(wire.CodeNone)
		})
	}
	play(t, func(s *script) {
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
		defer cancel()
		if _, err := Register(ctx, s.endpoint, registration); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestTooManyTokens(t *testing.T) {
	many := make([]wire.TokenHash, wire.MaxTokens+1)
	play(t, func(s *script) {
		if _, err := Register(s.t.Context(), s.endpoint, wire.Register{Tokens: many}); err == nil {
			t.Error("Register takes them")
		}
		s.relaySees(wire.CodeNone)
	})
	play(t, func(s *script) {
		r, _ := s.registered()
		if err := r.Update(s.t.Context(), nil, strings.Repeat("x", wire.MaxTicket+1)); err == nil {
			t.Error("a ticket that is too long is sent")
		}
		if err := r.Update(s.t.Context(), many, ""); err == nil {
			t.Error("Update takes them")
		}
		if r.Err() != nil {
			t.Errorf("Err is %v", r.Err())
		}
		r.Close(wire.CodeNone, "")
	})
}

// TestAllTokens registers as many tokens as there may be.
func TestAllTokens(t *testing.T) {
	play(t, func(s *script) {
		go func() {
			control := s.accept()
			s.read(control, hello, wire.Register{Tokens: make([]wire.TokenHash, wire.MaxTokens)}.Append(nil))
			s.write(control, welcome, registered)
		}()
		r, err := Register(s.t.Context(), s.endpoint, wire.Register{Tokens: make([]wire.TokenHash, wire.MaxTokens)})
		if err != nil {
			t.Fatal(err)
		}
		r.Close(wire.CodeNone, "")
	})
}

// TestAfterRegistered gives what no relay may say later.
func TestAfterRegistered(t *testing.T) {
	for _, lie := range append(lies[:len(lies):len(lies)], struct {
		name   string
		answer []byte
		then   func(transport.Stream)
		code   wire.Code
	}{"a second REGISTERED", registered, nil, wire.CodeProtocol}) {
		if slices.Contains([]string{"GOODBYE", "LIMIT", "RECEIPT"}, lie.name) || lie.code == wire.CodeTimeout {
			continue // is right here
		}
		t.Run(lie.name, func(t *testing.T) {
			play(t, func(s *script) {
				r, control := s.registered()
				s.write(control, lie.answer)
				if lie.then != nil {
					lie.then(control)
				}
				<-r.Leaving()
				<-r.Done()
				if got := s.closed(r.Err()); got.Code != lie.code || got.Remote {
					t.Errorf("got %v, want %v", &got, lie.code)
				}
				s.relaySees(lie.code)
			})
		})
	}
}

func TestGoodbye(t *testing.T) {
	for _, g := range []wire.Goodbye{
		{Code: wire.CodeShutdown, RetryAfter: 700, Text: "back soon"},
		{Code: wire.CodeShutdown},
		{Code: wire.CodeDraining, RetryAfter: 9000, Text: "go to another"},
		{Code: wire.CodeNone, RetryAfter: 1<<32 - 1},
	} {
		play(t, func(s *script) {
			r, control := s.registered()
			s.write(control, g.Append(nil))
			<-r.Leaving()
			want := wire.ClosedError{Code: g.Code, Text: g.Text, Remote: true}
			if got := s.closed(r.Err()); got != want {
				t.Errorf("Err is %v", &got)
			}
			if got := r.RetryAfter(); got != time.Duration(g.RetryAfter)*time.Millisecond {
				t.Errorf("RetryAfter is %v", got)
			}
			if got := r.Draining(); got != (g.Code == wire.CodeDraining) {
				t.Errorf("Draining is %v after %v", got, g.Code)
			}
			// Streams go on until the relay closes.
			select {
			case <-r.Done():
				t.Error("Done is closed")
			case <-time.After(time.Minute):
			}
			st, err := s.relay.OpenStream(s.t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s.write(st, wire.Incoming{Attachment: 7}.Append(nil))
			if _, err := r.Accept(s.t.Context()); err != nil {
				t.Errorf("Accept: %v", err)
			}
			s.relay.Close(wire.CodeInternal, "another word")
			<-r.Done()
			if got := s.closed(r.Err()); got != want {
				t.Errorf("Err after the end is %v", &got)
			}
		})
	}
}

func TestUpdate(t *testing.T) {
	play(t, func(s *script) {
		r, _ := s.registered()
		if !r.Until().IsZero() {
			t.Errorf("without a ticket there is an end, %v", r.Until())
		}
		for _, list := range [][]wire.TokenHash{nil, {{9}}} {
			go func() {
				st := s.accept()
				s.read(st, wire.Register{Instance: registration.Instance, Tokens: list, Ticket: "a ticket"}.Append(nil))
				if n, err := st.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Errorf("behind REGISTER: %d, %v", n, err)
				}
				time.Sleep(time.Second)
				s.write(st, wire.Registered{Route: wire.Route{3}, Valid: 90}.Append(nil))
				st.CloseWrite()
				st.StopRead()
			}()
			start := time.Now()
			if err := r.Update(s.t.Context(), list, "a ticket"); err != nil {
				t.Errorf("Update: %v", err)
			}
			if left := time.Until(r.Until()); left <= 88*time.Second || left > 91*time.Second {
				t.Errorf("the ticket ends in %v", left)
			}
			if d := time.Since(start); d != time.Second+2*oneWay {
				t.Errorf("Update did not wait for the relay's word: %v", d)
			}
		}
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
		defer cancel()
		if err := r.Update(ctx, nil, ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if r.Err() != nil {
			t.Errorf("an Update that was given up ends the session: %v", r.Err())
		}
		r.Close(wire.CodeNone, "")
		if got := s.closed(r.Update(s.t.Context(), nil, "")); got.Code != wire.CodeNone {
			t.Errorf("got %v", &got)
		}
	})
}

func TestUpdateLies(t *testing.T) {
	for _, lie := range lies {
		t.Run(lie.name, func(t *testing.T) {
			play(t, func(s *script) {
				r, _ := s.registered()
				go func() {
					st := s.accept()
					s.write(st, lie.answer)
					if lie.then != nil {
						lie.then(st)
					}
				}()
				if got := s.closed(r.Update(s.t.Context(), nil, "")); got.Code != lie.code || got.Remote {
					t.Errorf("got %v, want %v", &got, lie.code)
				}
				s.relaySees(lie.code)
			})
		})
	}
}

// TestUpdateStreamLimit is a relay that allows no further stream.
func TestUpdateStreamLimit(t *testing.T) {
	play(t, func(s *script) {
		r, _ := s.registered()
		for {
			if _, err := s.endpoint.TryOpenStream(); err != nil {
				break
			}
		}
		start := time.Now()
		if err := r.Update(s.t.Context(), nil, ""); err == nil || time.Since(start) != Patience {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		r.Close(wire.CodeNone, "")
	})
}

func TestIncoming(t *testing.T) {
	incoming := wire.Incoming{Attachment: 0xfedcba9876543210}.Append(nil)
	for _, c := range []struct {
		name string
		play func(transport.Stream)
		err  error // nil: it is taken
		code wire.Code
	}{
		{"at once", func(st transport.Stream) { st.Write(append(incoming, "bytes"...)) }, nil, 0},
		{"behind an optional frame", func(st transport.Stream) { st.Write(append(append(optional, incoming...), "bytes"...)) }, nil, 0},
		{"late", func(st transport.Stream) {
			st.Write(incoming[:5])
			time.Sleep(Patience - 3*oneWay)
			st.Write(append(incoming[5:], "bytes"...))
		}, nil, 0},
		{"missing", func(st transport.Stream) { st.Write(incoming[:5]) }, os.ErrDeadlineExceeded, wire.CodeRefused},
		{"too late", func(st transport.Stream) {
			st.Write(incoming[:5])
			time.Sleep(Patience + oneWay)
			st.Write(incoming[5:])
		}, os.ErrDeadlineExceeded, wire.CodeRefused},
		{"another frame", func(st transport.Stream) { st.Write(registered) }, wire.ErrMalformed, wire.CodeRefused},
		{"garbled", func(st transport.Stream) { st.Write([]byte("GET / HTTP/1.1\r\n")) }, wire.ErrMalformed, wire.CodeRefused},
		{"too short", func(st transport.Stream) { st.Write([]byte{6, 0, 7, 1, 2, 3, 4, 5, 6, 7}) }, wire.ErrMalformed, wire.CodeRefused},
		{"too long", func(st transport.Stream) { st.Write([]byte{6, 1, 0}) }, wire.ErrTooLarge, wire.CodeRefused},
		{"cut", func(st transport.Stream) { st.Write(incoming[:5]); st.CloseWrite() }, io.ErrUnexpectedEOF, wire.CodeRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			play(t, func(s *script) {
				r, _ := s.registered()
				relay, err := s.relay.OpenStream(s.t.Context())
				if err != nil {
					t.Fatal(err)
				}
				go c.play(relay)
				st, err := r.Accept(s.t.Context())
				if err != nil {
					t.Fatal(err)
				}
				attachment, err := ReadIncoming(st)
				if !errors.Is(err, c.err) {
					t.Errorf("got %v, want %v", err, c.err)
				}
				time.Sleep(time.Hour) // no deadline is left behind
				if err == nil {
					b := make([]byte, 5)
					if _, err := io.ReadFull(st, b); attachment != 0xfedcba9876543210 || string(b) != "bytes" {
						t.Errorf("attachment %x, then %q, %v", attachment, b, err)
					}
				} else {
					_, err := relay.Read(make([]byte, 1))
					reset, ok := errors.AsType[*wire.ResetError](err)
					if !ok || reset.Code != c.code {
						t.Errorf("the relay sees %v, want %v", err, c.code)
					}
				}
				if r.Err() != nil {
					t.Errorf("the session is over: %v", r.Err())
				}
				r.Close(wire.CodeNone, "")
			})
		})
	}
}
