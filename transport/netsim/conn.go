package netsim

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	segmentSize = mtu - headerTCP
	chunk       = 11 * segmentSize // moved to or from a socket at once
	minWindow   = 64 << 10
	maxWindow   = 4 << 20
)

// window returns how many bytes of one connection may be on their way over a
// link: what a sender that fills the link and its queue would have.
func window(l *Link) int {
	rate := l.meanRate()
	if rate == 0 {
		return maxWindow
	}
	flying := float64(rate) / 8 * (l.Delay + 4*l.Jitter).Seconds()
	return max(minWindow, int(min(flying+float64(l.queueBytes()), maxWindow)))
}

// conn is a wrapped stream connection. Two goroutines serve it: send writes to
// the socket what is due, receive reads from it into the downlink.
type conn struct {
	net.Conn // the wrapped one
	line     *Line
	up, down *flight
	// reading and writing are full while a Read or a Write runs, the only
	// senders and receivers; channels, so that virtual time goes on meanwhile.
	reading, writing chan struct{}
	// room is sent to, without waiting, when the uplink has taken bytes, is
	// finished, or the write deadline moves; space when the downlink has given
	// bytes or is finished. One pending is enough.
	room, space chan struct{}
	closed      chan struct{} // closed by close, once
	closing     sync.Once
	part        *packet // being read; owned by the holder of reading

	mu       sync.Mutex
	deadline time.Time // of writes; guarded by mu
}

func newConn(l *Line, nc net.Conn) *conn {
	return &conn{
		Conn: nc, line: l, up: newFlight(l, l.up), down: newFlight(l, l.down),
		reading: make(chan struct{}, 1), writing: make(chan struct{}, 1),
		room: make(chan struct{}, 1), space: make(chan struct{}, 1), closed: make(chan struct{}),
	}
}

func (c *conn) Write(b []byte) (int, error) {
	c.writing <- struct{}{}
	defer func() { <-c.writing }()
	done := 0
	for done < len(b) {
		if err := c.awaitRoom(); err != nil {
			return done, err
		}
		p := c.line.packet()
		p.n = copy(p.data[:segmentSize], b[done:])
		n := p.n // p belongs to the flight once pushed
		if p.at = c.line.segment(c.up.link, n); !c.up.push(p, passes) {
			c.line.free(p)
			continue // awaitRoom says why
		}
		done += n
	}
	return done, nil
}

// awaitRoom returns when the uplink takes another segment of this connection.
func (c *conn) awaitRoom() error {
	limit := window(&c.up.link.cfg)
	for {
		full, err := c.up.full(limit)
		if err != nil {
			return err
		}
		c.mu.Lock()
		deadline := c.deadline
		c.mu.Unlock()
		left := time.Duration(never)
		if !deadline.IsZero() {
			left = time.Until(deadline)
		}
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		if !full {
			return nil
		}
		t := time.NewTimer(left)
		select {
		case <-c.room:
		case <-t.C:
		}
		t.Stop()
	}
}

func (c *conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	c.reading <- struct{}{}
	defer func() { <-c.reading }()
	if err := c.down.finished(); err != nil {
		return 0, err
	}
	if c.part == nil {
		p, err := c.down.take()
		if err != nil {
			return 0, err
		}
		c.part = p
	}
	done := 0
	for c.part != nil && c.part.err == nil && done < len(b) {
		p := c.part
		n := copy(b[done:], p.data[p.read:p.n])
		done += n
		if p.read += n; p.read == p.n {
			c.down.settle(p)
			c.part = c.down.poll()
		}
	}
	poke(c.space)
	if done == 0 {
		return 0, c.part.err // stays, for the next Read
	}
	return done, nil
}

// send ends when the uplink is finished and empty, or the socket takes no more;
// once the connection is closed as well, it closes the socket.
func (c *conn) send() {
	buf := make([]byte, 0, chunk)
	for {
		p, err := c.up.take()
		if err != nil {
			break
		}
		buf, end := buf[:0], false
		for p != nil && !end {
			buf = append(buf, p.data[:p.n]...)
			end = p.err != nil
			c.up.settle(p)
			if p = nil; !end && len(buf)+segmentSize <= chunk {
				p = c.up.poll()
			}
		}
		poke(c.room)
		if len(buf) > 0 { // an empty write to a net.Pipe waits for a reader
			if _, err := c.Conn.Write(buf); err != nil {
				c.up.finish(err, -1)
			}
		}
		if w, ok := c.Conn.(interface{ CloseWrite() error }); ok && end {
			w.CloseWrite()
		}
	}
	c.up.discard()
	poke(c.room)
	<-c.closed
	c.Conn.Close()
}

// receive ends when the socket or the connection does.
func (c *conn) receive() {
	limit := window(&c.down.link.cfg)
	buf := make([]byte, chunk)
	for {
		for {
			full, err := c.down.full(limit)
			if err != nil {
				c.down.discard()
				return
			}
			if !full {
				break
			}
			<-c.space
		}
		n, err := c.Conn.Read(buf)
		for sent := 0; sent < n; {
			p := c.line.packet()
			p.n = copy(p.data[:segmentSize], buf[sent:n])
			sent += p.n
			c.arrive(p)
		}
		if err != nil {
			p := c.line.packet()
			p.err = err
			c.arrive(p)
			return
		}
	}
}

// arrive sends a packet down, and takes it over.
func (c *conn) arrive(p *packet) {
	if p.at = c.line.segment(c.down.link, p.n); !c.down.push(p, passes) {
		c.line.free(p)
	}
}

// CloseWrite ends the stream after what was written, if the wrapped connection
// has a CloseWrite method.
func (c *conn) CloseWrite() error {
	if _, ok := c.Conn.(interface{ CloseWrite() error }); !ok {
		return errors.ErrUnsupported
	}
	if err := c.up.finished(); err != nil {
		return err
	}
	c.end(maxTime)
	return nil
}

// end sends the end of the stream and lets nothing follow.
func (c *conn) end(linger time.Duration) {
	p := c.line.packet()
	p.err = io.EOF
	if p.at = c.line.segment(c.up.link, 0); !c.up.push(p, passes) {
		c.line.free(p)
	}
	c.up.finish(net.ErrClosed, linger)
	poke(c.room)
}

func (c *conn) Close() error {
	c.closing.Do(func() {
		c.down.finish(net.ErrClosed, -1)
		c.end(linger)
		c.Conn.SetWriteDeadline(time.Now().Add(linger)) // send may wait for the far end
		poke(c.space)
		close(c.closed)
	})
	return nil
}

func (c *conn) rebind() error {
	c.closing.Do(func() {
		c.down.finish(syscall.ECONNRESET, -1)
		c.up.finish(syscall.ECONNRESET, -1)
		if tcp, ok := c.Conn.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		c.Conn.Close() // send and receive may wait for the far end
		poke(c.space)
		poke(c.room)
		close(c.closed)
	})
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.down.setDeadline(t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	c.deadline = t
	c.mu.Unlock()
	poke(c.room)
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}
