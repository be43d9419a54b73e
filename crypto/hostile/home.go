package hostile

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// home is a media server with its agent.
type home struct {
	w      *world
	n      int
	id     *e2e.Identity
	route  wire.Route
	server *e2e.Server

	mu    sync.Mutex
	known map[e2e.Pin]byte // devices
}

// addHome makes a home whose agent is reachable when it returns, unless the
// relay does not want it.
func (w *world) addHome() *home {
	h := &home{w: w, n: len(w.homes), id: newIdentity(), known: make(map[e2e.Pin]byte)}
	h.route[0] = byte(h.n + 1)
	var err error
	if h.server, err = e2e.NewServer(e2e.ServerConfig{Identity: h.id, Admit: h.admit}); err != nil {
		panic(err) // it has all that it needs
	}
	w.homes = append(w.homes, h)
	ready := make(chan struct{})
	w.wg.Go(func() { h.register(ready) })
	w.wg.Go(h.accept)
	<-ready
	return h
}

var errStranger = errors.New("not on the list")

func (h *home) admit(p e2e.Pin) (e2e.Welcome, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.known[p]; ok {
		return e2e.Welcome{}, nil
	}
	return e2e.Welcome{}, errStranger
}

// register keeps the agent registered, as often as the relay spoils it within
// reason.
func (h *home) register(ready chan struct{}) {
	var once sync.Once
	done := func() { once.Do(func() { close(ready) }) }
	defer done()
	for range attempts {
		reg, err := hop.Register(h.w.ctx, h.w.relay.connect(h.w.relay.agent(h.n, h.route)), wire.Register{})
		if err != nil {
			h.w.leaves(err)
			continue
		}
		done()
		h.serve(reg)
	}
}

// serve takes what the relay brings until the registration ends.
func (h *home) serve(reg *hop.Registration) {
	w := h.w
	defer reg.Close(wire.CodeNone, "")
	w.wg.Go(func() {
		for {
			st, err := reg.Accept(w.ctx)
			if err != nil {
				return
			}
			w.wg.Go(func() {
				n, err := hop.ReadIncoming(st)
				if err != nil {
					w.refuses(err)
					return
				}
				h.server.Handle(n, st)
			})
		}
	})
	select {
	case <-reg.Leaving():
		w.leaves(reg.Err())
	case <-w.ctx.Done():
	}
}

// accept answers every request whose stream an admitted device has opened.
func (h *home) accept() {
	for {
		c, err := h.server.Accept()
		if err != nil {
			return
		}
		h.w.count(1)
		h.w.wg.Go(func() {
			defer h.w.count(-1)
			c.SetDeadline(time.Now().Add(h.w.readFor))
			if err := h.answer(c); err != nil {
				h.w.told(err)
				c.Reset(wire.CodeCancelled)
			}
			c.Close()
		})
	}
}

// answer reads a request, which says whose it is, and sends what belongs to it.
func (h *home) answer(c *e2e.Conn) error {
	w := h.w
	var name [2]byte // device, stream
	if _, err := io.ReadFull(c, name[:]); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			w.survive("a request ends cleanly after less than its first two bytes")
		}
		return err
	}
	h.mu.Lock()
	n, ok := h.known[c.Peer()]
	h.mu.Unlock()
	w.mu.Lock()
	again := w.served[name]
	w.served[name] = true
	w.mu.Unlock()
	switch {
	case !ok || n != name[0] || name[1] == 0:
		w.survive("the server read a request that its device has not made")
		return nil
	case again:
		w.survive("the server was asked the same twice")
		return nil
	}
	if err := w.check(c, w.content(name, true)[2:], "the server"); err != nil {
		return err
	}
	return w.write(c, name, false)
}
