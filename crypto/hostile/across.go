package hostile

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// exchange makes two halves go on in each other's place.
type exchange struct {
	picks func(f *flow, p piece) bool // which two, and from which piece on

	mu    sync.Mutex
	flows []*flow
	both  chan struct{} // closed when both have come
}

func newExchange(picks func(f *flow, p piece) bool) *exchange {
	return &exchange{picks: picks, both: make(chan struct{})}
}

func (x *exchange) pass(f *flow, p piece) bool {
	other := x.partner(f, p)
	if other == nil {
		return false
	}
	f.hop.relay.struck.Store(true)
	other.forward(p)
	return true
}

// partner waits for the other half, and returns it if f is one of the two.
func (x *exchange) partner(f *flow, p piece) *flow {
	x.mu.Lock()
	in := slices.Contains(x.flows, f)
	if !in && len(x.flows) < 2 && x.picks(f, p) {
		x.flows = append(x.flows, f)
		in = true
		if len(x.flows) == 2 {
			close(x.both)
		}
	}
	x.mu.Unlock()
	if !in {
		return nil
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-x.both:
	case <-t.C:
		return nil
	case <-f.hop.relay.ctx.Done():
		return nil
	}
	if x.flows[0] == f {
		return x.flows[1]
	}
	return x.flows[0]
}

// firsts picks the first carriers of streams 1 and 2 from a piece on.
func firsts(up bool, k kind, index int) func(f *flow, p piece) bool {
	return func(f *flow, p piece) bool {
		_, further, ok := f.hop.sealed()
		return ok && !further && f.up == up && p.kind == k && p.index == index
	}
}

// twoStreams has a device ask on two streams at once.
func twoStreams(prepare func(w *world)) func(w *world) error {
	return func(w *world) error {
		prepare(w)
		d := w.addDevice(w.addHome())
		if err := d.connect(); err != nil {
			return err
		}
		return together(func() error { return d.ask(1) }, func() error { return d.ask(2) })
	}
}

// twoDevices has two devices of a home ask at once.
func twoDevices(prepare func(w *world)) func(w *world) error {
	return func(w *world) error {
		prepare(w)
		h := w.addHome()
		a, b := w.addDevice(h), w.addDevice(h)
		talk := func(d *device) func() error {
			return func() error {
				if err := d.connect(); err != nil {
					return err
				}
				return d.ask(1)
			}
		}
		return together(talk(a), talk(b))
	}
}

// exchanges sets what the relay exchanges.
func exchanges(picks ...func(f *flow, p piece) bool) func(w *world) {
	return func(w *world) {
		var all []*exchange
		for _, p := range picks {
			all = append(all, newExchange(p))
		}
		w.relay.pass = func(f *flow, p piece) bool {
			for _, x := range all {
				if x.pass(f, p) {
					return true
				}
			}
			return false
		}
	}
}

func direction(up bool) string {
	if up {
		return "to the server"
	}
	return "to the device"
}

// attacksAcross mixes what belongs apart: streams, devices, servers, and
// control with data.
func attacksAcross() (all []attack) {
	add := func(name, position string, want want, run func(w *world) error) {
		all = append(all, attack{name, position, want, run})
	}
	for _, up := range []bool{true, false} {
		spliced := tampered(up, e2e.ErrTampered)
		for _, p := range places {
			add("splice two streams", p.name+", "+direction(up), spliced, twoStreams(exchanges(firsts(up, kindRecord, p.index))))
			add("cross two devices' streams", p.name+", "+direction(up), spliced, twoDevices(exchanges(firsts(up, kindRecord, p.index))))
		}
	}
	// The server answers a request where it comes: the answers are crossed then.
	add("splice two streams", "from the beginning, to the server", tampered(false, e2e.ErrSpliced), twoStreams(exchanges(firsts(true, kindPreface, 0))))
	add("splice two streams", "from the beginning, to the device", tampered(false, e2e.ErrSpliced), twoStreams(exchanges(firsts(false, kindPreface, 0))))
	add("splice two streams", "both halves: only their names are exchanged", whole, twoStreams(exchanges(firsts(true, kindPreface, 0), firsts(false, kindPreface, 0))))
	add("cross two devices' streams", "from the beginning, to the server", whole, twoDevices(exchanges(firsts(true, kindPreface, 0))))
	add("cross two devices' replies", "from the beginning", tampered(false, e2e.ErrSpliced), twoDevices(exchanges(firsts(false, kindPreface, 0))))
	for _, up := range []bool{true, false} {
		control := func(f *flow, p piece) bool {
			return f.up == up && f.hop.control() && p.kind == kindTLS && p.index == hello
		}
		add("cross two devices' handshakes", direction(up), handshakeFails, twoDevices(exchanges(control)))
	}
	for _, further := range []bool{true, false} {
		picks := func(f *flow, p piece) bool {
			_, again, ok := f.hop.sealed()
			return ok && again && f.up == further && p.kind == kindPreface
		}
		add("cross two resumed streams", "from the beginning, "+direction(further), tampered(false, e2e.ErrSpliced), twoStreams(func(w *world) {
			x := newExchange(picks)
			w.relay.pass = func(f *flow, p piece) bool {
				if _, again, ok := f.hop.sealed(); ok && !again && !f.up && p.kind == kindRecord && p.index == chunks/2 {
					f.hop.reset(wire.CodeCancelled)
					return true
				}
				return x.pass(f, p)
			}
		}))
	}
	return append(append(all, attacksOnServers()...), attacksOnKinds()...)
}

// attacksOnServers leads a device to a home that is not its own.
func attacksOnServers() []attack {
	elsewhere := func(when func(h *hopStream) bool) func(w *world) error {
		return func(w *world) error {
			w.relay.joins = func(h *hopStream, home int) int {
				if when(h) {
					w.relay.struck.Store(true)
					return 1 - home
				}
				return home
			}
			w.readFor = persistence
			w.relay.pass = loseLink(1)
			d := w.addDevice(w.addHome())
			w.addDevice(w.addHome())
			if err := d.connect(); err != nil {
				return err
			}
			return d.askAll(1, victim)
		}
	}
	return []attack{
		{"swap two servers", "all streams", refused(e2e.ErrWrongServer), elsewhere(func(*hopStream) bool { return true })},
		{"swap two servers", "the session's first stream", refused(e2e.ErrWrongServer), elsewhere(func(h *hopStream) bool { return h.n == 0 })},
		{"swap two servers", "one stream of data", whole, elsewhere(func(h *hopStream) bool { return h.n == 1 })},
		{"swap two servers", "all streams of data", ends, elsewhere(func(h *hopStream) bool { return h.n > 0 })},
		{"swap two servers", "a session that goes on, once", whole, elsewhere(func(h *hopStream) bool { return h.attachment == 2 })},
		{"swap two servers", "a session that goes on", refused(e2e.ErrWrongServer), elsewhere(func(h *hopStream) bool { return h.attachment > 1 })},
	}
}

// attacksOnKinds brings what is control as data, and the reverse. A record of
// the control stream among the data is in recordAttacks.
func attacksOnKinds() (all []attack) {
	for _, up := range []bool{true, false} {
		for _, p := range places {
			at := place{up: up, index: p.index}
			all = append(all, attack{"put a record of a data stream on the control stream", at.String(), whole,
				threeStreams(func(w *world) func(*flow, piece) bool {
					return at.on(kindRecord, func(f *flow, p piece) {
						b := bytes.Clone(p.b)
						w.relay.find(func(h *hopStream) bool { return h.attachment == f.hop.attachment && h.control() }).half(up).send(b)
						f.send(b)
					})
				}, 1)})
		}
	}
	relabel := func(from, to byte) func(w *world) func(*flow, piece) bool {
		return func(w *world) func(*flow, piece) bool {
			return func(f *flow, p piece) bool {
				if !f.up || len(p.b) == 0 || p.b[0] != from || len(f.pieces()) != 1 {
					return false
				}
				w.relay.struck.Store(true)
				f.send(append([]byte{to}, p.b[1:]...))
				return true
			}
		}
	}
	for _, k := range []struct {
		from, to byte
		name     string
		want     want
	}{
		{firstByteTLS, firstByteOpen, "control as a stream of data", handshakeFails},
		{firstByteTLS, firstByteAgain, "control as a resumed stream", handshakeFails},
		{firstByteOpen, firstByteTLS, "each stream of data as control", ends.or(whole)},
		{firstByteOpen, firstByteAgain, "each stream of data as a resumed one", ends.or(whole)},
	} {
		all = append(all, attack{"swap control and data", k.name, k.want, threeStreams(relabel(k.from, k.to), 0)})
	}
	return all
}

// expectCode notes that the agent took what it had to refuse.
func (w *world) expectCode(what string, got wire.Code, allowed ...wire.Code) {
	if !slices.Contains(allowed, got) {
		w.survive("%s was answered with %s", what, got)
	}
}

// sessions notes if homes have other sessions than their devices have made.
func (w *world) sessions(h *home, want int) error {
	if n := len(h.server.Sessions()); n > want {
		w.survive("the server has %d sessions, and its devices have made %d", n, want)
		return fmt.Errorf("%d sessions", n)
	}
	return nil
}
