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
	"time"
)

// fixedTalk has the same bytes in every process: the one of a fuzzer that runs
// inputs is another than the one that adds them.
func fixedTalk(t testing.TB) *recording {
	t.Helper()
	secret, salt := count(0, secretLen), [saltLen]byte(count(0x80, saltLen))
	su := suites()[0]
	r := &recording{t: t, s: sessionWith(t, su, secret), name: &streamName{suite: su, id: 3, salt: [saltLen]byte(count(0x40, saltLen))}}
	body := bytes.Repeat([]byte("0123456789"), 40)
	half := func(preface, secret []byte, err error, contents ...[]byte) (bytesOf, content []byte) {
		if err != nil {
			t.Fatal(err)
		}
		commit, err := commitOf(secret)
		if err != nil {
			t.Fatal(err)
		}
		return sealAll(t, su, append(preface, commit...), secret, contents), bytes.Join(contents, nil)
	}
	opens, err := r.name.openSecret(secret)
	first := append(binary.BigEndian.AppendUint64([]byte{kindSealed}, r.name.id), r.name.salt[:]...)
	r.up, r.said = half(first, opens, err, []byte("GET /film"), body)
	accepts, err := r.name.acceptSecret(secret, salt)
	r.down, r.answered = half(append([]byte{kindSealed}, salt[:]...), accepts, err, []byte("200 OK"), body, body)
	return r
}

// sealAll appends records of the contents and the end of a half.
func sealAll(t testing.TB, su *suite, b, secret []byte, contents [][]byte) []byte {
	t.Helper()
	h, err := newHalf(su, secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range contents {
		if b, err = h.seal(slices.Grow(b, recordOverhead+len(c)), recordData, c, 0); err != nil {
			t.Fatal(err)
		}
	}
	if b, err = h.seal(slices.Grow(b, recordOverhead), recordEnd, nil, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func FuzzOpenPreface(f *testing.F) {
	r := fixedTalk(f)
	f.Add(r.up[:openPrefaceLen])
	f.Add(append([]byte{kindResumed}, r.up[1:openPrefaceLen]...))
	f.Add([]byte{kindSealed})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseOpenPreface(b)
		if err != nil {
			return
		}
		if p.id > maxStreamID || len(b) < openPrefaceLen {
			t.Fatalf("accepted %x", b)
		}
		_, _, err = p.verify(r.s.suite, r.s.secret)
		if authentic := bytes.Equal(b[1:openPrefaceLen], r.up[1:openPrefaceLen]); authentic != (err == nil) || !authentic && err != ErrSpliced {
			t.Fatalf("%x: %v", b, err)
		}
	})
}

// FuzzResumption: of all bytes that may stand before the records of a further
// carrier, each end takes the preface that the other one made on this link, and
// reads in it what was written.
func FuzzResumption(f *testing.F) {
	secret, binding := count(0, secretLen), count(0xc0, secretLen)
	name := &streamName{suite: suites()[0], id: 5, salt: [saltLen]byte(count(0x40, saltLen))}
	preface := func(first []byte, secret []byte, at resumption) []byte {
		h, err := deriveHalf(secret)
		if err != nil {
			f.Fatal(err)
		}
		b, err := resumed(append(first, h.commit...), h.resume, binding, at)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	opens, err := name.openSecret(secret)
	if err != nil {
		f.Fatal(err)
	}
	salt := [saltLen]byte(count(0x80, saltLen))
	accepts, err := name.acceptSecret(secret, salt)
	if err != nil {
		f.Fatal(err)
	}
	first := append(binary.BigEndian.AppendUint64([]byte{kindSealed}, name.id), name.salt[:]...)
	asks, answers := resumption{number: 3, gone: 2, next: 77}, resumption{number: 3, next: stopped}
	up := preface(first, opens, asks)
	down := preface(append([]byte{kindSealed}, salt[:]...), accepts, answers)
	for _, b := range [][]byte{up, down, up[:len(up)-1], down[:acceptPrefaceLen], nil} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		check := func(end string, authentic []byte, want, got resumption, err error) {
			t.Helper()
			if same := bytes.Equal(b[1:len(authentic)], authentic[1:]); same != (err == nil) || same && got != want || !same && err != ErrSpliced {
				t.Fatalf("the %s takes %x as %+v, %v", end, b, got, err)
			}
		}
		if p, err := parseOpenPreface(b); err == nil && len(b) >= len(up) {
			var at resumption
			_, h, err := p.verify(name.suite, secret)
			if err == nil {
				at, err = verifyResumption(b[openPrefaceLen:], h.resume, binding)
			}
			check("acceptor", up, asks, at, err)
		}
		if len(b) >= len(down) {
			var at resumption
			h, err := verifyAccept(name, secret, b)
			if err == nil {
				at, err = verifyResumption(b[acceptPrefaceLen:], h.resume, binding)
			}
			check("opener", down, answers, at, err)
		}
	})
}

// FuzzRecordReader: whatever a hop brings, in pieces of any size, the reader
// returns its bytes one whole record after the other, and says rightly why it
// stops.
func FuzzRecordReader(f *testing.F) {
	r := fixedTalk(f)
	records := r.up[openPrefaceLen:]
	f.Add(records, uint16(1))
	f.Add(records, uint16(0xffff))
	f.Add(records[:len(records)-1], uint16(7))
	f.Add(records[:3], uint16(2))
	f.Add(bytes.Repeat(append([]byte{0x41, 0x10}, make([]byte, recordHeaderLen-2+maxSealed)...), 5), uint16(9000))
	f.Add([]byte{0xff, 0xff, 0, 0, 0, 0, 0, 0, 1}, uint16(3))
	pool := newBufferPool()
	f.Fuzz(func(t *testing.T, b []byte, most uint16) {
		rr := recordReader{st: &pieces{b: b, most: 1 + int(most)}, pool: pool}
		defer rr.release()
		left := b
		for {
			rec, err := rr.record()
			if err != nil {
				var size int
				var bad error
				if len(left) >= recordHeaderLen {
					_, size, bad = recordHeader(left)
				}
				want := ErrTruncated
				switch {
				case len(left) == 0:
					want = io.EOF
				case bad != nil:
					want = errRecord
				case size > 0 && size <= len(left):
					want = nil
				}
				if err != want {
					t.Fatalf("%v before %d bytes that begin with %x, want %v", err, len(left), left[:min(len(left), recordHeaderLen)], want)
				}
				return
			}
			if len(rec) < recordHeaderLen+minSealed || len(rec) != recordHeaderLen+int(binary.BigEndian.Uint16(rec)) || !bytes.HasPrefix(left, rec) {
				t.Fatalf("a record of %d bytes that is not the beginning of the %d that are left", len(rec), len(left))
			}
			left = left[len(rec):]
			rr.next()
		}
	})
}

// pieces reads b in pieces of at most so many bytes.
type pieces struct {
	b    []byte
	most int
}

func (p *pieces) Read(to []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(to[:min(len(to), p.most)], p.b)
	p.b = p.b[n:]
	return n, nil
}

// FuzzHalves feeds anything to both kinds of readers: only the authentic bytes
// read as a whole, and nothing but a part of the content is ever handed out.
func FuzzHalves(f *testing.F) {
	r := fixedTalk(f)
	for _, h := range r.halves() {
		f.Add(h.bytes)
		f.Add(h.bytes[:len(h.bytes)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		synctest.Test(t, func(t *testing.T) {
			for _, h := range r.halves() {
				got, err := h.settled(b)
				if bytes.Equal(b, h.bytes) != (err == nil) || !bytes.HasPrefix(h.content, got) {
					t.Fatalf("%s's half: read %q, %v of %x", h.name, got, err, b)
				}
			}
		})
	})
}

// FuzzInner has the other endpoint seal anything: b is what is inside its
// records, each after its length in two bytes.
func FuzzInner(f *testing.F) {
	add := func(inner ...string) {
		var b []byte
		for _, s := range inner {
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
		}
		f.Add(b)
	}
	add("GET /\x01\x00\x00", "film\x01", "\x02")
	add("\x01", "all\x02")
	add("cut\x01")
	add("more\x02", "\x02")
	add("kind\x03", "\x02")
	add("\x00\x00", "\x02")
	add("x\x01"+strings.Repeat("\x00", maxPadding), "x\x01"+strings.Repeat("\x00", maxPadding+1), "\x02")
	add(strings.Repeat("x", maxContent)+"\x01", strings.Repeat("y", maxContent+1)+"\x01")
	add(append(slices.Repeat([]string{"\x01"}, maxEmpty+1), "\x02")...)
	r := fixedTalk(f)
	secret, err := r.name.openSecret(r.s.secret)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := newHalf(r.s.suite, secret)
		if err != nil {
			t.Fatal(err)
		}
		sealed := bytes.Clone(r.up[:openPrefaceLen])
		var content []byte
		var ended, bad bool
		for empty := 0; len(b) > 2; {
			inner := b[2:min(len(b), 2+int(binary.BigEndian.Uint16(b)))]
			b = b[2+len(inner):]
			if len(inner) == 0 {
				continue // less than a record can have
			}
			last := len(inner) - 1
			if sealed, err = h.seal(slices.Grow(sealed, recordOverhead+last), inner[last], inner[:last], 0); err != nil {
				t.Fatal(err)
			}
			said := bytes.TrimRight(inner, "\x00")
			if bad = bad || ended || len(said) == 0 || len(inner)-len(said) > maxPadding; bad {
				continue
			}
			kind, said := said[len(said)-1], said[:len(said)-1]
			if empty++; len(said) > 0 {
				empty = 0
			}
			ended = kind == recordEnd
			if bad = kind != recordData && !ended || len(said) > maxContent || empty > maxEmpty && !ended; !bad {
				content = append(content, said...)
			}
		}
		synctest.Test(t, func(t *testing.T) {
			got, err := r.halves()[0].settled(sealed)
			if whole := ended && !bad; whole != (err == nil) || whole && len(got) < len(content) || !bytes.HasPrefix(content, got) {
				t.Fatalf("read %q, %v, want %q, all of it %v", got, err, content, whole)
			}
		})
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

func FuzzJoin(f *testing.F) {
	j := join{session: [sessionIDLen]byte(count(1, sessionIDLen)), mac: [secretLen]byte(count(2, secretLen)), next: 9, streams: []uint64{3, 7, maxStreamID}}
	f.Add(j.payload())
	f.Add((&join{}).payload())
	f.Add(j.payload()[:joinLen])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		j, err := parseJoin(b)
		if err != nil {
			if !errors.Is(err, ErrFrame) {
				t.Fatal(err)
			}
			return
		}
		if p := j.payload(); !bytes.Equal(p, b) {
			t.Fatalf("%x became %x", b, p)
		}
		for _, id := range j.streams {
			if j.over(id) {
				t.Fatalf("%x: stream %d is listed and over", b, id)
			}
		}
	})
}

func FuzzAck(f *testing.F) {
	one := ack{id: 3, next: 70}
	all := ack{id: 4, next: stopped}
	f.Add(one.append(nil))
	f.Add(all.append(one.append(nil)))
	f.Add(ack{id: 5, next: 9, came: []arrived{{1, 2}, {3, 4}}}.append(nil))
	f.Add(all.append(nil)[:ackLen-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		for rest := b; len(rest) > 0; {
			a, next, err := parseAck(rest)
			if err != nil {
				if !errors.Is(err, ErrFrame) {
					t.Fatal(err)
				}
				break
			}
			if len(next) >= len(rest) {
				t.Fatalf("%d bytes of %d are left", len(next), len(rest))
			}
			again, rest = a.append(again), next
		}
		if !bytes.HasPrefix(b, again) {
			t.Fatalf("%x became %x", b, again)
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
