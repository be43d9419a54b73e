package relay

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// noise returns n bytes that differ by seed.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// smallBuffers are for tests that fill them.
var smallBuffers = Config{Admit: admitAll.Admit, BufferMemory: 4 << 30, JitterBuffer: 128 << 10}

func TestForwardBothWays(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		s := w.stream()
		up, down := noise(1, 3<<20), noise(2, 5<<20)
		var wait sync.WaitGroup
		for _, half := range []struct {
			from, to transport.Stream
			data     []byte
		}{{s.device, s.agent, up}, {s.agent, s.device, down}} {
			wait.Go(func() {
				if _, err := half.from.Write(half.data); err != nil {
					t.Error(err)
				}
				if err := half.from.CloseWrite(); err != nil {
					t.Error(err)
				}
			})
			wait.Go(func() {
				got, err := io.ReadAll(half.to)
				if err != nil || !bytes.Equal(got, half.data) {
					t.Errorf("%d bytes and %v arrived, want the %d that were sent", len(got), err, len(half.data))
				}
			})
		}
		wait.Wait()
		synctest.Wait()
		wantCount(t, "streams ended", w.relay.metrics.streamsEnded, wire.CodeNone, 1)
		if up, down := w.relay.metrics.bytesUp.Load(), w.relay.metrics.bytesDown.Load(); up != 3<<20 || down != 5<<20 {
			t.Errorf("%v bytes up and %v down counted", up, down)
		}
		if st := w.relay.budget.Stats(); st.Streams != 0 {
			t.Errorf("%d streams are held after both directions ended", st.Streams)
		}
	})
}

// TestHalfClose ends one half long before the other one says anything.
func TestHalfClose(t *testing.T) {
	for _, first := range []string{"device", "agent"} {
		t.Run(first, func(t *testing.T) {
			simulate(t, admitAll, func(w *world) {
				s := w.stream()
				a, b := s.device, s.agent
				if first == "agent" {
					a, b = b, a
				}
				send := func(from, to transport.Stream, text string) {
					t.Helper()
					from.Write([]byte(text))
					from.CloseWrite()
					if got, err := io.ReadAll(to); err != nil || string(got) != text {
						t.Errorf("got %q and %v, want %q", got, err, text)
					}
				}
				send(a, b, "question")
				time.Sleep(10 * time.Minute)
				send(b, a, "answer")
			})
		})
	}
}

func TestResetPasses(t *testing.T) {
	for _, tc := range []struct{ said, read wire.Code }{
		{wire.CodeCancelled, wire.CodeCancelled},
		{wire.CodeRefused, wire.CodeRefused},
		{wire.CodeTampered, wire.CodeTampered},
		{wire.CodeOff, wire.CodeOff},
		{wire.CodeBusy, wire.CodeBusy},
		{wire.CodeTimeout, wire.CodeTimeout},
		{0x7777, 0x7777},                         // a later version's
		{wire.CodeShutdown, wire.CodeCancelled},  // only the relay may say this
		{wire.CodeAgentGone, wire.CodeCancelled}, // and this
		{wire.CodeNone, wire.CodeCancelled},      // a reset is no orderly end
	} {
		for _, by := range []string{"device", "agent"} {
			t.Run(tc.said.String()+" by "+by, func(t *testing.T) {
				simulate(t, admitAll, func(w *world) {
					s := w.stream()
					a, b := s.device, s.agent
					if by == "agent" {
						a, b = b, a
					}
					a.Reset(tc.said)
					wantReset(t, b, tc.read)
					time.Sleep(oneWay) // the other half's end may come in another packet
					if _, err := b.Write([]byte("x")); err == nil {
						t.Error("the other end can still write")
					}
					synctest.Wait()
					wantCount(t, "streams ended", w.relay.metrics.streamsEnded, tc.read, 1)
				})
			})
		}
	}
}

// TestStopRead stops one half, which the sender must learn at once, also while
// nothing is sent. The other half goes on.
func TestStopRead(t *testing.T) {
	for _, by := range []string{"device", "agent"} {
		t.Run(by, func(t *testing.T) {
			simulate(t, admitAll, func(w *world) {
				s := w.stream()
				a, b := s.device, s.agent
				if by == "agent" {
					a, b = b, a
				}
				learned := onStop(b)
				time.Sleep(10 * time.Minute)
				a.StopRead()
				begin := time.Now()
				select {
				case err := <-learned:
					if code := resetCode(err); code != wire.CodeNone {
						t.Errorf("the sender learned code %v, want none", code)
					}
				case <-time.After(time.Minute):
					t.Fatal("the sender never learned it")
				}
				if took := time.Since(begin); took != 2*oneWay {
					t.Errorf("the sender learned it after %v, want one way through the relay: %v", took, 2*oneWay)
				}
				if _, err := b.Write([]byte("x")); resetCode(err) != wire.CodeNone {
					t.Errorf("the sender's Write says %v, want a reset with code none", err)
				}
				data := noise(3, 2<<20)
				go func() { a.Write(data); a.CloseWrite() }()
				if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, data) {
					t.Errorf("the other half brought %d bytes and %v, want %d", len(got), err, len(data))
				}
				b.CloseWrite()
				synctest.Wait()
				wantCount(t, "streams ended", w.relay.metrics.streamsEnded, wire.CodeNone, 1)
			})
		})
	}
}

// TestLeave ends a session or resets a stream in every state of the stream.
// The other end must learn it at once, and the relay must hold nothing. Only a
// reset of a half whose buffer is full, when the other half has ended before,
// is not seen until the reader goes on.
func TestLeave(t *testing.T) {
	flood := func(from transport.Stream) { from.Write(make([]byte, 16<<20)) } // nobody reads: every buffer fills
	states := map[string]func(s stream){
		"quiet":                 func(stream) {},
		"upload":                func(s stream) { go flood(s.device) },
		"download":              func(s stream) { go flood(s.agent) },
		"both":                  func(s stream) { go flood(s.device); go flood(s.agent) },
		"half closed":           func(s stream) { s.agent.CloseWrite(); io.ReadAll(s.device); go flood(s.device) },
		"half closed, download": func(s stream) { s.device.CloseWrite(); io.ReadAll(s.agent); go flood(s.agent) },
	}
	leave := map[string]struct {
		f      func(s stream) (other transport.Stream)
		code   wire.Code
		unseen string // in this state
	}{
		"device":          {func(s stream) transport.Stream { s.away.Close(wire.CodeNone, ""); return s.agent }, wire.CodeDeviceGone, ""},
		"agent":           {func(s stream) transport.Stream { s.home.Close(wire.CodeNone, ""); return s.device }, wire.CodeAgentGone, ""},
		"device's stream": {func(s stream) transport.Stream { s.device.Reset(wire.CodeBusy); return s.agent }, wire.CodeBusy, "half closed"},
		"agent's stream":  {func(s stream) transport.Stream { s.agent.Reset(wire.CodeBusy); return s.device }, wire.CodeBusy, "half closed, download"},
	}
	for state, enter := range states {
		for who, l := range leave {
			t.Run(state+"/"+who, func(t *testing.T) {
				simulate(t, smallBuffers, func(w *world) {
					s := w.stream()
					enter(s)
					time.Sleep(5 * time.Second)
					other := l.f(s)
					if l.unseen == state {
						wantReset(t, other, l.code)
						return
					}
					time.Sleep(2*oneWay + 10*time.Millisecond)
					synctest.Wait()
					// Before the other end reads anything, which would let the relay move on.
					if st := w.relay.budget.Stats(); st.Streams != 0 || st.Used != 0 {
						t.Errorf("the relay still holds %+v", st)
					}
					select {
					case code := <-ended(other):
						if code != l.code {
							t.Errorf("the other end learned code %v, want %v", code, l.code)
						}
					case <-time.After(time.Millisecond):
						t.Error("the other end learned nothing yet")
					}
				})
			})
		}
	}
}

// TestFrozenReader freezes one reader of an agent and of a device and reads
// another stream of the same two sessions, as fast as without.
func TestFrozenReader(t *testing.T) {
	const size = 4 << 20
	download := func(w *world, freeze bool) time.Duration {
		s := w.stream()
		if freeze {
			for range 8 {
				_, agent := w.open(s.away, s.home)
				go agent.Write(make([]byte, 16<<20))
			}
			time.Sleep(10 * time.Second)
		}
		begin := time.Now()
		go func() { s.agent.Write(noise(5, size)); s.agent.CloseWrite() }()
		if got, err := io.ReadAll(s.device); err != nil || !bytes.Equal(got, noise(5, size)) {
			t.Errorf("%d bytes and %v arrived", len(got), err)
		}
		return time.Since(begin)
	}
	simulate(t, smallBuffers, func(w *world) {
		alone := download(w, false)
		beside := download(w, true)
		t.Logf("4 MiB take %v alone and %v beside 8 frozen readers", alone, beside)
		if beside > 2*alone {
			t.Errorf("4 MiB take %v beside frozen readers and %v without", beside, alone)
		}
	})
}

// onStop returns what st.OnStop reports.
func onStop(st transport.Stream) <-chan error {
	c := make(chan error, 1)
	st.OnStop(func(err error) { c <- err })
	return c
}

// ended returns what either half of a stream that goes on learns first. It
// reads the stream.
func ended(st transport.Stream) <-chan wire.Code {
	c := make(chan wire.Code, 2)
	st.OnStop(func(err error) { c <- resetCode(err) })
	go func() {
		if _, err := io.Copy(io.Discard, st); err != nil {
			c <- resetCode(err)
		}
	}()
	return c
}

// resetCode returns the code of a reset, CodeInternal for anything else.
func resetCode(err error) wire.Code {
	if reset, ok := errors.AsType[*wire.ResetError](err); ok {
		return reset.Code
	}
	return wire.CodeInternal
}
