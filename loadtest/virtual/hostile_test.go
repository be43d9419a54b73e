package virtual

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/relay"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// hooked stands between the real relay and its connections, and changes what
// the relay writes.
type hooked struct {
	relay.Listener
	attack *attack
}

func (l hooked) Accept(ctx context.Context) (transport.Session, error) {
	s, err := l.Listener.Accept(ctx)
	if err != nil {
		return nil, err
	}
	return &hookedSession{Session: s, attack: l.attack, agent: s.ClientKey() != nil}, nil
}

type hookedSession struct {
	transport.Session
	attack   *attack
	agent    bool
	accepted int // the relay accepts one after the other
}

func (s *hookedSession) AcceptStream(ctx context.Context) (transport.Stream, error) {
	st, err := s.Session.AcceptStream(ctx)
	if err != nil {
		return nil, err
	}
	s.accepted++
	return &hookedStream{Stream: st, session: s, own: s.accepted == 1}, nil
}

func (s *hookedSession) TryOpenStream() (transport.Stream, error) {
	st, err := s.Session.TryOpenStream()
	if err != nil {
		return nil, err
	}
	return &hookedStream{Stream: st, session: s, prefix: len(wire.Incoming{}.Append(nil))}, nil
}

// hookedStream is a stream as the relay has it.
type hookedStream struct {
	transport.Stream
	session *hookedSession
	own     bool // the relay's own control stream
	prefix  int  // bytes of frames before what is forwarded
	sent    int  // bytes that the relay has written
	first   byte // of those that were forwarded
	cut     bool
}

// part is what of a stream an attack is on.
type part int

const (
	frames  part = iota // of the relay's own: its control stream, or INCOMING before a data stream
	control             // TLS between device and agent
	sealed              // a data stream
)

func (s *hookedStream) part(off int) part {
	switch {
	case s.own || off < s.prefix && s.first != 1:
		return frames
	case s.first == 0x01 || s.first == 0x16:
		return control
	}
	return sealed
}

func (s *hookedStream) Write(p []byte) (int, error) {
	off := s.sent
	s.sent += len(p)
	if i := s.prefix - off; i >= 0 && i < len(p) {
		s.first = p[i]
	}
	if s.cut {
		return len(p), nil
	}
	if i, ok := s.session.attack.hits(s, off, len(p)); ok {
		if err := s.session.attack.do(s, bytes.Clone(p), i); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	return s.Stream.Write(p)
}

// attack is one thing that the relay does, at one place, once.
type attack struct {
	name    string
	toAgent bool
	part    part
	at      int // byte of the stream
	do      func(s *hookedStream, p []byte, i int) error
	want    error // what the device is told; nil: all arrives
	mends   bool  // all may also arrive

	mu    sync.Mutex
	armed bool
	done  bool
}

func (a *attack) hits(s *hookedStream, off, n int) (int, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := a.at
	if a.part != frames {
		at += s.prefix
	}
	if !a.armed || a.done || s.session.agent != a.toAgent || s.part(off) != a.part || at < off || at >= off+n {
		return 0, false
	}
	a.done = true
	return at - off, true
}

func write(s *hookedStream, parts ...[]byte) error {
	_, err := s.Stream.Write(bytes.Join(parts, nil))
	return err
}

// What the relay does from byte i of what it was about to write.
func flip(s *hookedStream, p []byte, i int) error  { p[i] ^= 1; return write(s, p) }
func drop(s *hookedStream, p []byte, i int) error  { return write(s, p[:i], p[min(i+7, len(p)):]) }
func twice(s *hookedStream, p []byte, i int) error { return write(s, p, p[i:]) }
func insert(s *hookedStream, p []byte, i int) error {
	return write(s, p[:i], []byte("\x00\x20made up by the relay"), p[i:])
}
func fin(s *hookedStream, p []byte, i int) error {
	s.cut = true
	write(s, p[:i])
	return s.CloseWrite()
}
func reset(s *hookedStream, p []byte, i int) error {
	write(s, p[:i])
	s.Reset(wire.CodeCancelled)
	return &wire.ResetError{Code: wire.CodeCancelled}
}
func hold(s *hookedStream, p []byte, i int) error {
	time.Sleep(3 * time.Second)
	return write(s, p)
}

const film = 200 << 10

// attacks are at each part of what passes a relay.
func attacks() (all []*attack) {
	const preface, first, middle, last = 40, 200, film / 2, film - 5000
	for _, op := range []struct {
		name string
		do   func(s *hookedStream, p []byte, i int) error
		want error
	}{{"flip a bit", flip, e2e.ErrTampered}, {"drop bytes", drop, e2e.ErrTampered}, {"write bytes twice", twice, e2e.ErrTampered}, {"insert bytes", insert, e2e.ErrTampered},
		{"end the stream", fin, nil}, {"reset the stream", reset, nil}, {"hold back", hold, nil}} {
		add := func(where string, toAgent bool, part part, at int, want error) {
			all = append(all, &attack{name: op.name + ", " + where, toAgent: toAgent, part: part, at: at, do: op.do, want: want})
		}
		add("a stream's preface to the device", false, sealed, preface, op.want)
		add("the first record to the device", false, sealed, first, op.want)
		add("a middle record to the device", false, sealed, middle, op.want)
		add("the last records to the device", false, sealed, last, op.want)
		add("a stream's preface to the server", true, sealed, preface, op.want)
		all[len(all)-1].mends = true // the server refuses the stream and takes the next, unless it takes the damage for a record's
		add("the first record to the server", true, sealed, first, op.want)
		add("a middle record to the server", true, sealed, middle, op.want)
		add("the link to the device", false, control, 3000, nil) // it is replaced
		add("the link to the server", true, control, 3500, nil)
		add("the relay's own frame before a stream", true, frames, 0, nil)
		add("the number of a device before a stream", true, frames, wire.HeaderLen+4, nil)
	}
	return all
}

// TestHostileRelay lets the real relay do what it likes to what it forwards,
// with a real agent and a real device over QUIC.
func TestHostileRelay(t *testing.T) {
	var table strings.Builder
	fmt.Fprintf(&table, "%-60s %s\n", "what the relay does", "seen by the user as")
	for i, a := range attacks() {
		if i%hostileStride != 0 {
			continue
		}
		var err error
		synctest.Test(t, func(t *testing.T) { err = watch(t, a) })
		seen := "nothing: all arrived"
		if err != nil {
			seen = err.Error()
		}
		fmt.Fprintf(&table, "%-60s %s\n", a.name, seen)
		switch {
		case !a.done:
			t.Errorf("%s: did not take place", a.name)
		case err == nil && a.mends:
		case !errors.Is(err, a.want):
			t.Errorf("%s: %v, want %v", a.name, err, a.want)
		case err != nil && !strings.Contains(seen, "the relay or the network"):
			t.Errorf("%s: the user is not told who did it: %s", a.name, seen)
		}
	}
	t.Logf("\n%s", &table)
}

// watch asks for a film over a hooked relay, compares what arrives with what
// was sent, and returns what the reader is told.
func watch(t *testing.T, a *attack) error {
	w := newWorld(t, 20*time.Millisecond, 10*time.Millisecond)
	_, stopRelay := w.startRelayBehind(func(ln relay.Listener) relay.Listener { return hooked{ln, a} })
	home, agent := w.startAgent(nil)
	question, answer := pattern(1, film), pattern(2, film)
	ln := agent.Listen()
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serve(t, c.(*e2e.Conn), question, answer) })
		}
	})
	dialer := w.newDevice(home, agent)
	if _, err := ask(t, dialer.DialContext, question[:100], nil); err != nil { // the session is there
		t.Fatal(err)
	}
	a.mu.Lock()
	a.armed = true
	a.mu.Unlock()
	got, err := ask(t, dialer.DialContext, question, answer)
	if !bytes.HasPrefix(answer, got) || err == nil && len(got) != len(answer) {
		t.Errorf("%s: %d bytes that nobody sent so, %v", a.name, len(got), err)
	}
	if a.part == control { // little passes there: ask until it has been hit
		for i := 0; i < 200 && err == nil && !a.hit(); i++ {
			_, err = ask(t, dialer.DialContext, question[:100], nil)
		}
	}
	dialer.Close()
	agent.Close()
	home.Close()
	stopRelay()
	ln.Close()
	serving.Wait()
	time.Sleep(time.Minute) // quic-go forgets closed connections by timers
	return err
}

func (a *attack) hit() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.done
}

// serve answers a whole question with the film, and a short one with nothing.
func serve(t *testing.T, c *e2e.Conn, question, answer []byte) {
	defer c.Close()
	got, err := io.ReadAll(c)
	if !bytes.HasPrefix(question, got) {
		t.Error("the server read what nobody asked")
	}
	switch {
	case err != nil:
		c.Reset(wire.CodeCancelled)
	case len(got) == len(question):
		c.Write(answer)
	case len(got) != 100:
		t.Errorf("the server read a clean end after %d bytes", len(got))
	}
}

func ask(t *testing.T, dial func(context.Context, string, string) (net.Conn, error), question, answer []byte) ([]byte, error) {
	c, err := dial(context.Background(), "", "")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Minute))
	if _, err := c.Write(question); err != nil {
		return nil, err
	}
	if err := c.(*e2e.Conn).CloseWrite(); err != nil {
		return nil, err
	}
	got, err := io.ReadAll(c)
	if err != nil {
		c.(*e2e.Conn).Reset(wire.CodeCancelled)
	}
	return got, err
}

func pattern(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}
