package hostile

import (
	"bytes"
	"errors"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

func isReset(err error) bool {
	_, ok := errors.AsType[*wire.ResetError](err)
	return ok
}

// attacksByReplay brings whole streams again.
func attacksByReplay() []attack {
	const name = "replay a whole stream"
	const resumed = "resume what is not its own"
	return []attack{
		{name, "of data, to the server, while it runs", tampered(true, e2e.ErrReplay), replayRunning},
		{name, "of data, to the server, after its end", whole, replayLater(wire.CodeTampered, 0, 1, stream)},
		{name, "of data, to the server, again and again", tampered(false, e2e.ErrTampered), replayOften},
		{name, "of data, to the server, as another device", whole, replayLater(wire.CodeRefused, 0, 2, stream)},
		{name, "of data, to the server, as nobody", whole, replayLater(wire.CodeRefused, 0, 99, stream)},
		{name, "of data, to another server", whole, replayLater(wire.CodeRefused, 1, 1, stream)},
		{name, "of control, to the server, as the same device", whole, replayLater(wire.CodeRefused, 0, 1, control)},
		{name, "of control, to the server, as another device", whole, replayLater(wire.CodeRefused, 0, 2, control)},
		{name, "of control, to the server, as nobody", whole, replayLater(wire.CodeRefused, 0, 99, control)},
		{name, "of control, to another server", whole, replayLater(wire.CodeRefused, 1, 99, control)},
		{name, "of data, to the device, as the answer to another request", tampered(false, e2e.ErrSpliced), replayAnswer},
		{name, "of control, to the device, in another session", refused(e2e.ErrHandshake), replayControl(false)},
		{name, "of control, to the server, in another session", handshakeFails, replayControl(true)},
		{resumed, "the carrier of a stream, again", tampered(false, e2e.ErrTampered), replayFurther(0, 1, wire.CodeTampered)},
		{resumed, "the carrier of a stream, as another device", whole, replayFurther(0, 2, wire.CodeRefused)},
		{resumed, "the carrier of a stream, as nobody", whole, replayFurther(0, 99, wire.CodeRefused)},
		{resumed, "the carrier of a stream, at another server", whole, replayFurther(1, 1, wire.CodeRefused)},
		{resumed, "the first carrier of a stream in the place of a further one", tampered(false, e2e.ErrTampered), oldCarrier(true)},
		{resumed, "the first answer of a stream in the place of a further one", tampered(false, e2e.ErrSpliced), oldCarrier(false)},
		{resumed, "the JOIN of a session, as the same device", whole, replayLater(wire.CodeRefused, 0, 1, join)},
		{resumed, "the JOIN of a session, where it was said", whole, replayLater(wire.CodeRefused, 0, 3, join)},
		{resumed, "the JOIN of a session, as another device", whole, replayLater(wire.CodeRefused, 0, 2, join)},
		{resumed, "the JOIN of a session, as nobody", whole, replayLater(wire.CodeRefused, 0, 99, join)},
		{resumed, "the JOIN of a session, at another server", whole, replayLater(wire.CodeRefused, 1, 99, join)},
	}
}

// What is replayed: the first stream of data, the first control stream, and
// that of a session that has moved from attachment 1 to 3.
func stream(h *hopStream) bool {
	n, _, ok := h.sealed()
	return ok && n == 1 && h.attachment == 1
}
func control(h *hopStream) bool { return h.attachment == 1 && h.control() }
func join(h *hopStream) bool    { return h.attachment == 3 && h.control() }

// replayWorld has two homes, two devices of the first one, and the streams of
// both. The session of the first one moves when it asks for the victim.
func replayWorld(w *world, pass func(f *flow, p piece) bool) (*device, error) {
	lose := loseLink(1)
	w.relay.pass = func(f *flow, p piece) bool { return lose(f, p) || pass != nil && pass(f, p) }
	h := w.addHome()
	w.addHome()
	d, other := w.addDevice(h), w.addDevice(h)
	if err := d.connect(); err != nil {
		return nil, err
	}
	if err := other.connect(); err != nil {
		return nil, err
	}
	return d, errors.Join(d.ask(1), other.ask(1))
}

// replayLater brings a stream's bytes to the server when it is over.
func replayLater(code wire.Code, home, attachment int, which func(*hopStream) bool) func(w *world) error {
	return func(w *world) error {
		d, err := replayWorld(w, nil)
		if err != nil {
			return err
		}
		h := w.relay.find(which)
		if h == nil { // the session has not moved yet
			if err := d.ask(victim); err != nil {
				return err
			}
			h = w.relay.find(which)
		}
		if h == nil {
			return errors.New("there is nothing to replay")
		}
		w.expectCode("a stream that was replayed", w.relay.inject(home, attachment, bytesOf(h.up.pieces())), code)
		return errors.Join(d.askAll(victim+1, victim+2), w.sessions(w.homes[0], 2), w.sessions(w.homes[1], 0))
	}
}

// replayOften brings a stream eight times: then the session ends.
func replayOften(w *world) error {
	d, err := replayWorld(w, nil)
	if err != nil {
		return err
	}
	b := bytesOf(w.relay.find(stream).up.pieces())
	for range 8 {
		w.expectCode("a stream that was replayed", w.relay.inject(0, 1, b), wire.CodeTampered)
	}
	return d.ask(victim)
}

// replayRunning brings the victim to the server a second time while it runs.
func replayRunning(w *world) error {
	d, err := replayWorld(w, place{up: true, index: 1}.on(kindRecord, func(f *flow, p piece) {
		w.relay.inject(0, f.hop.attachment, bytesOf(f.hop.up.pieces()))
		f.send(p.b)
	}))
	if err != nil {
		return err
	}
	return d.askAll(victim, 3)
}

// replayAnswer answers the victim's request with the answer to the first one.
func replayAnswer(w *world) error {
	d, err := replayWorld(w, place{}.on(kindPreface, func(f *flow, _ piece) {
		f.stop()
		f.send(bytesOf(w.relay.find(stream).down.pieces()))
		f.finish()
	}))
	if err != nil {
		return err
	}
	return d.askAll(victim, 3)
}

// replayControl puts one half of a control stream in the place of another
// device's.
func replayControl(up bool) func(w *world) error {
	return secondSession(func(w *world) func(*flow, piece) bool {
		return func(f *flow, p piece) bool {
			if f.hop.attachment != 2 || f.up != up || p.kind != kindTLS || p.index != hello {
				return false
			}
			f.stop()
			w.relay.struck.Store(true)
			old := w.relay.find(func(h *hopStream) bool { return h.attachment == 1 && h.control() })
			f.send(bytes.TrimPrefix(bytesOf(old.half(up).pieces()), []byte{firstByteTLS}))
			return true
		}
	})
}

// replayFurther has a stream resumed and brings the new carrier's beginning
// elsewhere, or twice.
func replayFurther(home, attachment int, code wire.Code) func(w *world) error {
	return func(w *world) error {
		at := place{index: chunks / 2}
		lose := at.on(kindRecord, func(f *flow, _ piece) { f.hop.reset(wire.CodeCancelled) })
		at.further, at.index = true, chunks/2+1
		again := at.on(kindRecord, func(f *flow, p piece) {
			w.expectCode("a carrier that was replayed", w.relay.inject(home, attachment, bytesOf(f.hop.up.pieces())), code)
			f.send(p.b)
		})
		w.relay.pass = func(f *flow, p piece) bool { return lose(f, p) || again(f, p) }
		h := w.addHome()
		w.addHome()
		d, other := w.addDevice(h), w.addDevice(h)
		if err := d.connect(); err != nil {
			return err
		}
		if err := other.connect(); err != nil {
			return err
		}
		return d.askAll(1, victim, 3)
	}
}

// oldCarrier has a stream resumed and puts what its first carrier brought in
// the place of what a further one brings.
func oldCarrier(up bool) func(w *world) error {
	return threeStreams(func(w *world) func(*flow, piece) bool {
		lose := loseFirst(false)
		old := place{up: up, further: true}.on(kindPreface, func(f *flow, _ piece) {
			f.stop()
			first := w.relay.find(func(h *hopStream) bool {
				n, further, ok := h.sealed()
				return ok && n == victim && !further && h.attachment == f.hop.attachment
			})
			f.send(bytesOf(first.half(up).pieces()))
		})
		return func(f *flow, p piece) bool { return lose(f, p) || old(f, p) }
	}, 1)
}
