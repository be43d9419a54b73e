//go:build e2e && linux

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/crypto/endpoint"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/loadtest/origin"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// town is many agents in this process, each with sockets of its own, some of
// which send a slow film to a device.
type town struct {
	homes  []*stormHome
	ending chan struct{} // closed when the films are to end
	once   sync.Once     // closes ending
}

// stormHome is an agent, and the device and the film that it may have.
type stormHome struct {
	home  *pair.Home
	agent *endpoint.Agent
	serve sync.WaitGroup

	device *endpoint.Dialer // nil: none
	conn   net.Conn         // nil: no film
	film   origin.Film      // each home has another
	sent   atomic.Int64
	done   chan struct{} // closed when the device, if there is one, reads no more
	err    error         // why; nil at the film's end. To be read after done is closed

	mu   sync.Mutex
	came []time.Time // when bytes did
}

// A film comes at 64 kbit/s.
const (
	pieceEvery = 250 * time.Millisecond
	pieceSize  = 2000
)

// newTown returns a town in which nothing runs yet. The caller closes it.
func newTown(agents int) *town {
	w := &town{ending: make(chan struct{})}
	for i := range agents {
		w.homes = append(w.homes, &stormHome{film: origin.Film{Seed: uint64(i), Size: math.MaxInt64}, done: make(chan struct{})})
	}
	return w
}

// settle registers the agents at the relay, pairs devices with the first of
// them, and starts their films.
func (w *town) settle(t *testing.T, r relay, devices int) {
	t.Helper()
	at, err := wire.ParseRelay(r.address)
	must(t, err)
	dir := t.TempDir()
	w.each(t, len(w.homes), func(i int, h *stormHome) error {
		return h.settle(filepath.Join(dir, strconv.Itoa(i)), at, w.ending)
	})
	eventually(t, patience, "the agents are registered", func() error { return w.registeredSince(time.Time{}) })
	w.each(t, devices, func(_ int, h *stormHome) error { return h.stream() })
}

// each does something with the first homes, several at once.
func (w *town) each(t *testing.T, n int, do func(int, *stormHome) error) {
	t.Helper()
	var wait sync.WaitGroup
	room := make(chan struct{}, 8) // a value for each that runs
	errs := make([]error, n)
	for i, h := range w.homes[:n] {
		room <- struct{}{}
		wait.Go(func() {
			errs[i] = do(i, h)
			<-room
		})
	}
	wait.Wait()
	for _, err := range errs {
		must(t, err)
	}
}

// settle starts the agent, which sends its film to every stream.
func (h *stormHome) settle(state string, at wire.Relay, ending <-chan struct{}) error {
	var err error
	if h.home, err = pair.OpenHome(state); err != nil {
		return err
	}
	if h.agent, err = endpoint.NewAgent(endpoint.AgentConfig{Home: h.home, Relays: []wire.Relay{at}}); err != nil {
		return err
	}
	h.serve.Go(func() {
		ln := h.agent.Listen()
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			h.serve.Go(func() { h.send(c.(*e2e.Conn), ending) })
		}
	})
	return nil
}

// send sends the film piece by piece. Where it fails, the device misses
// something.
func (h *stormHome) send(c *e2e.Conn, ending <-chan struct{}) {
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err != nil {
		return
	}
	tick := time.NewTicker(pieceEvery)
	defer tick.Stop()
	piece := make([]byte, pieceSize)
	for at := int64(0); ; at += pieceSize {
		h.film.ReadAt(piece, at)
		if _, err := c.Write(piece); err != nil {
			return
		}
		h.sent.Store(at + pieceSize)
		select {
		case <-tick.C:
		case <-ending:
			c.CloseWrite()
			c.Read(piece) // until the device has it all and closes
			return
		}
	}
}

// stream pairs a device and begins to read the film.
func (h *stormHome) stream() error {
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	invite, err := h.home.NewInvite("", 0, false)
	if err != nil {
		return err
	}
	if err := h.agent.Publish(ctx); err != nil {
		return err
	}
	server, err := endpoint.Pair(ctx, endpoint.PairConfig{Identity: key, Invite: invite, Name: "device"})
	if err != nil {
		return err
	}
	if h.device, err = endpoint.NewDialer(endpoint.DialerConfig{Identity: key, Server: server}); err != nil {
		return err
	}
	conn, err := h.device.DialContext(ctx, "", "")
	if err != nil {
		return err
	}
	if _, err := conn.Write([]byte{1}); err != nil {
		conn.Close()
		return err
	}
	h.conn = conn
	go func() {
		defer close(h.done)
		defer conn.Close()
		h.err = h.read()
	}()
	return nil
}

// read reads the film to its end and compares every byte.
func (h *stormHome) read() error {
	b := make([]byte, 64<<10)
	for at := int64(0); ; {
		n, err := h.conn.Read(b)
		if n > 0 {
			h.mu.Lock()
			h.came = append(h.came, time.Now())
			h.mu.Unlock()
		}
		if wrong := h.film.Verify(b[:n], at); wrong != nil {
			return wrong
		}
		at += int64(n)
		if sent := h.sent.Load(); err == io.EOF && at == sent {
			return nil
		} else if err != nil {
			return fmt.Errorf("the stream ended after %d of %d bytes: %w", at, sent, err)
		}
	}
}

// streaming returns the homes with a device.
func (w *town) streaming() (some []*stormHome) {
	for _, h := range w.homes {
		if h.conn != nil {
			some = append(some, h)
		}
	}
	return some
}

// times returns when bytes came.
func (h *stormHome) times() []time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.came
}

// flowsSince is an error that says how many streams have brought nothing since
// a time, and what is wrong with one of them, if it is known.
func (w *town) flowsSince(then time.Time) error {
	missing := 0
	why := errors.New("they wait")
	for _, h := range w.streaming() {
		if at := h.times(); len(at) > 0 && at[len(at)-1].After(then) {
			continue
		}
		missing++
		select {
		case <-h.done:
			why = h.err
		default:
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d streams have brought nothing: %w", missing, len(w.streaming()), why)
	}
	return nil
}

// wentOn returns when the first bytes came over each stream after a time.
func (w *town) wentOn(then time.Time) (at []time.Time) {
	for _, h := range w.streaming() {
		for _, came := range h.times() {
			if came.After(then) {
				at = append(at, came)
				break
			}
		}
	}
	return at
}

// gap returns the longest that any stream brought nothing.
func (w *town) gap() (longest time.Duration) {
	for _, h := range w.streaming() {
		at := h.times()
		for i := 1; i < len(at); i++ {
			longest = max(longest, at[i].Sub(at[i-1]))
		}
	}
	return longest
}

// finish ends the films, waits for the devices, and returns how many bytes of
// content they got. It fails the test for every stream that did not bring all.
func (w *town) finish(t *testing.T) (bytes int64) {
	t.Helper()
	w.once.Do(func() { close(w.ending) })
	limit := time.After(patience)
	for i, h := range w.streaming() {
		select {
		case <-h.done:
		case <-limit:
			t.Fatalf("the stream of device %d does not end", i)
		}
		if h.err != nil {
			t.Errorf("device %d: %v", i, h.err)
		}
		bytes += h.sent.Load()
	}
	return bytes
}

// close ends everything.
func (w *town) close(t *testing.T) {
	t.Helper()
	w.once.Do(func() { close(w.ending) })
	w.each(t, len(w.homes), func(_ int, h *stormHome) error {
		if h.device != nil {
			h.device.Close()
		}
		if h.conn != nil {
			<-h.done
		}
		if h.agent != nil {
			h.agent.Close()
		}
		h.serve.Wait()
		if h.home != nil {
			return h.home.Close()
		}
		return nil
	})
}
