package relay

import (
	"sync"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// TestStopWhileWaiting has a device end a download in good order while a film of
// its route leaves it no turn: its stream is over at once, and holds nothing.
func TestStopWhileWaiting(t *testing.T) {
	simulate(t, limited(Limits{RouteRate: 4e6}), func(w *world) {
		home, route := w.agent()
		away := w.device(route)
		film, filmAgent := w.open(away, home) // playing
		download, agent := w.openUrgent(away, home, wire.Bulk)
		const during = 20 * time.Second
		var wait sync.WaitGroup
		wait.Go(func() { pump(t, filmAgent, during) })
		wait.Go(func() { drink(t, film, during) })
		time.Sleep(2 * time.Second)
		agent.SetWriteDeadline(time.Now().Add(time.Second))
		agent.Write(make([]byte, 256<<10))
		download.CloseWrite()
		download.StopRead()
		agent.CloseWrite()
		time.Sleep(2 * time.Second)
		w.relay.registry.mu.Lock()
		streams := w.relay.registry.streams
		w.relay.registry.mu.Unlock()
		if streams != 1 {
			t.Errorf("%d streams are forwarded, want the film's alone", streams)
		}
		wait.Wait()
	})
}
