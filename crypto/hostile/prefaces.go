package hostile

import (
	"bytes"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// Fields of the prefaces of crypto/DESIGN.md, section 5.
type field struct {
	name     string
	from, to int
}

var (
	openFields    = []field{{"kind", 0, 1}, {"stream number", 1, 9}, {"salt", 9, 33}, {"commit", 33, 65}}
	acceptFields  = []field{{"kind", 0, 1}, {"salt", 1, 25}, {"commit", 25, 57}}
	furtherFields = []field{{"carrier number", 0, 4}, {"gone", 4, 8}, {"next", 8, 16}, {"MAC", 16, 48}}
)

// prefaceFields returns those of one preface.
func prefaceFields(up, further bool) (all []field) {
	fields, n := acceptFields, acceptLen
	if up {
		fields, n = openFields, openLen
	}
	all = append(all, fields...)
	if further {
		for _, f := range furtherFields {
			all = append(all, field{f.name, n + f.from, n + f.to})
		}
	}
	return all
}

// onPreface is an attack on the preface of the victim's first carrier, or of a
// further one.
func onPreface(name, position string, up, further bool, want want, do func(w *world, f *flow, p piece)) attack {
	at := place{up: up, further: further}
	if up {
		position += ", to the server"
	} else {
		position += ", to the device"
	}
	run := threeStreams(func(w *world) func(*flow, piece) bool {
		w.readFor = persistence
		hook := at.on(kindPreface, func(f *flow, p piece) { do(w, f, p) })
		if !further {
			return hook
		}
		lose := loseFirst(false)
		return func(f *flow, p piece) bool { return lose(f, p) || hook(f, p) }
	}, 1)
	return attack{name, position, want, run}
}

// loseFirst resets the victim's first carrier in the middle of a half.
func loseFirst(up bool) func(*flow, piece) bool {
	return place{up: up, index: chunks / 2}.on(kindRecord, func(f *flow, _ piece) {
		f.hop.reset(wire.CodeCancelled)
		f.hop.relay.struck.Store(false) // this was only the occasion
	})
}

func attacksOnPrefaces() (all []attack) {
	for _, further := range []bool{false, true} {
		name, which := "flip a bit of a stream's beginning", "preface"
		if further {
			name, which = "flip a bit of a resumed stream's beginning", "further preface"
		}
		for _, up := range []bool{true, false} {
			want := whole // what the agent does not take, the device tries again
			if !up {
				want = tampered(false, e2e.ErrSpliced)
			}
			for _, field := range prefaceFields(up, further) {
				all = append(all, onPreface(name, which+" "+field.name, up, further, want, func(w *world, f *flow, p piece) {
					f.send(flip(w, p.b, field.from, field.to))
				}))
			}
			all = append(all,
				onPreface("drop a stream's beginning", which, up, further, want.or(ends), func(*world, *flow, piece) {}),
				onPreface("send a stream's beginning twice", which, up, further, tampered(up, e2e.ErrTampered).or(whole), func(_ *world, f *flow, p piece) {
					f.send(append(bytes.Clone(p.b), p.b...))
				}),
				onPreface("end a stream in its beginning", which, up, further, whole, func(w *world, f *flow, p piece) {
					f.send(p.b[:w.rnd.IntN(len(p.b))])
					f.end()
				}),
				onPreface("reset a stream in its beginning", which, up, further, whole, func(w *world, f *flow, p piece) {
					f.send(p.b[:w.rnd.IntN(len(p.b))])
					f.hop.reset(wire.CodeCancelled)
				}),
				onPreface("hold a stream's beginning back for a while", which, up, further, whole, func(w *world, f *flow, p piece) {
					w.pause(300 * time.Millisecond)
					f.send(p.b)
				}),
			)
		}
	}
	return all
}
