package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// demand fails the test unless an attack was noticed as such, before any
// content that the other endpoint did not write at that place.
func demand(t *testing.T, what string, h recordedHalf, got []byte, err error) {
	t.Helper()
	if !errors.Is(err, ErrTampered) {
		t.Fatalf("%s, %s's half: error %v, want ErrTampered", what, h.name, err)
	}
	if !bytes.HasPrefix(h.content, got) {
		t.Fatalf("%s, %s's half: read content that was not sent", what, h.name)
	}
}

func shortTalk(t testing.TB, su *suite) *recording {
	body := bytes.Repeat([]byte("0123456789"), 40)
	return record(t, fakeSession(t, su), 3, [][]byte{[]byte("GET /film"), body}, [][]byte{[]byte("200 OK"), body, body})
}

func TestEveryFlippedByteIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, su := range suites() {
			for _, h := range shortTalk(t, su).halves() {
				if got, err := h.replay(h.bytes); err != nil || !bytes.Equal(got, h.content) {
					t.Fatalf("the untouched %s's half: %d bytes, %v", h.name, len(got), err)
				}
				for i := range h.bytes {
					for _, mask := range []byte{1, 0x80, 0xff} {
						b := bytes.Clone(h.bytes)
						b[i] ^= mask
						got, err := h.replay(b)
						demand(t, "flip", h, got, err)
					}
				}
			}
		}
	})
}

func TestEveryCutIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, h := range shortTalk(t, suites()[0]).halves() {
			for n := range h.bytes {
				got, err := h.replay(h.bytes[:n])
				demand(t, "cut", h, got, err)
				if !errors.Is(err, ErrTruncated) || !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("cut at %d: %v, want ErrTruncated", n, err)
				}
			}
			for n := 1; n < len(h.bytes); n++ { // bytes lost at the front or inside
				got, err := h.replay(append(bytes.Clone(h.bytes[:n-1]), h.bytes[n:]...))
				demand(t, "lost byte", h, got, err)
			}
		}
	})
}

func TestBytesAfterTheEndAreNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, h := range shortTalk(t, suites()[0]).halves() {
			for _, more := range [][]byte{{0}, h.bytes, h.bytes[len(h.bytes)-recordOverhead:]} {
				got, err := h.settled(append(bytes.Clone(h.bytes), more...))
				demand(t, "more bytes", h, got, err)
				if !errors.Is(err, ErrTrailing) {
					t.Errorf("%v, want ErrTrailing", err)
				}
			}
		}
	})
}

// split cuts a half into its preface and its records.
func split(t *testing.T, h recordedHalf) [][]byte {
	t.Helper()
	n := openPrefaceLen
	if h.name == "acceptor" {
		n = acceptPrefaceLen
	}
	parts := [][]byte{h.bytes[:n]}
	for b := h.bytes[n:]; len(b) > 0; {
		l := recordHeaderLen + int(binary.BigEndian.Uint16(b))
		parts = append(parts, b[:l])
		b = b[l:]
	}
	if len(parts) < 4 {
		t.Fatalf("only %d parts", len(parts))
	}
	return parts
}

func TestRearrangedRecordsAreNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fakeSession(t, suites()[0])
		talk := func(s *session, id uint64) []recordedHalf {
			return record(t, s, id, [][]byte{[]byte("one"), []byte("two")}, [][]byte{[]byte("uno"), []byte("dos")}).halves()
		}
		halves, other, foreign := talk(s, 1), talk(s, 2), talk(fakeSession(t, s.suite), 1)
		for i, h := range halves {
			p, o, f, r := split(t, h), split(t, other[i]), split(t, foreign[i]), split(t, halves[1-i])
			for what, parts := range map[string][][]byte{
				"swap":                 {p[0], p[2], p[1], p[3]},
				"duplicate":            {p[0], p[1], p[1], p[2], p[3]},
				"replay":               {p[0], p[1], p[2], p[1], p[3]},
				"drop":                 {p[0], p[1], p[3]},
				"drop the first":       {p[0], p[2], p[3]},
				"preface twice":        {p[0], p[0], p[1], p[2], p[3]},
				"no preface":           {p[1], p[2], p[3]},
				"record of stream 2":   {p[0], p[1], o[2], p[3]},
				"end of stream 2":      {p[0], p[1], p[2], o[3]},
				"records of stream 2":  {p[0], o[1], o[2], o[3]},
				"record of a session":  {p[0], p[1], f[2], p[3]},
				"whole foreign stream": f,
				"reflected record":     {p[0], p[1], r[2], p[3]},
				"reflected half":       r,
			} {
				got, err := h.replay(bytes.Join(parts, nil))
				demand(t, what, h, got, err)
			}
		}
		// A whole reply of another stream of the same session.
		got, err := halves[1].replay(other[1].bytes)
		demand(t, "reply of stream 2", halves[1], got, err)
		if !errors.Is(err, ErrSpliced) {
			t.Errorf("%v, want ErrSpliced", err)
		}
		// A whole request of another stream is that stream, delivered again: the
		// replay window's matter.
	})
}

func TestTooManyEmptyRecordsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fakeSession(t, suites()[0])
		a, b := newPipe(1 << 20)
		device, err := openConn(s, nil, a, 1, 1000, wire.Playing)
		if err != nil {
			t.Fatal(err)
		}
		write := func(n int) {
			synctest.Wait()
			for range n {
				rec, err := device.out.half.seal(make([]byte, 0, 64), recordData, nil, 0)
				if err != nil {
					t.Fatal(err)
				}
				a.Write(rec)
			}
		}
		device.Write([]byte("x"))
		write(maxEmpty)
		device.Write([]byte("y"))
		write(maxEmpty + 1)
		c, err := acceptFrom(copyOf(t, s), b)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); !strings.HasPrefix("xy", string(got)) || err != errEmptyRecords {
			t.Fatalf("read %q, %v", got, err)
		}
	})
}

func TestBadInnerRecordsAreRefused(t *testing.T) {
	for what, inner := range map[string][]byte{
		"all zero":          make([]byte, 100),
		"unknown type":      {'x', 3},
		"type 255":          {'x', 255},
		"too much padding":  append([]byte{'x', recordData}, make([]byte, maxPadding+1)...),
		"too much content":  append(bytes.Repeat([]byte{'x'}, maxContent+1), recordData),
		"only padding type": {0},
	} {
		s := fakeSession(t, suites()[0])
		secret := slices.Clone(s.secret)
		w, _ := newHalf(s.suite, secret)
		r, _ := newOpening(s.suite, secret)
		w.prepare()
		head := binary.BigEndian.AppendUint64(nil, uint64(len(inner)+tagLen)<<48)
		rec := w.key.aead.Seal(head, w.nonce[:], inner, head)
		if _, _, err := r.open(new([nonceLen]byte), make([]byte, len(rec)), rec); !errors.Is(err, ErrTampered) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// The most that is allowed.
	s := fakeSession(t, suites()[0])
	w, _ := newHalf(s.suite, s.secret)
	r, _ := newOpening(s.suite, s.secret)
	rec, err := w.seal(make([]byte, 0, bufferLen), recordData, make([]byte, maxContent), maxPadding)
	if err != nil || len(rec) != recordHeaderLen+maxSealed {
		t.Fatalf("%d bytes, %v", len(rec), err)
	}
	if _, n, err := recordHeader(rec); n != len(rec) || err != nil {
		t.Fatal(n, err)
	}
	if _, content, err := r.open(new([nonceLen]byte), make([]byte, len(rec)), rec); err != nil || len(content) != maxContent {
		t.Fatal(len(content), err)
	}
}

// What an unsealed hint says never becomes a clean end.
func TestUnsealedEndsAreErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := shortTalk(t, suites()[0])
		for n := range len(r.up) - openPrefaceLen {
			a, b := newPipe(1 << 20)
			a.Write(r.up[:openPrefaceLen+n])
			c, err := acceptFrom(copyOf(t, r.s), b)
			if err != nil {
				t.Fatal(err)
			}
			a.Reset(0)
			if _, err := io.ReadAll(c); err == nil {
				t.Fatalf("a reset after %d bytes reads as a clean end", n)
			}
		}
	})
}
