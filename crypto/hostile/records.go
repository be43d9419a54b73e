package hostile

import (
	"bytes"
	"encoding/binary"
	"sync/atomic"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// In attacks on records one device asks on three streams, and the second is
// the victim: the first gives the relay something to replay, the third shows
// whether the session goes on.
const victim = 2

// persistence is how long an application waits for a stream that the relay
// spoils again and again.
const persistence = 15 * time.Second

// place is where in a half of the victim something is done.
type place struct {
	up      bool
	further bool // on a carrier that takes the place of a lost one
	index   int  // of the record
}

var places = []struct {
	name  string
	index int
}{{"first record", 0}, {"middle record", chunks / 2}, {"last record", chunks}}

const last = chunks

func (at place) String() string {
	s := ", to the device"
	if at.up {
		s = ", to the server"
	}
	if at.further {
		s = ", resumed" + s
	}
	for _, p := range places {
		if p.index == at.index {
			return p.name + s
		}
	}
	return "another record" + s
}

// at reports whether a flow is the half in question of the victim.
func (at place) in(f *flow) bool {
	stream, further, ok := f.hop.sealed()
	return ok && stream == victim && further == at.further && f.up == at.up
}

// on returns a hook that calls do with the piece at a place, the first time
// that it comes.
func (at place) on(k kind, do func(f *flow, p piece)) func(*flow, piece) bool {
	var done atomic.Bool
	return func(f *flow, p piece) bool {
		if p.kind != k || p.index != at.index || !at.in(f) || done.Swap(true) {
			return false
		}
		f.hop.relay.struck.Store(true)
		do(f, p)
		return true
	}
}

// always is on for every carrier of the victim.
func (at place) always(w *world, do func(f *flow, p piece)) func(*flow, piece) bool {
	w.readFor = min(w.readFor, persistence)
	return func(f *flow, p piece) bool {
		stream, further, ok := f.hop.sealed()
		if !ok || stream != victim || f.up != at.up || p.kind != kindRecord && p.kind != kindFIN {
			return false
		}
		if p.kind == kindRecord && !further && p.index < at.index {
			return false
		}
		f.hop.relay.struck.Store(true)
		do(f, p)
		return true
	}
}

// recordAttack is what a relay can do to a record.
type recordAttack struct {
	name string
	hook func(w *world, at place) func(*flow, piece) bool
	want func(at place) want
	// sort says what a further carrier changes.
	sort sort
}

type sort int

const (
	damages sort = iota // no record can be made of it anywhere
	orders              // further carriers may bring records twice, with gaps and in any order
	repeats             // done to every carrier alike
)

// flip returns a copy of b with one bit of b[from:to] changed.
func flip(w *world, b []byte, from, to int) []byte {
	b = bytes.Clone(b)
	i := from + w.rnd.IntN(to-from)
	b[i] ^= 1 << w.rnd.IntN(8)
	return b
}

// noticed wants tampering to be noticed where a record does not verify.
func noticed(at place) want { return tampered(at.up, e2e.ErrTampered) }

// noticedOrLate is noticed, but what comes after END may come too late to
// matter, and what is missing there is asked for again.
func noticedOrLate(at place) want {
	if at.index == last {
		return noticed(at).or(whole)
	}
	return noticed(at)
}

func healed(place) want { return whole }

// given returns a want that does not depend on the place.
func given(w want) func(place) want { return func(place) want { return w } }

// brokenOff is what comes of a half that is cut again and again: only its
// reader can know that something is missing.
func brokenOff(at place) want {
	if at.up {
		return ends
	}
	return tampered(false, e2e.ErrTruncated)
}

// replaced returns a hook that sends other bytes in the place of a record.
func replaced(at place, with func(f *flow, p piece) []byte) func(*flow, piece) bool {
	return at.on(kindRecord, func(f *flow, p piece) { f.send(with(f, p)) })
}

// stored returns a record of an earlier stream, at the same place or in the
// other half.
func (r *relay) stored(attachment, stream int, up bool, index int) []byte {
	h := r.find(func(h *hopStream) bool {
		n, _, ok := h.sealed()
		return ok && n == stream && h.attachment == attachment
	})
	if h != nil {
		for _, p := range h.half(up).pieces() {
			if p.kind == kindRecord && p.index == index {
				return p.b
			}
		}
	}
	return nil
}

// junk is a record of random bytes, with a header as it should be.
func junk(w *world, p piece) []byte {
	b := bytes.Clone(p.b)
	for i := recordHeader; i < len(b); i++ {
		b[i] = byte(w.rnd.Uint32())
	}
	return b
}

var recordAttacks = []recordAttack{
	{"flip a bit of a record", func(w *world, at place) func(*flow, piece) bool {
		return replaced(at, func(_ *flow, p piece) []byte { return flip(w, p.b, recordHeader, len(p.b)) })
	}, noticed, damages},
	{"flip a bit of a record's tag", func(w *world, at place) func(*flow, piece) bool {
		return replaced(at, func(_ *flow, p piece) []byte { return flip(w, p.b, len(p.b)-16, len(p.b)) })
	}, noticed, damages},
	{"flip a bit of a record's number", func(w *world, at place) func(*flow, piece) bool {
		return replaced(at, func(_ *flow, p piece) []byte { return flip(w, p.b, 2, recordHeader) })
	}, noticed, damages},
	{"flip a bit of a record's length", func(w *world, at place) func(*flow, piece) bool {
		return replaced(at, func(_ *flow, p piece) []byte { return flip(w, p.b, 0, 2) })
	}, func(at place) want { return noticed(at).or(whole) }, damages},
	{"drop a record", func(w *world, at place) func(*flow, piece) bool {
		return at.on(kindRecord, func(*flow, piece) {})
	}, func(at place) want {
		if at.index == last {
			return whole // the stream's end is missing, and asked for again
		}
		return noticed(at)
	}, orders},
	{"drop all from a record on", func(w *world, at place) func(*flow, piece) bool {
		return at.always(w, func(f *flow, p piece) {
			if p.kind == kindFIN {
				f.finish()
			}
		})
	}, brokenOff, repeats},
	{"send a record twice", func(w *world, at place) func(*flow, piece) bool {
		return replaced(at, func(_ *flow, p piece) []byte { return append(bytes.Clone(p.b), p.b...) })
	}, noticedOrLate, orders},
	{"swap a record with its neighbour", func(w *world, at place) func(*flow, piece) bool {
		if at.index == last {
			at.index--
		}
		var held []byte
		hold := at.on(kindRecord, func(_ *flow, p piece) { held = bytes.Clone(p.b) })
		next := place{at.up, at.further, at.index + 1}.on(kindRecord, func(f *flow, p piece) { f.send(append(bytes.Clone(p.b), held...)) })
		return func(f *flow, p piece) bool { return hold(f, p) || next(f, p) }
	}, noticed, orders},
	{"hold a record back for a while", func(w *world, at place) func(*flow, piece) bool {
		return at.on(kindRecord, func(f *flow, p piece) {
			w.pause(300 * time.Millisecond)
			f.send(p.b)
		})
	}, healed, damages},
	{"hold all back from a record on", func(w *world, at place) func(*flow, piece) bool {
		w.readFor = 3 * time.Second
		return at.always(w, func(*flow, piece) {})
	}, given(ends), repeats},
	{"end a stream within a record", func(w *world, at place) func(*flow, piece) bool {
		return at.on(kindRecord, func(f *flow, p piece) {
			f.send(p.b[:1+w.rnd.IntN(len(p.b)-1)])
			f.end()
		})
	}, healed, damages},
	{"end a stream before a record", func(w *world, at place) func(*flow, piece) bool {
		return at.on(kindRecord, func(f *flow, p piece) { f.end() })
	}, healed, damages},
	{"end a stream, again and again", func(w *world, at place) func(*flow, piece) bool {
		return at.always(w, func(f *flow, p piece) { f.end() })
	}, brokenOff, repeats},
	{"reset a stream before a record", func(w *world, at place) func(*flow, piece) bool {
		return at.on(kindRecord, func(f *flow, p piece) { f.hop.reset(wire.CodeCancelled) })
	}, healed, damages},
	{"reset a stream as if it had ended in order", func(w *world, at place) func(*flow, piece) bool {
		return at.on(kindRecord, func(f *flow, p piece) {
			f.send(p.b)
			f.hop.reset(wire.CodeNone)
		})
	}, healed, damages},
	{"reset a stream, again and again", func(w *world, at place) func(*flow, piece) bool {
		return at.always(w, func(f *flow, p piece) { f.hop.reset(wire.CodeCancelled) })
	}, given(ends), repeats},
	{"reflect a record to its sender", func(w *world, at place) func(*flow, piece) bool {
		return at.on(kindRecord, func(f *flow, p piece) {
			f.hop.half(!f.up).send(p.b)
			f.send(p.b)
		})
	}, func(at place) want {
		if at.up {
			return tampered(false, e2e.ErrTampered)
		}
		return tampered(false, e2e.ErrTampered).or(whole) // the server has read the whole request by then
	}, damages},
	{"reflect a record of the other half", func(w *world, at place) func(*flow, piece) bool {
		return replaced(at, func(f *flow, _ piece) []byte { return w.relay.stored(f.hop.attachment, 1, !at.up, at.index) })
	}, noticed, damages},
	{"replay a record of its own half", func(w *world, at place) func(*flow, piece) bool {
		return replaced(at, func(f *flow, p piece) []byte {
			return append(bytes.Clone(p.b), w.relay.stored(f.hop.attachment, victim, at.up, 0)...)
		})
	}, noticedOrLate, orders},
	{"replay a record of another stream of the session", func(w *world, at place) func(*flow, piece) bool {
		return replaced(at, func(f *flow, _ piece) []byte { return w.relay.stored(f.hop.attachment, 1, at.up, at.index) })
	}, noticed, damages},
	{"replay a record of another session", func(w *world, at place) func(*flow, piece) bool {
		return replaced(at, func(f *flow, _ piece) []byte { return w.relay.stored(2, 1, at.up, at.index) })
	}, noticed, damages},
	{"make a record up", func(w *world, at place) func(*flow, piece) bool {
		return replaced(at, func(_ *flow, p piece) []byte { return junk(w, p) })
	}, noticed, damages},
	{"make up a record that goes before another", func(w *world, at place) func(*flow, piece) bool {
		return replaced(at, func(_ *flow, p piece) []byte { return append(junk(w, p), p.b...) })
	}, noticed, damages},
	{"say that a record is the stream's last", func(w *world, at place) func(*flow, piece) bool {
		return at.on(kindRecord, func(f *flow, p piece) {
			b := bytes.Clone(p.b)
			b[len(b)-17] ^= 1 ^ 2 // where the type stands that makes DATA an END
			f.send(b)
			f.end()
		})
	}, noticed, damages},
	{"put a record of the control stream among the data", func(w *world, at place) func(*flow, piece) bool {
		return replaced(at, func(f *flow, p piece) []byte {
			control := f.hop.relay.find(func(h *hopStream) bool { return h.attachment == f.hop.attachment })
			b := bytesOf(control.half(at.up).pieces())[1:]
			binary.BigEndian.PutUint16(b, uint16(len(p.b)-recordHeader))
			return append(b[:len(p.b):len(p.b)], p.b...)
		})
	}, noticed, damages},
}

// pause waits, unless the world ends.
func (w *world) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-w.ctx.Done():
	}
}

// threeStreams is the conversation of an attack on the victim.
func threeStreams(hook func(w *world) func(*flow, piece) bool, others int) func(w *world) error {
	return func(w *world) error {
		w.relay.pass = hook(w)
		h := w.addHome()
		d := w.addDevice(h)
		if err := d.connect(); err != nil {
			return err
		}
		for range others {
			o := w.addDevice(h)
			if err := together(o.connect, func() error { return nil }); err != nil {
				return err
			}
			if err := o.ask(1); err != nil {
				return err
			}
		}
		return d.askAll(1, victim, 3)
	}
}

// attacksOnRecords tries everything at every place.
func attacksOnRecords() (all []attack) {
	for _, a := range recordAttacks {
		for _, up := range []bool{true, false} {
			for _, p := range places {
				all = append(all, a.at(place{up: up, index: p.index}))
			}
			if a.sort != repeats {
				all = append(all, a.at(place{up: up, further: true, index: chunks / 2}), a.at(place{up: up, further: true, index: last}))
			}
		}
	}
	return all
}

// at makes the attack at a place.
func (a recordAttack) at(at place) attack {
	want := a.want(at)
	if at.further && a.sort == orders {
		want = want.or(whole)
	}
	return attack{a.name, at.String(), want, threeStreams(func(w *world) func(*flow, piece) bool {
		hook := a.hook(w, at)
		if !at.further {
			return hook
		}
		lose := loseFirst(at.up)
		return func(f *flow, p piece) bool { return lose(f, p) || hook(f, p) }
	}, 1)}
}
