package hostile

import (
	"sync/atomic"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// honest are what must come whole: a protocol that refuses everything would
// survive every attack.
func honest() []attack {
	const name = "carry everything, as a relay should"
	none := func(w *world) func(*flow, piece) bool {
		w.relay.struck.Store(true)
		return nil
	}
	return []attack{
		{name, "one device, three streams", whole, threeStreams(none, 0)},
		{name, "two devices of one server", whole, secondSession(none)},
		{name, "a stream that broke off and was resumed", whole, threeStreams(func(w *world) func(*flow, piece) bool {
			var done atomic.Bool
			return func(f *flow, p piece) bool {
				if _, _, data := f.hop.sealed(); !data || p.kind != kindRecord || p.index != chunks/2 || done.Swap(true) {
					return false
				}
				w.relay.struck.Store(true)
				f.hop.reset(wire.CodeAgentGone)
				return true
			}
		}, 0)},
		{name, "a session that went on over another connection", whole, linkTalk(func(w *world) func(*flow, piece) bool {
			w.relay.struck.Store(true)
			return loseLink(2)
		})},
	}
}
