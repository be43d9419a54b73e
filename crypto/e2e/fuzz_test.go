package e2e

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"
)

func FuzzOpenPreface(f *testing.F) {
	r := shortTalk(f, suites()[0])
	f.Add(r.up[:openPrefaceLen])
	f.Add([]byte{kindSealed})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseOpenPreface(b)
		if err != nil {
			return
		}
		if p.id > maxStreamID || len(b) != openPrefaceLen {
			t.Fatalf("accepted %x", b)
		}
		_, _, err = p.verify(r.s.suite, r.s.secret)
		if authentic := bytes.Equal(b, r.up[:openPrefaceLen]); authentic != (err == nil) || !authentic && err != ErrSpliced {
			t.Fatalf("%x: %v", b, err)
		}
	})
}

// FuzzHalves feeds anything to both kinds of readers: only the authentic bytes
// read as a whole, and nothing but a part of the content is ever handed out.
func FuzzHalves(f *testing.F) {
	r := shortTalk(f, suites()[0])
	for _, h := range r.halves() {
		f.Add(h.bytes)
		f.Add(h.bytes[:len(h.bytes)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, h := range r.halves() {
			got, err := h.replay(b)
			if bytes.Equal(b, h.bytes) != (err == nil) || !bytes.HasPrefix(h.content, got) {
				t.Fatalf("%s's half: read %q, %v of %x", h.name, got, err, b)
			}
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte{1, 0, 2, 3, 4})
	f.Add([]byte{1, 0x10, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		fr, err := ReadFrame(r)
		if err != nil {
			if !errors.Is(err, ErrFrame) && err != io.EOF && err != io.ErrUnexpectedEOF {
				t.Fatal(err)
			}
			return
		}
		var w bytes.Buffer
		if err := WriteFrame(&w, fr); err != nil || !bytes.Equal(w.Bytes(), b[:len(b)-r.Len()]) {
			t.Fatalf("%x became %x, %v", b, w.Bytes(), err)
		}
	})
}

func FuzzWelcome(f *testing.F) {
	f.Add((&Welcome{MaxStreams: 7, Idle: time.Minute, Relays: []string{"a:1", "ü"}}).payload())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := parseWelcome(b)
		if err != nil {
			return
		}
		if err := w.check(); err != nil {
			t.Fatal(err)
		}
		p := w.payload()
		if !bytes.HasPrefix(b[1:], p[1:]) {
			t.Fatalf("%x became %x", b, p)
		}
	})
}

func FuzzPin(f *testing.F) {
	f.Add(Pin{1, 2, 3}.String())
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParsePin(s); err == nil && p.String() != s {
			t.Fatalf("%q is also %q", s, p)
		}
	})
}
