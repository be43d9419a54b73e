package endpoint

import (
	"bufio"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// callers are the connections that an http.Server works on. The agent bounds
// their number.
type callers struct {
	wait sync.WaitGroup // one for each connection

	mu   sync.Mutex
	open map[net.Conn]struct{}
}

func newCallers() *callers { return &callers{open: make(map[net.Conn]struct{})} }

// state is the server's ConnState. Connections that become something else than
// HTTP are removed by their handler.
func (c *callers) state(conn net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew:
		c.wait.Add(1)
		c.mu.Lock()
		c.open[conn] = struct{}{}
		c.mu.Unlock()
	case http.StateClosed:
		c.remove(conn)
	}
}

func (c *callers) remove(conn net.Conn) {
	c.mu.Lock()
	delete(c.open, conn)
	c.mu.Unlock()
	c.wait.Done()
}

// abort resets all connections and waits for their handlers. The server must
// not accept any more.
func (c *callers) abort() {
	c.mu.Lock()
	open := slices.Collect(maps.Keys(c.open))
	c.mu.Unlock()
	for _, conn := range open {
		if s, ok := conn.(sealed); ok {
			s.Reset(wire.CodeCancelled)
		} else {
			conn.Close()
		}
	}
	c.wait.Wait()
}

// upgradable is the ResponseWriter of a request that may become another
// protocol, such as a WebSocket.
type upgradable struct {
	http.ResponseWriter
	conn *upgraded // nil before
}

// Unwrap is for http.ResponseController.
func (u *upgradable) Unwrap() http.ResponseWriter { return u.ResponseWriter }

// WriteHeader keeps the server from guessing a type that the media server did
// not give.
func (u *upgradable) WriteHeader(status int) {
	if h := u.Header(); h["Content-Type"] == nil {
		h["Content-Type"] = nil
	}
	u.ResponseWriter.WriteHeader(status)
}

// Hijack hands the connection over to the proxy.
func (u *upgradable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	u.conn = &upgraded{sealed: c.(sealed)}
	return u.conn, rw, nil
}

// upgraded is a device's connection that speaks another protocol. The proxy
// calls CloseWrite if the media server ended its half in order, and Close in
// any case: without the former the latter is an abort.
type upgraded struct {
	sealed
	ended atomic.Bool
}

// CloseWrite passes the end of the media server's half on.
func (u *upgraded) CloseWrite() error {
	u.ended.Store(true)
	return u.sealed.CloseWrite()
}

// Close ends the connection as its media server did.
func (u *upgraded) Close() error {
	if u.ended.Load() {
		return u.sealed.Close()
	}
	u.sealed.Reset(wire.CodeCancelled)
	return nil
}
