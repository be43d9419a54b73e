package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/blindrelay/blindrelay/transport/wire"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is an agent and what stands between it and its devices.
type world struct {
	t      testing.TB
	server *Server
	id     *Identity

	mu      sync.Mutex
	devices map[Pin]Welcome
	// relay joins a device's end of a new hop with an agent's end; nil: they
	// are the same hop.
	relay func(n int, device, agent Stream)
	hops  int
	room  int // bytes that a hop holds; 64 KiB at least
	wg    sync.WaitGroup
	// prepare sees each hop before it is used; nil: nobody does.
	prepare func(n int, attachment uint64, device, agent *pipeEnd)
	ends    map[uint64][]*pipeEnd // device's ends by attachment
	gone    map[uint64]bool       // attachments
}

var errStranger = errors.New("not on the list")

func newIdentity(t testing.TB) *Identity {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := NewIdentity(key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func newP256Identity(t testing.TB) *Identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := NewIdentity(key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func newWorld(t testing.TB, change func(*ServerConfig)) *world {
	t.Helper()
	w := &world{t: t, id: newIdentity(t), devices: make(map[Pin]Welcome)}
	cfg := ServerConfig{Identity: w.id, Admit: w.admit}
	if change != nil {
		change(&cfg)
	}
	var err error
	if w.server, err = NewServer(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

func (w *world) close() {
	w.server.Close()
	w.wg.Wait()
}

func (w *world) admit(p Pin) (Welcome, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d, ok := w.devices[p]; ok {
		return d, nil
	}
	return Welcome{}, errStranger
}

func (w *world) allow(id *Identity) *Identity {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.devices[id.Pin()] = Welcome{}
	return id
}

func (w *world) disallow(p Pin) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.devices, p)
}

// served returns the agent's sessions.
func (w *world) served() []*served {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	return slices.Collect(maps.Keys(w.server.sessions))
}

// open returns a device's end of a new hop on an attachment.
func (w *world) open(attachment uint64) Stream {
	d, err := w.dial(attachment)
	if err != nil {
		w.t.Error(err)
	}
	return d
}

var errGone = errors.New("the attachment is gone")

func (w *world) dial(attachment uint64) (Stream, error) {
	w.mu.Lock()
	n, relay, prepare, room := w.hops, w.relay, w.prepare, max(w.room, 64<<10)
	w.hops++
	if w.gone[attachment] {
		w.mu.Unlock()
		return nil, errGone
	}
	d, r := newPipe(room)
	if w.ends == nil {
		w.ends = make(map[uint64][]*pipeEnd)
	}
	w.ends[attachment] = append(w.ends[attachment], d)
	w.mu.Unlock()
	if prepare != nil {
		prepare(n, attachment, d, r)
	}
	if relay == nil {
		w.server.Handle(attachment, r)
		return d, nil
	}
	r2, a := newPipe(room)
	w.server.Handle(attachment, a)
	w.wg.Go(func() { relay(n, r, r2) })
	return d, nil
}

// hopsOf returns the device's ends of an attachment's hops, the oldest first.
func (w *world) hopsOf(attachment uint64) []*pipeEnd {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.ends[attachment])
}

// drop ends an attachment and all its hops.
func (w *world) drop(attachment uint64) {
	w.mu.Lock()
	if w.gone == nil {
		w.gone = make(map[uint64]bool)
	}
	w.gone[attachment] = true
	w.mu.Unlock()
	for _, e := range w.hopsOf(attachment) {
		e.Reset(wire.CodeDeviceGone)
	}
}

func (w *world) opener(attachment uint64) func(context.Context) (Stream, error) {
	return func(context.Context) (Stream, error) { return w.dial(attachment) }
}

// join takes a session to an attachment.
func (w *world) join(s *Session, attachment uint64) (*Link, error) {
	st, err := w.dial(attachment)
	if err != nil {
		return nil, err
	}
	return s.Join(context.Background(), st, w.opener(attachment))
}

func (w *world) config(id *Identity, attachment uint64) ClientConfig {
	return ClientConfig{Identity: id, Server: w.id.Pin(), Open: w.opener(attachment)}
}

func (w *world) connect(id *Identity, attachment uint64) *Session {
	w.t.Helper()
	s, err := Connect(context.Background(), w.open(attachment), w.config(id, attachment))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { s.Close(0, "test over") })
	return s
}

// streams returns the two ends of a sealed stream that has carried one byte.
func (w *world) streams(s *Session) (device, agent *Conn) {
	w.t.Helper()
	device, err := s.OpenStream(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := device.Write([]byte("x")); err != nil {
		w.t.Fatal(err)
	}
	agent, err = w.server.Accept()
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := io.ReadFull(agent, make([]byte, 1)); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { device.Close(); agent.Close() })
	return device, agent
}

func (w *world) isGone(attachment uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gone[attachment]
}

// newest returns a session's newest link, nil if there is none now.
func newest(s *Session) *Link {
	l, _ := s.current()
	return l
}
