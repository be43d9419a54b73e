package hostile

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// editHello replaces 16-bit values behind the random bytes of a hello.
func editHello(b []byte, from, to string) []byte {
	const fixed = tlsHeader + 4 + 2 + 32 // up to the session identifier, which is as long in both
	b = bytes.Clone(b)
	rest := b[fixed+1+32:]
	copy(rest, bytes.ReplaceAll(rest, []byte(from), []byte(to)))
	return b
}

// lie is what a relay says in the place of a frame.
type lie struct {
	name string
	code wire.Code // what the endpoint calls it
	say  func(st *end, t wire.FrameType) []byte
}

var lies = []lie{
	{"an unknown frame", wire.CodeProtocol, func(*end, wire.FrameType) []byte { return []byte{0x70, 0, 0} }},
	{"an endpoint's frame", wire.CodeProtocol, func(*end, wire.FrameType) []byte { return wire.Hello{}.Append(nil) }},
	{"too short", wire.CodeProtocol, func(_ *end, t wire.FrameType) []byte { return []byte{byte(t), 0, 0} }},
	{"too long", wire.CodeFrameTooLarge, func(_ *end, t wire.FrameType) []byte { return []byte{byte(t), 0xff, 0xff} }},
	{"optional frames without end", wire.CodeProtocol, func(*end, wire.FrameType) []byte { return bytes.Repeat([]byte{0x80, 0, 0}, 20) }},
	{"the end of the stream", wire.CodeProtocol, func(st *end, _ wire.FrameType) []byte { st.CloseWrite(); return nil }},
	{"the end of the stream within it", wire.CodeProtocol, func(st *end, t wire.FrameType) []byte {
		st.Write([]byte{byte(t)})
		st.CloseWrite()
		return nil
	}},
	{"a reset", wire.CodeProtocol, func(st *end, _ wire.FrameType) []byte { st.Reset(wire.CodeInternal); return nil }},
	{"random bytes", wire.CodeProtocol, func(*end, wire.FrameType) []byte { return []byte{0x5a, 0xc3, 0x11, 0x08, 0x9e} }},
}

// said is a frame that the relay itself says.
type said struct {
	to   listener
	t    wire.FrameType
	name string
}

var saids = []said{
	{toDevice, wire.FrameWelcome, "WELCOME, to the device"},
	{toAgent, wire.FrameWelcome, "WELCOME, to the server"},
	{toAgent, wire.FrameRegistered, "REGISTERED, to the server"},
	{toDevice, wire.FrameGoodbye, "GOODBYE, to the device"},
	{toAgent, wire.FrameGoodbye, "GOODBYE, to the server"},
	{toDevice, wire.FrameLimit, "LIMIT, to the device"},
	{toAgent, wire.FrameLimit, "LIMIT, to the server"},
	{toAgent, wire.FrameReceipt, "RECEIPT, to the server"},
}

// attacksInFrames lies in every frame of the relay's own.
func attacksInFrames() (all []attack) {
	add := func(name, position string, want want, run func(w *world) error) {
		all = append(all, attack{name, position, want, run})
	}
	for _, s := range saids {
		for _, l := range lies {
			if s.t == wire.FrameReceipt && l.name == "too short" {
				continue // an empty one is one
			}
			add("lie in a frame of the relay's own", s.name+": "+l.name, leaves(l.code), lyingTalk(s, func(st *end) []byte { return l.say(st, s.t) }))
		}
	}
	for _, s := range saids[:2] {
		wrong := wire.Welcome{Version: wire.MaxVersion + 1}.Append(nil)
		add("lie in a frame of the relay's own", s.name+": another version", leaves(wire.CodeProtocol), lyingTalk(s, func(*end) []byte { return wrong }))
	}
	other := wire.Registered{Route: wire.Route{99}}.Append(nil)
	add("lie in a frame of the relay's own", saids[2].name+": another server's route", whole, lyingTalk(saids[2], func(*end) []byte { return other }))
	for _, code := range wire.Codes() {
		bye := wire.Goodbye{Code: code, Text: "\x1b[2J, it was your fault"}.Append(nil)
		for _, s := range saids[3:5] {
			add("say GOODBYE", s.name+": "+code.String(), leaves(code), lyingTalk(s, func(*end) []byte { return bye }))
		}
		refusal := reset(code)
		if code == wire.CodeRefused {
			refusal = refused(e2e.ErrHandshake)
		}
		add("refuse a device", "the session's first stream: "+code.String(), refusal, refusing(code))
		add("reset a stream with a false reason", code.String(), whole, threeStreams(func(w *world) func(*flow, piece) bool {
			return place{index: chunks / 2}.on(kindRecord, func(f *flow, _ piece) { f.hop.reset(code) })
		}, 0))
	}
	all = append(all, attacksInLimits()...)
	for n := range 3 { // of control, of data, of the next data
		for _, l := range lies {
			add("lie in a frame of the relay's own", fmt.Sprintf("INCOMING, stream %d, to the server: %s", n, l.name), misled, incoming(n, l))
		}
	}
	add("lie about who a stream is from", "a number of its own for each stream", ends, marking(func(h *hopStream) int { return 1000 + h.n }))
	add("lie about who a stream is from", "one number for two devices", whole, marking(func(*hopStream) int { return 7 }))
	add("lie about who a stream is from", "another device's number, once", whole, func(w *world) error {
		var done atomic.Bool
		return marking(func(h *hopStream) int {
			if h.attachment == 1 && h.n > 0 && !done.Swap(true) {
				return 2
			}
			return h.attachment
		})(w)
	})
	add("lie about who a stream is from", "another device's number for all data", ends, marking(func(h *hopStream) int {
		if h.attachment == 1 && h.n > 0 {
			return 2
		}
		return h.attachment
	}))
	return all
}

// misled wants an endpoint to refuse a stream, and all to arrive over another.
var misled = want{"the stream is refused, all arrives", func(o outcome) bool { return o.stream != nil && o.device == nil }}

// talkAgain has a device ask that tries again what the relay has spoilt.
func talkAgain(w *world) error {
	d := w.addDevice(w.addHome())
	var err error
	for range attempts {
		if err = d.connect(); err == nil {
			return d.askAll(1, 2)
		}
		if d.session != nil {
			d.session.Close(wire.CodeCancelled, "")
		}
		w.pause(retryAfter) // the agent may be on its way back
	}
	return err
}

// lyingTalk says something else in the place of a frame, once.
func lyingTalk(s said, lie func(st *end) []byte) func(w *world) error {
	return func(w *world) error {
		var done atomic.Bool
		w.relay.says = func(st *end, to listener, t wire.FrameType, b []byte) []byte {
			if to != s.to || t != s.t || done.Swap(true) {
				return b
			}
			w.relay.struck.Store(true)
			return lie(st)
		}
		err := talkAgain(w)
		select { // it may have been said beside the talk
		case <-w.left:
		case <-time.After(patience):
		}
		return err
	}
}

// incoming lies to the server in what stands before the n-th stream.
func incoming(n int, l lie) func(w *world) error {
	return func(w *world) error {
		var count atomic.Int64
		w.relay.says = func(st *end, to listener, t wire.FrameType, b []byte) []byte {
			if t != wire.FrameIncoming || count.Add(1) != int64(n)+1 {
				return b
			}
			w.relay.struck.Store(true)
			return l.say(st, t)
		}
		return talkAgain(w)
	}
}

// refusing resets a device's streams with a code.
func refusing(code wire.Code) func(w *world) error {
	return func(w *world) error {
		w.relay.meets = func(h *hopStream) bool {
			w.relay.struck.Store(true)
			h.device.Reset(code)
			return true
		}
		return w.addDevice(w.addHome()).connect()
	}
}

// marking tells the server which attachment streams are from.
func marking(number func(h *hopStream) int) func(w *world) error {
	return func(w *world) error {
		w.readFor = persistence
		w.relay.marks = func(h *hopStream) uint64 {
			n := number(h)
			if n != h.attachment {
				w.relay.struck.Store(true)
			}
			return uint64(n)
		}
		h := w.addHome()
		a, b := w.addDevice(h), w.addDevice(h)
		if err := a.connect(); err != nil {
			return err
		}
		if err := b.connect(); err != nil {
			return err
		}
		return together(func() error { return a.askAll(1, 2) }, func() error { return b.ask(1) })
	}
}
