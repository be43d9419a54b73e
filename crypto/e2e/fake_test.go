package e2e

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// fakeSession is a session without a link. It ends with the test.
func fakeSession(t testing.TB, su *suite) *session {
	secret := make([]byte, secretLen)
	rand.Read(secret)
	return sessionWith(t, su, secret)
}

func sessionWith(t testing.TB, su *suite, secret []byte) *session {
	s := quietSession(t, su, secret)
	t.Cleanup(func() { stop(s) })
	return s
}

func quietSession(t testing.TB, su *suite, secret []byte) *session {
	s, err := makeSession(su, secret, newBufferPool(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func stop(s *session) {
	s.end(errors.New("test over"), nil, wire.CodeCancelled)
	s.quiesce()
	s.wg.Wait()
}

// copyOf is the other endpoint's view of the same session, or a fresh one.
func copyOf(t testing.TB, s *session) *session { return sessionWith(t, s.suite, s.secret) }

// acceptFrom reads a preface from st and accepts the stream.
func acceptFrom(s *session, st Stream) (*Conn, error) {
	b := make([]byte, openPrefaceLen)
	if _, err := io.ReadFull(st, b); err != nil {
		return nil, err
	}
	p, err := parseOpenPreface(b)
	if err != nil {
		return nil, err
	}
	if b[0] != kindSealed { // the Server would want more of it
		return nil, ErrSpliced
	}
	name, theirs, err := p.verify(s.suite, s.secret)
	if err != nil {
		return nil, err
	}
	c, err := acceptConn(s, name, theirs)
	if err != nil {
		return nil, err
	}
	if err := s.add(c, 1000); err != nil {
		return nil, err
	}
	return c, c.begin(&carrier{st: st, preface: c.preface})
}

// ferry carries acknowledgments between sessions that have no links.
func ferry(from, to *session) {
	from.run(func() {
		t := time.NewTimer(0)
		defer t.Stop()
		for {
			select {
			case <-from.done:
				return
			case <-from.kick:
			case <-t.C:
			}
			from.mu.Lock()
			if wait := time.Until(from.ackAt); wait > 0 {
				from.mu.Unlock()
				t.Reset(wait)
				continue
			}
			due := slices.Collect(maps.Keys(from.dirty))
			clear(from.dirty)
			from.mu.Unlock()
			for _, c := range due {
				a := c.ack()
				if o := to.conn(a.id); o != nil && o.acked(a) != nil {
					panic("a false acknowledgment")
				}
			}
		}
	})
}

// connPair returns both ends of a sealed stream over an in-memory hop.
func connPair(t testing.TB, su *suite, limit int) (device, agent *Conn) {
	t.Helper()
	s := fakeSession(t, su)
	peer := copyOf(t, s)
	ferry(s, peer)
	ferry(peer, s)
	return connsOf(t, s, peer, 7, limit)
}

func connsOf(t testing.TB, s, peer *session, id uint64, limit int) (device, agent *Conn) {
	t.Helper()
	a, b := newPipe(limit)
	device, err := openConn(s, nil, a, id, 1000, wire.Playing)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := device.Write(nil); err != nil {
		t.Fatal(err)
	}
	agent, err = acceptFrom(peer, b)
	if err != nil {
		t.Fatal(err)
	}
	return device, agent
}

// recording is a whole stream as the relay sees it.
type recording struct {
	t        testing.TB
	s        *session
	name     *streamName
	up, down []byte // halves of the opener and the acceptor
	said     []byte // content of the opener
	answered []byte // content of the acceptor
}

func record(t testing.TB, s *session, id uint64, said, answered [][]byte) *recording {
	t.Helper()
	r := &recording{t: t, s: s, said: bytes.Join(said, nil), answered: bytes.Join(answered, nil)}
	a, b := newPipe(1 << 20)
	speak := func(c *Conn, parts [][]byte) {
		for _, p := range parts {
			if _, err := c.Write(p); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	here, there := copyOf(t, s), copyOf(t, s)
	device, err := openConn(here, nil, a, id, 1000, wire.Playing)
	if err != nil {
		t.Fatal(err)
	}
	speak(device, said)
	r.up = a.out.whole()
	p, err := parseOpenPreface(r.up[:openPrefaceLen])
	if err != nil {
		t.Fatal(err)
	}
	if r.name, _, err = p.verify(s.suite, s.secret); err != nil {
		t.Fatal(err)
	}
	agent, err := acceptFrom(there, b)
	if err != nil {
		t.Fatal(err)
	}
	speak(agent, answered)
	r.down = b.out.whole()
	stop(here)
	stop(there)
	return r
}

// recordedHalf is one half of a recording with what replays it to its reader.
type recordedHalf struct {
	name    string
	bytes   []byte
	content []byte
	replay  func(b []byte) ([]byte, error)
	settled func(b []byte) ([]byte, error) // reads only when all has arrived; in a bubble
}

func (r *recording) halves() []recordedHalf {
	half := func(name string, b, content []byte, reader func(s *session, st Stream) (*Conn, error)) recordedHalf {
		replay := func(b []byte, wait func()) ([]byte, error) {
			s := quietSession(r.t, r.s.suite, r.s.secret)
			defer stop(s)
			c, err := reader(s, hopWith(b))
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				err = ErrTruncated // a preface that is cut: the Server resets the stream
			}
			if err != nil {
				return nil, err
			}
			wait()
			return io.ReadAll(c)
		}
		return recordedHalf{name, b, content,
			func(b []byte) ([]byte, error) { return replay(b, func() {}) },
			func(b []byte) ([]byte, error) { return replay(b, synctest.Wait) },
		}
	}
	return []recordedHalf{half("opener", r.up, r.said, acceptFrom), half("acceptor", r.down, r.answered, r.openAgain)}
}

// openAgain makes the opener of the recorded stream, which has sent nothing.
func (r *recording) openAgain(s *session, st Stream) (*Conn, error) {
	secret, err := r.name.openSecret(s.secret)
	if err != nil {
		return nil, err
	}
	half, err := deriveHalf(secret)
	if err != nil {
		return nil, err
	}
	c, err := newConn(s, r.name, r.up[:openPrefaceLen:openPrefaceLen], half, sealedHalf{})
	if err != nil {
		return nil, err
	}
	c.opened = 1
	if err := s.add(c, 1); err != nil {
		return nil, err
	}
	return c, c.begin(&carrier{st: st, preface: c.preface})
}

// hopWith returns a hop that delivers b and a FIN.
func hopWith(b []byte) Stream {
	x, y := newPipe(1 << 20)
	x.Write(b)
	x.CloseWrite()
	return y
}
