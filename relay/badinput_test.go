package relay

import (
	"bytes"
	"encoding/binary"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// frame builds a frame of any type and payload.
func frame(t byte, payload []byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{t}, uint16(len(payload))), payload...)
}

// bad is what no stream may begin with, whatever is due on it.
var bad = map[string]struct {
	text []byte
	code wire.Code
}{
	"an unknown type":             {frame(0x55, []byte("hello")), wire.CodeProtocol},
	"zeros":                       {make([]byte, 100), wire.CodeProtocol},
	"HTTP":                        {[]byte("GET / HTTP/1.1\r\n\r\n"), wire.CodeProtocol},
	"a frame of the relay":        {wire.Goodbye{}.Append(nil), wire.CodeProtocol},
	"too large an optional one":   {frame(0x80, make([]byte, wire.MaxOptionalPayload+1)), wire.CodeFrameTooLarge},
	"too many optional ones":      {bytes.Repeat(frame(0x80, nil), wire.MaxOptionalFrames+1), wire.CodeProtocol},
	"an optional one and no more": {frame(0x80, nil), wire.CodeProtocol}, // the stream ends behind it
	"the end":                     {nil, wire.CodeProtocol},
	"half a header":               {[]byte{1, 0}, wire.CodeProtocol},
}

// due is what is due on a stream, and how it can be wrong.
var due = map[string]struct {
	agent bool
	first []byte // on the control stream
	text  map[string][]byte
	large []byte // longer than its type allows
}{
	"HELLO of a device": {
		text: map[string][]byte{
			"short": frame(1, []byte{0}), "versions upside down": frame(1, []byte{3, 2}),
			"OPEN": wire.Open{}.Append(nil), "cut": {1, 0, 2, 0},
		},
		large: frame(1, make([]byte, 65)),
	},
	"REGISTER": {
		agent: true, first: wire.Hello{}.Append(nil),
		text: map[string][]byte{
			"short": frame(3, []byte{0}), "fewer tokens than it says": frame(3, append(make([]byte, 16), 0, 2, 1, 2, 3)),
			"HELLO": wire.Hello{}.Append(nil), "cut": wire.Register{Tokens: make([]wire.TokenHash, 2)}.Append(nil)[:40],
		},
		large: frame(3, make([]byte, wire.MaxPayload+1)),
	},
	"REGISTER again": {
		agent: true, first: append(wire.Hello{}.Append(nil), wire.Register{}.Append(nil)...),
		text: map[string][]byte{
			"short": frame(3, []byte{0}), "OPEN": wire.Open{}.Append(nil),
			"cut":              wire.Register{Tokens: make([]wire.TokenHash, 2)}.Append(nil)[:40],
			"another instance": wire.Register{Instance: wire.Instance{1}}.Append(nil),
			"a short MEASURE":  frame(8, make([]byte, 36)),
		},
		large: frame(3, make([]byte, wire.MaxPayload+1)),
	},
}

// TestBadFrames says what is wrong on each stream of a session on which
// something is due. The session is closed with a code; another one goes on.
func TestBadFrames(t *testing.T) {
	for name, d := range due {
		try := func(what string, text []byte, code wire.Code) {
			t.Run(name+"/"+what, func(t *testing.T) {
				simulate(t, admitAll, func(w *world) {
					other := w.stream()
					s := w.endpoint(d.agent)
					if name == "REGISTER again" {
						w.say(s, d.first)
						w.say(s, text).CloseWrite()
					} else {
						w.say(s, append(d.first, text...)).CloseWrite()
					}
					begin := time.Now()
					wantClosed(t, s, code)
					if took := time.Since(begin); took > 10*oneWay {
						t.Errorf("cut after %v", took)
					}
					wantCount(t, "sessions ended", w.relay.metrics.sessionsEnded, code, 1)
					w.wantAlive(other)
				})
			})
		}
		for what, text := range d.text {
			try(what, text, wire.CodeProtocol)
		}
		try("too large", d.large, wire.CodeFrameTooLarge)
		for what, b := range bad {
			try(what, b.text, b.code)
		}
	}
}

func TestBadVersion(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		s := w.endpoint(false)
		w.say(s, wire.Hello{MinVersion: wire.MaxVersion + 1, MaxVersion: 255}.Append(nil))
		wantClosed(t, s, wire.CodeVersion)
	})
}

// TestOptionalFrames are skipped, and longer payloads than today's are taken.
func TestOptionalFrames(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		a, route := w.agent()
		s := w.endpoint(false)
		skip := frame(0xfe, make([]byte, wire.MaxOptionalPayload))
		w.say(s, append(skip, frame(1, []byte{0, 9, 1, 2, 3})...))
		open := wire.Open{Route: route, Token: token}.Append(nil)[wire.HeaderLen:]
		w.say(s, append(bytes.Repeat(skip, wire.MaxOptionalFrames), frame(5, append(open, "more"...))...))
		if _, err := a.Accept(w.ctx()); err != nil {
			t.Error(err)
		}
	})
}

// TestBadOpen says what is wrong where OPEN is due: the stream is reset with a
// code, the session and its other streams go on.
func TestBadOpen(t *testing.T) {
	try := func(what string, text []byte, code wire.Code) {
		t.Run(what, func(t *testing.T) {
			simulate(t, admitAll, func(w *world) {
				a, route := w.agent()
				s := w.endpoint(false)
				w.say(s, wire.Hello{}.Append(nil))
				st := w.say(s, text)
				st.CloseWrite()
				wantReset(t, st, code)
				wantCount(t, "streams refused", w.relay.metrics.streamsRefused, code, 1)
				w.say(s, wire.Open{Route: route, Token: token}.Append(nil))
				if _, err := a.Accept(w.ctx()); err != nil {
					t.Errorf("the session does not go on: %v", err)
				}
			})
		})
	}
	for what, b := range bad {
		try(what, b.text, b.code)
	}
	try("short", frame(5, make([]byte, 31)), wire.CodeProtocol)
	try("HELLO", wire.Hello{}.Append(nil), wire.CodeProtocol)
	try("cut", wire.Open{}.Append(nil)[:34], wire.CodeProtocol)
	try("too large", frame(5, make([]byte, 129)), wire.CodeFrameTooLarge)
	try("a MEASURE without direction", frame(8, append([]byte{2}, make([]byte, 36)...)), wire.CodeProtocol)
	try("too large a MEASURE", wire.Measure{Bytes: wire.MaxMeasure + 1}.Append(nil), wire.CodeProtocol)
}

func TestResetBeforeOpen(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		s := w.endpoint(false)
		w.say(s, wire.Hello{}.Append(nil))
		w.say(s, []byte{5}).Reset(wire.CodeCancelled)
		time.Sleep(time.Second)
		wantCount(t, "streams refused", w.relay.metrics.streamsRefused, wire.CodeCancelled, 1)
		w.say(s, []byte{5})
		time.Sleep(time.Second)
		s.Close(wire.CodeNone, "")
		time.Sleep(time.Second)
		wantCount(t, "streams refused", w.relay.metrics.streamsRefused, wire.CodeDeviceGone, 1)
		wantCount(t, "sessions ended", w.relay.metrics.sessionsEnded, wire.CodeNone, 1)
	})
}

// wantAlive passes a byte through a stream each way.
func (w *world) wantAlive(s stream) {
	w.t.Helper()
	for _, half := range [][2]interface {
		Read([]byte) (int, error)
		Write([]byte) (int, error)
	}{{s.device, s.agent}, {s.agent, s.device}} {
		var b [1]byte
		half[0].Write([]byte{42})
		if _, err := half[1].Read(b[:]); err != nil || b[0] != 42 {
			w.t.Errorf("another session does not go on: %v", err)
		}
	}
}

// FuzzSession says anything on a control stream and on one more, in pieces.
// Whatever it is, the relay answers in time and serves others.
func FuzzSession(f *testing.F) {
	hello, register := wire.Hello{}.Append(nil), wire.Register{Tokens: make([]wire.TokenHash, 1)}.Append(nil)
	f.Add(true, append(hello, register...), register, uint8(0))
	f.Add(false, hello, wire.Open{Token: token}.Append([]byte{}), uint8(3))
	for _, b := range bad {
		f.Add(false, b.text, b.text, uint8(1))
		f.Add(true, append(hello, b.text...), b.text, uint8(1))
	}
	f.Fuzz(func(t *testing.T, agent bool, control, next []byte, piece uint8) {
		simulate(t, admitAll, func(w *world) {
			other := w.stream()
			s := w.endpoint(agent)
			for _, text := range [][]byte{control, next} {
				st, err := s.OpenStream(w.ctx())
				if err != nil {
					break // closed for what came before
				}
				for len(text) > 0 && err == nil {
					n := min(len(text), int(piece)+1)
					_, err = st.Write(text[:n])
					text = text[n:]
				}
			}
			time.Sleep(Patience + time.Second)
			synctest.Wait()
			if agent && s.Err() == nil && w.relay.registry.size() != 2 {
				t.Error("an agent is neither registered nor closed")
			}
			w.wantAlive(other)
		})
	})
}
