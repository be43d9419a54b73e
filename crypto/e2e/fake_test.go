package e2e

import (
	"bytes"
	"crypto/rand"
	"io"
	"log/slog"
	"testing"
)

// fakeSession is a session without a control channel.
func fakeSession(su *suite) *session {
	secret := make([]byte, secretLen)
	rand.Read(secret)
	return &session{
		suite: su, secret: secret, pool: newBufferPool(), log: slog.New(slog.DiscardHandler),
		done: make(chan struct{}), conns: make(map[*Conn]struct{}),
	}
}

// copyOf is the other endpoint's view of the same session, or a fresh one.
func copyOf(s *session) *session {
	f := fakeSession(s.suite)
	f.secret = s.secret
	return f
}

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
	name, in, err := p.verify(s.suite, s.secret)
	if err != nil {
		return nil, err
	}
	return acceptConn(s, st, name, in)
}

// connPair returns both ends of a sealed stream over an in-memory hop.
func connPair(t testing.TB, su *suite, limit int) (device, agent *Conn) {
	t.Helper()
	s := fakeSession(su)
	a, b := newPipe(limit)
	device, err := openConn(s, a, 7)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := device.Write(nil); err != nil {
		t.Fatal(err)
	}
	agent, err = acceptFrom(copyOf(s), b)
	if err != nil {
		t.Fatal(err)
	}
	return device, agent
}

// recording is a whole stream as the relay sees it.
type recording struct {
	s        *session
	name     *streamName
	up, down []byte // halves of the opener and the acceptor
	said     []byte // content of the opener
	answered []byte // content of the acceptor
}

func record(t testing.TB, s *session, id uint64, said, answered [][]byte) *recording {
	t.Helper()
	r := &recording{s: s, said: bytes.Join(said, nil), answered: bytes.Join(answered, nil)}
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
	device, err := openConn(s, a, id)
	if err != nil {
		t.Fatal(err)
	}
	speak(device, said)
	r.up = bytes.Clone(a.out.buf)
	p, err := parseOpenPreface(r.up[:openPrefaceLen])
	if err != nil {
		t.Fatal(err)
	}
	if r.name, _, err = p.verify(s.suite, s.secret); err != nil {
		t.Fatal(err)
	}
	agent, err := acceptFrom(copyOf(s), b)
	if err != nil {
		t.Fatal(err)
	}
	speak(agent, answered)
	r.down = bytes.Clone(b.out.buf)
	return r
}

// recordedHalf is one half of a recording with what replays it to its reader.
type recordedHalf struct {
	name    string
	bytes   []byte
	content []byte
	replay  func(b []byte) ([]byte, error)
}

func (r *recording) halves() []recordedHalf {
	return []recordedHalf{
		{"opener", r.up, r.said, r.replayUp},
		{"acceptor", r.down, r.answered, r.replayDown},
	}
}

// hopWith returns a hop that delivers b and a FIN.
func hopWith(b []byte) Stream {
	x, y := newPipe(1 << 20)
	x.Write(b)
	x.CloseWrite()
	return y
}

// replayUp lets an acceptor of the same session read b.
func (r *recording) replayUp(b []byte) ([]byte, error) {
	c, err := acceptFrom(copyOf(r.s), hopWith(b))
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = ErrTruncated // a preface that is cut: the Server resets the stream
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(c)
}

// replayDown lets the opener of the same stream read b.
func (r *recording) replayDown(b []byte) ([]byte, error) {
	s := copyOf(r.s)
	c, err := openConn(s, hopWith(b), r.name.id)
	if err != nil {
		return nil, err
	}
	c.r.start = func(preface []byte) (*half, error) { return verifyAccept(r.name, s.secret, preface) }
	return io.ReadAll(c)
}
