package relay

import (
	"io"
	"os"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// TestTellNewLimit gives a route a rate while a stream of it runs: both of its
// ends hear what holds it up from then on.
func TestTellNewLimit(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		s := w.stream()
		go io.Copy(io.Discard, s.device)
		go func() {
			for {
				if _, err := s.agent.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}()
		w.relay.SetLimits(Limits{RouteRate: 1e6})
		time.Sleep(tellEvery + time.Second)
		told := func(limits []hop.Limit) bool {
			for _, l := range limits {
				if l.Code == wire.CodeRouteRate && l.Limit.Limit == 1e6 {
					return true
				}
			}
			return false
		}
		if !told(s.home.Limits()) || !told(s.away.Limits()) {
			t.Errorf("the agent was told %v, the device %v", s.home.Limits(), s.away.Limits())
		}
	})
}

// TestLastReceipt ends a relay, at once and after it was emptied, before its
// agent's next receipt is due: the last one comes with the goodbye.
func TestLastReceipt(t *testing.T) {
	for _, empty := range []bool{false, true} {
		cfg := limited(Limits{RouteVolume: 1 << 30})
		simulate(t, cfg, func(w *world) {
			s := w.stream()
			route := w.onlyRoute()
			const bytes = 4 << 20
			go s.agent.Write(make([]byte, bytes))
			if _, err := io.ReadFull(s.device, make([]byte, bytes)); err != nil {
				t.Fatal(err)
			}
			if empty {
				go w.relay.Drain(w.ctx(), time.Second)
				time.Sleep(2 * time.Second)
			}
			w.shutdown()
			used, err := cfg.Receipts.Read(s.home.Receipt(), route, time.Now())
			if err != nil || used < bytes-batch {
				t.Errorf("emptied %v: the receipt says %d bytes of %d, %v", empty, used, bytes, err)
			}
		})
	}
}

// deaf is a control stream whose other end takes no bytes.
type deaf struct{ transport.Stream }

func (deaf) Write([]byte) (int, error) {
	time.Sleep(goodbyeWithin)
	return 0, os.ErrDeadlineExceeded
}

// TestDeafAgents: agents that take no word do not hold up a change of the limits.
func TestDeafAgents(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		const agents = 20
		for range agents {
			w.agent()
		}
		w.relay.mu.Lock()
		for s := range w.relay.sessions {
			s.mu.Lock()
			s.control = deaf{s.control}
			s.mu.Unlock()
		}
		w.relay.mu.Unlock()
		begin := time.Now()
		w.relay.SetLimits(Limits{RouteRate: 1e6})
		if took := time.Since(begin); took >= goodbyeWithin {
			t.Errorf("a change of the limits took %v", took)
		}
		time.Sleep(2 * agents * goodbyeWithin) // all have been told by then
	})
}
