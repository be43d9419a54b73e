package e2e

import (
	"context"
	"testing"
	"time"
)

// TestCutAgainAndAgain: a relay that ends every carrier just behind its preface
// does not keep a stream waiting: the eighth futile carrier is the last.
func TestCutAgainAndAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.connect(w.allow(newIdentity(t)), 1)
		if _, err := s.Welcome(context.Background()); err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		w.relay = func(_ int, d, a Stream) {
			passed, ended := 0, false
			forward(d, a, func(b []byte) []byte {
				if passed += len(b); passed > openPrefaceLen+resumptionLen && !ended {
					ended = true
					a.CloseWrite()
				}
				if ended {
					return nil
				}
				return b
			}, nil)
		}
		w.mu.Unlock()
		c, err := s.OpenStream(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		c.Write(make([]byte, 10_000))
		c.SetReadDeadline(time.Now().Add(10 * time.Minute))
		start := time.Now()
		_, err = c.Read(make([]byte, 1))
		if took := time.Since(start); err == nil || took > 5*time.Second {
			t.Errorf("given up after %v (%v), want the eighth futile carrier, about 3 s", took, err)
		}
	})
}
