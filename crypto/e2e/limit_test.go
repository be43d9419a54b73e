package e2e

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// codeIn returns the code of a reset.
func codeIn(err error) wire.Code {
	var reset *wire.ResetError
	if errors.As(err, &reset) {
		return reset.Code
	}
	return wire.CodeNone
}

// TestVolumeLimit cuts a stream with volume_limit: its link is of no more use,
// and it goes on over another one. Where there is none its reader is told.
func TestVolumeLimit(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		relay := make(map[uint64][]*pipeEnd) // the other ends, by attachment
		w.prepare = func(_ int, attachment uint64, _, end *pipeEnd) { relay[attachment] = append(relay[attachment], end) }
		s := w.connect(w.allow(newIdentity(t)), 1)
		device, agent := w.streams(s)
		for attachment := uint64(1); ; attachment++ {
			l := newest(s)
			relay[attachment][len(relay[attachment])-1].Reset(wire.CodeVolumeLimit)
			<-l.Done()
			if codeIn(l.Err()) != wire.CodeVolumeLimit {
				t.Errorf("the link ends with %v", l.Err())
			}
			if attachment == 2 {
				break
			}
			if _, err := w.join(s, attachment+1); err != nil {
				t.Fatal(err)
			}
			agent.Write([]byte("goes on"))
			if _, err := io.ReadFull(device, make([]byte, 7)); err != nil {
				t.Fatalf("over another relay: %v", err)
			}
		}
		start := time.Now()
		s.Fail(&wire.ResetError{Code: wire.CodeVolumeLimit})
		if _, err := device.Read(make([]byte, 1)); codeIn(err) != wire.CodeVolumeLimit || time.Since(start) > 0 {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if _, err := s.OpenStream(context.Background()); codeIn(err) != wire.CodeVolumeLimit {
			t.Errorf("another stream: %v", err)
		}
	})
}

// TestLimitsOfStreams refuses what a relay has no room for: a session fails at
// once, a stream of one that stands after a few more attempts.
func TestLimitsOfStreams(t *testing.T) {
	for _, code := range []wire.Code{wire.CodeMemory, wire.CodeDeviceLimit, wire.CodeStreamLimit, wire.CodeRelayStreams} {
		inWorld(t, func(t *testing.T, w *world) {
			refuse := func(_ int, d, a Stream) { d.Reset(code); a.Reset(code) }
			id := w.allow(newIdentity(t))
			s := w.connect(id, 1)
			if _, err := s.Welcome(context.Background()); err != nil {
				t.Fatal(err)
			}
			w.mu.Lock()
			w.relay = refuse
			w.mu.Unlock()
			if _, err := Connect(context.Background(), w.open(2), w.config(id, 2)); codeIn(err) != code {
				t.Errorf("connect: %v, want %v", err, code)
			}
			c, err := s.OpenStream(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.Write([]byte("x"))
			start := time.Now()
			_, err = c.Read(make([]byte, 1))
			if took := time.Since(start); codeIn(err) != code || took > 5*time.Second {
				t.Errorf("after %v: %v, want %v", took, err, code)
			}
			if s.Err() != nil {
				t.Errorf("the session ends: %v", s.Err())
			}
		})
	}
}

// TestUrgency gives every carrier of a stream the urgency that it was opened
// with, and control streams none of it.
func TestUrgency(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		id := w.allow(newIdentity(t))
		asked := make(map[wire.Urgency]int)
		cfg := w.config(id, 1)
		cfg.Open = func(ctx context.Context) (Stream, error) {
			w.mu.Lock()
			asked[UrgencyOf(ctx)]++
			w.mu.Unlock()
			return w.dial(1)
		}
		s, err := Connect(context.Background(), w.open(1), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close(wire.CodeNone, "")
		c, err := s.OpenStream(WithUrgency(context.Background(), wire.Bulk))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write([]byte("x"))
		agent, err := w.server.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer agent.Close()
		w.hopsOf(1)[1].Reset(wire.CodeCancelled)
		agent.Write([]byte("y"))
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.OpenStream(context.Background()); err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if asked[wire.Bulk] != 2 || asked[wire.Playing] != 1 || len(asked) != 2 {
			t.Errorf("carriers by urgency: %v, want 2 of bulk and 1 of playing", asked)
		}
	})
}
