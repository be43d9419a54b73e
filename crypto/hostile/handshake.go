package hostile

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// message is a TLS record of a control stream. TLS 1.3 as Go speaks it puts
// each message of a handshake into a record of its own, so a relay can count
// although it cannot read.
type message struct {
	up    bool
	index int
	name  string
}

const (
	hello       = 0 // ClientHello, ServerHello
	compatible  = 1 // ChangeCipherSpec, which means nothing in TLS 1.3
	upFrames    = 5 // the first frame to the server
	downWelcome = 7
	downFrames  = 8
)

var messages = []message{
	{true, 0, "ClientHello"}, {true, 1, "ChangeCipherSpec"}, {true, 2, "Certificate"}, {true, 3, "CertificateVerify"}, {true, 4, "Finished"},
	{false, 0, "ServerHello"}, {false, 1, "ChangeCipherSpec"}, {false, 2, "EncryptedExtensions"}, {false, 3, "CertificateRequest"},
	{false, 4, "Certificate"}, {false, 5, "CertificateVerify"}, {false, 6, "Finished"}, {false, 7, "WELCOME"},
}

// linked are the frames that a link has later.
var linked = []message{{true, upFrames, "frame"}, {false, downFrames, "frame"}}

func (m message) String() string {
	if m.up {
		return m.name + ", to the server"
	}
	return m.name + ", to the device"
}

// tlsAttack is what a relay can do to a TLS record.
type tlsAttack struct {
	name string
	do   func(w *world, f *flow, p piece)
	// harmless tells for which messages all may arrive: those that mean nothing,
	// and where nothing is lost.
	harmless func(m message) bool
}

func never(message) bool       { return false }
func ever(message) bool        { return true }
func unheeded(m message) bool  { return m.index == compatible }
func late(m message) bool      { return unheeded(m) || !m.up && m.index == downWelcome } // the session is there
func reordered(m message) bool { return m.index <= compatible }

var tlsAttacks = []tlsAttack{
	{"flip a bit", func(w *world, f *flow, p piece) { f.send(flip(w, p.b, tlsHeader, len(p.b))) }, never},
	{"drop a message", func(*world, *flow, piece) {}, unheeded},
	{"send a message twice", func(_ *world, f *flow, p piece) { f.send(append(bytes.Clone(p.b), p.b...)) }, late},
	{"hold a message back for a while", func(w *world, f *flow, p piece) {
		w.pause(300 * time.Millisecond)
		f.send(p.b)
	}, ever},
	{"end the stream within a message", func(w *world, f *flow, p piece) {
		f.send(p.b[:1+w.rnd.IntN(len(p.b)-1)])
		f.end()
	}, never},
	{"end the stream before a message", func(_ *world, f *flow, p piece) { f.end() }, never},
	{"reset the stream before a message", func(_ *world, f *flow, p piece) { f.hop.reset(wire.CodeCancelled) }, never},
	{"reflect a message to its sender", func(_ *world, f *flow, p piece) {
		f.hop.half(!f.up).send(p.b)
		f.send(p.b)
	}, late},
	{"make a message up", func(w *world, f *flow, p piece) {
		b := bytes.Clone(p.b)
		for i := tlsHeader; i < len(b); i++ {
			b[i] ^= byte(1 + w.rnd.IntN(255))
		}
		f.send(b)
	}, never},
	{"replay a message of another session", func(w *world, f *flow, p piece) {
		for _, o := range w.relay.find(func(h *hopStream) bool { return h.control() }).half(f.up).pieces() {
			if o.kind == kindTLS && o.index == p.index {
				f.send(o.b)
			}
		}
	}, unheeded},
}

// swapped holds a message back until the next one has passed.
func swapped(match func(f *flow) bool, m message) func(*flow, piece) bool {
	var held []byte
	return func(f *flow, p piece) bool {
		if p.kind != kindTLS || f.up != m.up || !match(f) {
			return false
		}
		switch p.index {
		case m.index:
			held = bytes.Clone(p.b)
			return true
		case m.index + 1:
			f.hop.relay.struck.Store(true)
			f.send(append(bytes.Clone(p.b), held...))
			return true
		}
		return false
	}
}

// onMessage does something to a message of the control stream of an attachment,
// once.
func onMessage(w *world, attachment int, m message, do func(w *world, f *flow, p piece)) func(*flow, piece) bool {
	var done atomic.Bool
	return func(f *flow, p piece) bool {
		if p.kind != kindTLS || p.index != m.index || f.up != m.up || f.hop.attachment != attachment || done.Swap(true) {
			return false
		}
		w.relay.struck.Store(true)
		do(w, f, p)
		return true
	}
}

// attacksOnHandshakes does everything to every message of the handshake that
// makes a session, of one that goes on with it, and to frames of a link.
func attacksOnHandshakes() (all []attack) {
	for _, a := range tlsAttacks {
		for _, m := range messages {
			all = append(all, a.beginning(m), a.joining(m))
		}
		for _, m := range linked {
			all = append(all, attack{a.name, m.String(), whole, linkTalk(func(w *world) func(*flow, piece) bool {
				return onMessage(w, 2, m, a.do)
			})})
		}
	}
	for _, m := range messages {
		switch {
		case m.up && (m.index == hello || m.index == upFrames-1), !m.up && m.index >= downWelcome-1:
			continue // nothing follows before there is an answer
		}
		want := handshakeFails
		if reordered(m) {
			want = want.or(whole)
		}
		all = append(all, attack{"swap two messages", m.String() + ", new session", want, secondSession(func(w *world) func(*flow, piece) bool {
			return swapped(func(f *flow) bool { return f.hop.attachment == 2 && f.hop.control() }, m)
		})})
	}
	return all
}

// handshakeFails wants no session, and the person to be told of a handshake
// that failed, of a reset, or of an answer that never came.
var handshakeFails = want{"ErrHandshake, a reset, or a time-out", func(o outcome) bool {
	return refused(e2e.ErrHandshake).holds(o) || isDeadline(o.device) || isReset(o.device)
}}

// beginning is the attack on the handshake of a new session.
func (a tlsAttack) beginning(m message) attack {
	want := handshakeFails
	switch {
	case a.harmless(m):
		want = whole
	case m.up && m.index == upFrames-1:
		want = want.or(whole) // by what comes behind it the session may be there
	}
	return attack{a.name, m.String() + ", new session", want, secondSession(func(w *world) func(*flow, piece) bool {
		return onMessage(w, 2, m, a.do)
	})}
}

// joining is the attack on the handshake that takes a session to another
// connection: the device tries again, and the session loses nothing.
func (a tlsAttack) joining(m message) attack {
	return attack{a.name, m.String() + ", resumed session", whole, linkTalk(func(w *world) func(*flow, piece) bool {
		lose := loseLink(2)
		hit := onMessage(w, 3, m, a.do)
		return func(f *flow, p piece) bool { return lose(f, p) || hit(f, p) }
	})}
}

// loseLink resets the link of an attachment in the middle of an answer.
func loseLink(attachment int) func(*flow, piece) bool {
	var done atomic.Bool
	return func(f *flow, p piece) bool {
		if stream, _, ok := f.hop.sealed(); !ok || f.up || stream != victim || p.kind != kindRecord || p.index != chunks/2 || f.hop.attachment != attachment || done.Swap(true) {
			return false
		}
		f.hop.relay.find(func(h *hopStream) bool { return h.attachment == attachment && h.control() }).reset(wire.CodeCancelled)
		f.hop.reset(wire.CodeCancelled) // so that the answer needs the next link
		return true
	}
}

// secondSession lets one device talk, for the relay to learn from, and then
// another one, on attachment 2.
func secondSession(hook func(w *world) func(*flow, piece) bool) func(w *world) error {
	return func(w *world) error {
		w.relay.pass = hook(w)
		h := w.addHome()
		first, second := w.addDevice(h), w.addDevice(h)
		if err := first.connect(); err != nil {
			return fmt.Errorf("the first device: %w", err)
		}
		if err := first.ask(1); err != nil {
			return fmt.Errorf("the first device: %w", err)
		}
		if err := second.connect(); err != nil {
			return err
		}
		return second.ask(1)
	}
}

// linkTalk is secondSession with more to say.
func linkTalk(hook func(w *world) func(*flow, piece) bool) func(w *world) error {
	talk := secondSession(hook)
	return func(w *world) error {
		if err := talk(w); err != nil {
			return err
		}
		return w.devices[1].askAll(victim, 3)
	}
}
