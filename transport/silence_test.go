package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/quic-go/quic-go/testutils/simnet"
)

// roles runs f for a device, an agent, and a relay's view of an agent, with the
// session that is asked and its keep-alive.
func roles(t *testing.T, f func(t *testing.T, w *world, s Session, keepAlive time.Duration)) {
	for _, name := range []string{"device", "agent", "relay"} {
		t.Run(name, func(t *testing.T) {
			simulate(t, nil, func(w *world) {
				if name == "device" {
					s, _ := w.dial(nil)
					f(t, w, s, DeviceKeepAlive)
					return
				}
				cert := transporttest.Certificate(t)
				endpoint, relay := w.dial(&cert)
				if name == "relay" {
					endpoint = relay
				}
				f(t, w, endpoint, KeepAlive)
			})
		})
	}
}

// TestSilent cuts the network of an idle session at different times after its
// last packet and asks four times a second.
func TestSilent(t *testing.T) {
	roles(t, func(t *testing.T, w *world, s Session, keepAlive time.Duration) {
		due := keepAlive + Patience(s.RTT())
		ask := func(d time.Duration) (longest time.Duration) {
			for range d / (250 * time.Millisecond) {
				time.Sleep(250 * time.Millisecond)
				longest = max(longest, s.Silent())
			}
			return longest
		}
		for _, idle := range []time.Duration{time.Minute, time.Minute + 900*time.Millisecond} {
			if d := ask(idle); d != 0 {
				t.Fatalf("an idle session is silent for %v", d)
			}
			w.net.cut.Store(true)
			start := time.Now()
			if d := ask(due - keepAlive); d != 0 {
				t.Errorf("silent for %v before anything was due", d)
			}
			for s.Silent() == 0 {
				ask(250 * time.Millisecond)
			}
			d := time.Since(start)
			t.Logf("noticed after %v, which says %v", d, s.Silent())
			if late := d - due; late > 500*time.Millisecond {
				t.Errorf("noticed %v too late", late)
			}
			if over := s.Silent() - time.Since(start); over > keepAlive+2*oneWay || s.Silent() < due {
				t.Errorf("silent for %v after %v", s.Silent(), time.Since(start))
			}
			w.net.cut.Store(false)
			ask(4 * time.Second)
			if s.Err() != nil || s.Silent() != 0 {
				t.Fatalf("after the cut: Silent %v, Err %v", s.Silent(), s.Err())
			}
		}
	})
}

// TestSilentSeldom asks once at the start, and again long after the network was
// cut.
func TestSilentSeldom(t *testing.T) {
	roles(t, func(t *testing.T, w *world, s Session, keepAlive time.Duration) {
		if d := s.Silent(); d != 0 {
			t.Errorf("the first call says %v", d)
		}
		time.Sleep(5*time.Minute + 300*time.Millisecond)
		if d := s.Silent(); d != 0 {
			t.Errorf("silent for %v", d)
		}
		time.Sleep(time.Minute)
		w.net.cut.Store(true)
		time.Sleep(7 * time.Second)
		if d := s.Silent(); d < 7*time.Second-keepAlive/2 || d > 7*time.Second+keepAlive+2*oneWay {
			t.Errorf("silent for %v after 7 s", d)
		}
	})
}

// Who could not look for long knows nothing.
func TestSilentAfterStall(t *testing.T) {
	now := time.Now()
	h := &heard{keepAlive: time.Second, packets: 7, at: now, looked: now}
	h.look(7, now.Add(900*time.Millisecond))
	if !h.at.Equal(now) {
		t.Error("no packet counts as one")
	}
	h.look(7, now.Add(time.Minute))
	if !h.at.Equal(now.Add(time.Minute)) {
		t.Error("a stall counts as silence")
	}
}

// TestPoorLink lives for an hour on a link that loses 5 % each way and stands
// still for 1.5 s every 17 s: the session is suspected, and not cut.
func TestPoorLink(t *testing.T) {
	for _, gaps := range []bool{false, true} {
		for _, cert := range []*tls.Certificate{nil, new(transporttest.Certificate(t))} {
			simulate(t, nil, func(w *world) {
				endpoint, _ := w.dial(cert)
				var mu sync.Mutex // each direction has a goroutine
				rng := rand.New(rand.NewPCG(1, 2))
				start := time.Now()
				w.net.lose(func(simnet.Packet) bool {
					mu.Lock()
					defer mu.Unlock()
					return rng.IntN(20) == 0 || gaps && time.Since(start)%(17*time.Second) < 1500*time.Millisecond
				})
				suspected, worst, silent := 0, time.Duration(0), false
				for time.Since(start) < time.Hour && endpoint.Err() == nil {
					time.Sleep(250 * time.Millisecond)
					d := endpoint.Silent()
					if d > 0 && !silent {
						suspected++
					}
					silent = d > 0
					worst = max(worst, d)
				}
				t.Logf("agent: %v, gaps: %v: suspected %d times in an hour, silent for at most %v", cert != nil, gaps, suspected, worst)
				if endpoint.Err() != nil {
					t.Errorf("cut after %v: %v", time.Since(start), endpoint.Err())
				}
			})
		}
	}
}

// TestCheck checks an idle session and one that receives, then a dead path.
func TestCheck(t *testing.T) {
	for _, busy := range []bool{false, true} {
		simulate(t, nil, func(w *world) {
			endpoint, relay := w.dial(nil)
			a, b := open(t, endpoint, relay)
			var f *flow
			if busy {
				f = startFlow(t, b, a)
			}
			for i := range 20 { // more than there are connection IDs
				time.Sleep(333 * time.Millisecond)
				ctx, cancel := within(Patience(endpoint.RTT()))
				start := time.Now()
				err := endpoint.Check(ctx)
				cancel()
				if d := time.Since(start); err != nil || d < oneWay || d > 2*oneWay+50*time.Millisecond {
					t.Errorf("check %d took %v: %v", i, d, err)
				}
			}
			if busy {
				f.end()
			}
			w.net.cut.Store(true)
			for range 5 {
				ctx, cancel := within(Patience(endpoint.RTT()))
				if err := endpoint.Check(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Check of a dead path: %v", err)
				}
				cancel()
			}
			w.net.cut.Store(false)
			ctx, cancel := within(Patience(endpoint.RTT()))
			defer cancel()
			if err := endpoint.Check(ctx); err != nil {
				t.Errorf("Check of the path that is back: %v", err)
			}
		})
	}
}

// TestIdleCost prints what an idle session sends and receives.
func TestIdleCost(t *testing.T) {
	roles(t, func(t *testing.T, w *world, s Session, keepAlive time.Duration) {
		time.Sleep(time.Minute)
		before := w.net.endpoint.Stats()
		const minutes = 10
		time.Sleep(minutes * time.Minute)
		after := w.net.endpoint.Stats()
		const seconds = minutes * 60
		sent, received := float64(after.PacketsSent-before.PacketsSent)/seconds, float64(after.PacketsRcvd-before.PacketsRcvd)/seconds
		bytes := float64(after.BytesSent-before.BytesSent+after.BytesRcvd-before.BytesRcvd) / seconds
		t.Logf("%.2f packets sent and %.2f received per second, %.0f bytes per second in datagrams, %.0f with IPv4",
			sent, received, bytes, bytes+28*(sent+received))
		if most := 2 * float64(time.Second) / float64(keepAlive); sent > most || received > most/2 {
			t.Error("more than a keep-alive, its bait and its answer")
		}
	})
}
