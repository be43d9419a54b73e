package transporttest

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// TCPNetwork is TCP in virtual time, as far as those see it who use it: bytes
// take a time, wait while the network is cut, and meet a reset where nobody is
// left. It is the listener of its one server.
type TCPNetwork struct {
	oneWay   time.Duration
	addr     net.Addr
	cut      atomic.Bool
	accepted chan net.Conn // sent to by Dial, received by Accept; closed by nobody
	closed   chan struct{}
	closing  sync.Once
	dials    atomic.Int64
}

// NewTCPNetwork returns a network on which everybody is oneWay from the server at
// addr.
func NewTCPNetwork(addr *net.UDPAddr, oneWay time.Duration) *TCPNetwork {
	return &TCPNetwork{oneWay: oneWay, addr: at(addr), accepted: make(chan net.Conn), closed: make(chan struct{})}
}

func at(a *net.UDPAddr) net.Addr { return &net.TCPAddr{IP: a.IP, Port: a.Port} }

// Accept returns the server's end of the next connection.
func (n *TCPNetwork) Accept() (net.Conn, error) {
	select {
	case c := <-n.accepted:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// Close lets further connections be refused.
func (n *TCPNetwork) Close() error {
	n.closing.Do(func() { close(n.closed) })
	return nil
}

// Addr is the server's.
func (n *TCPNetwork) Addr() net.Addr { return n.addr }

// Cut lets nothing pass while it is set.
func (n *TCPNetwork) Cut(cut bool) { n.cut.Store(cut) }

// Dials is how often Dial was called.
func (n *TCPNetwork) Dials() int { return int(n.dials.Load()) }

// Dial returns a client's end of a new connection, a round trip later. Whatever
// the address is, the server answers.
func (n *TCPNetwork) Dial(ctx context.Context, from *net.UDPAddr) (net.Conn, error) {
	n.dials.Add(1)
	for arrived := false; !arrived; {
		arrived = !n.cut.Load()
		select {
		case <-time.After(2 * n.oneWay):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	up, down := newTCPWay(n), newTCPWay(n)
	up.back, down.back = down, up
	here := &tcpConn{in: down, out: up, local: at(from), remote: n.addr}
	there := &tcpConn{in: up, out: down, local: n.addr, remote: at(from)}
	select {
	case n.accepted <- there:
		return here, nil
	case <-n.closed:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
}

// tcpWay is one direction of a connection.
type tcpWay struct {
	net  *TCPNetwork
	back *tcpWay // the other direction

	mu                 sync.Mutex
	flying             [][]byte // nil is the FIN
	due                []time.Time
	arrived            []byte
	held               int // bytes that fly or have arrived
	fin, gone          bool
	err                error // after a reset
	readBy, writeBy    time.Time
	readable, writable chan struct{}
}

// TCPBuffers is how many bytes fit into one direction of a connection: both
// kernels and the path.
const TCPBuffers = 256 << 10

func newTCPWay(n *TCPNetwork) *tcpWay {
	return &tcpWay{net: n, readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
}

// send needs mu.
func (w *tcpWay) send(p []byte) {
	w.flying, w.due = append(w.flying, p), append(w.due, time.Now().Add(w.net.oneWay))
	w.held += len(p)
	time.AfterFunc(w.net.oneWay, w.arrive)
}

func (w *tcpWay) arrive() {
	w.mu.Lock()
	if w.net.cut.Load() {
		defer w.mu.Unlock()
		if len(w.flying) > 0 {
			time.AfterFunc(200*time.Millisecond, w.arrive)
		}
		return
	}
	refused := false
	for len(w.due) > 0 && !w.due[0].After(time.Now()) {
		p := w.flying[0]
		w.flying, w.due = w.flying[1:], w.due[1:]
		if p == nil {
			w.fin = true
		}
		refused = refused || w.gone && p != nil
		w.arrived = append(w.arrived, p...)
	}
	poke(w.readable)
	w.mu.Unlock()
	if refused {
		time.AfterFunc(w.net.oneWay, func() { w.reset(); w.back.reset() })
	}
}

func (w *tcpWay) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = syscall.ECONNRESET
	poke(w.readable)
	poke(w.writable)
}

// tcpConn is one end of a connection.
type tcpConn struct {
	in, out       *tcpWay
	local, remote net.Addr
	closed        atomic.Bool
}

func (c *tcpConn) Read(p []byte) (int, error) {
	w := c.in
	for {
		w.mu.Lock()
		if err := c.trouble(w, w.readBy); err != nil {
			w.mu.Unlock()
			return 0, err
		}
		if len(w.arrived) > 0 {
			n := copy(p, w.arrived)
			w.arrived = w.arrived[n:]
			w.held -= n
			poke(w.writable)
			w.mu.Unlock()
			return n, nil
		}
		if w.fin {
			w.mu.Unlock()
			return 0, io.EOF
		}
		by := w.readBy
		w.mu.Unlock()
		await(w.readable, by)
	}
}

func (c *tcpConn) trouble(w *tcpWay, by time.Time) error {
	switch {
	case c.closed.Load():
		return net.ErrClosed
	case w.err != nil:
		return w.err
	case expired(by):
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (c *tcpConn) Write(p []byte) (n int, err error) {
	w := c.out
	for n < len(p) {
		w.mu.Lock()
		if err := c.trouble(w, w.writeBy); err != nil {
			w.mu.Unlock()
			return n, err
		}
		m := min(len(p)-n, TCPBuffers-w.held)
		by := w.writeBy
		if m > 0 {
			w.send(append([]byte{}, p[n:n+m]...))
			n += m
		}
		w.mu.Unlock()
		if m == 0 {
			await(w.writable, by)
		}
	}
	return n, nil
}

func (c *tcpConn) CloseWrite() error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.send(nil)
	return nil
}

func (c *tcpConn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	c.CloseWrite()
	c.in.mu.Lock()
	c.in.gone = true
	unread := len(c.in.arrived) > 0
	c.in.mu.Unlock()
	if unread {
		time.AfterFunc(c.in.net.oneWay, func() { c.in.reset(); c.out.reset() })
	}
	poke(c.in.readable)
	poke(c.out.writable)
	return nil
}

func (c *tcpConn) LocalAddr() net.Addr  { return c.local }
func (c *tcpConn) RemoteAddr() net.Addr { return c.remote }

func (c *tcpConn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *tcpConn) SetReadDeadline(t time.Time) error {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.in.readBy = t
	poke(c.in.readable)
	return nil
}

func (c *tcpConn) SetWriteDeadline(t time.Time) error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.writeBy = t
	poke(c.out.writable)
	return nil
}

// poke wakes who waits on c, or who will next.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func expired(by time.Time) bool { return !by.IsZero() && !time.Now().Before(by) }

// await waits for c, until by if it is set.
func await(c <-chan struct{}, by time.Time) {
	var late <-chan time.Time
	if !by.IsZero() {
		timer := time.NewTimer(time.Until(by))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-c:
	case <-late:
	}
}
