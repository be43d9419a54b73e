package netsim

import (
	"fmt"
	"net"
	"sync"
	"time"
)

// socketBuffer is asked of the kernel for each wrapped socket, in bytes, so that
// a goroutine that is late loses nothing that the link would not.
const socketBuffer = 2 << 20

// packetConn is a wrapped datagram socket. Two goroutines serve it: send writes
// to the socket what is due, receive reads from it into the downlink.
type packetConn struct {
	line     *Line
	up, down *flight
	// reading is full while a ReadFrom runs, the only sender and receiver; a
	// channel and not a mutex, so that virtual time goes on while one waits.
	reading chan struct{}

	mu sync.Mutex
	// guarded by mu
	sock   net.PacketConn
	closed bool // no further socket may replace sock
}

func newPacketConn(l *Line, pc net.PacketConn) *packetConn {
	c := &packetConn{line: l, up: newFlight(l, l.up), down: newFlight(l, l.down), reading: make(chan struct{}, 1), sock: pc}
	c.SetReadBuffer(socketBuffer)  // as far as the kernel allows
	c.SetWriteBuffer(socketBuffer) // likewise
	return c
}

func (c *packetConn) socket() net.PacketConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sock
}

// pass sends p, and the headers that it comes without, over a link and, if it
// survives, into flight. It takes p over.
func (l *Line) pass(f *flight, p *packet, headers int) {
	over := f.link
	over.mu.Lock()
	v := lost
	switch {
	case l.block:
		over.lostCount++
	case p.n > mtu-headers:
		over.dropCount++
	default:
		p.at, v = over.packet(l.now(), p.n+headers)
	}
	over.mu.Unlock()
	if v == lost || v == dropped {
		l.free(p)
		return
	}
	if !f.push(p, v) {
		l.free(p)
		if f.finished() == nil { // otherwise the socket is closed
			over.countLost()
		}
	}
}

func (c *packetConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	if err := c.up.finished(); err != nil {
		return 0, err
	}
	p := c.line.packet()
	p.n, p.addr = copy(p.data[:], b), addr
	c.line.pass(c.up, p, headerUDP)
	return len(b), nil
}

func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	c.reading <- struct{}{}
	defer func() { <-c.reading }()
	p, err := c.down.take()
	if err != nil {
		return 0, nil, err
	}
	n, addr := copy(b, p.data[:p.n]), p.addr
	c.down.settle(p)
	return n, addr, nil
}

// send ends when the uplink is finished and empty, and closes the socket.
func (c *packetConn) send() {
	for {
		p, err := c.up.take()
		if err != nil {
			break
		}
		if _, err := c.socket().WriteTo(p.data[:p.n], p.addr); err != nil {
			c.up.link.countLost()
		}
		c.up.settle(p)
	}
	c.up.discard()
	c.mu.Lock()
	c.closed = true
	c.sock.Close()
	c.mu.Unlock()
}

// receive ends when the socket is closed or fails.
func (c *packetConn) receive() {
	defer c.down.discard()
	for {
		sock := c.socket()
		p := c.line.packet()
		n, addr, err := sock.ReadFrom(p.data[:])
		if err == nil {
			p.n, p.addr = n, addr
			c.line.pass(c.down, p, headerUDP)
			continue
		}
		c.line.free(p)
		if c.socket() == sock {
			c.down.finish(fmt.Errorf("netsim: read from the wrapped socket: %w", err), -1)
			return
		}
	}
}

func (c *packetConn) rebind() error {
	next, err := c.line.listen(c.LocalAddr())
	if err != nil {
		err = fmt.Errorf("netsim: change of address: %w", err)
		c.down.finish(err, -1)
		return err
	}
	c.mu.Lock()
	old := c.sock
	if c.closed {
		old = next
	} else {
		c.sock = next
	}
	c.mu.Unlock()
	old.Close()
	c.SetReadBuffer(socketBuffer)
	c.SetWriteBuffer(socketBuffer)
	return nil
}

func (c *packetConn) Close() error {
	c.down.finish(net.ErrClosed, -1)
	c.up.finish(net.ErrClosed, linger)
	return nil
}

func (c *packetConn) LocalAddr() net.Addr { return c.socket().LocalAddr() }

func (c *packetConn) SetReadDeadline(t time.Time) error {
	c.down.setDeadline(t)
	return nil
}

func (c *packetConn) SetWriteDeadline(time.Time) error { return nil }

func (c *packetConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadBuffer passes a wish to the wrapped socket, if that has such a method.
// quic-go warns without it.
func (c *packetConn) SetReadBuffer(n int) error {
	if s, ok := c.socket().(interface{ SetReadBuffer(int) error }); ok {
		return s.SetReadBuffer(n)
	}
	return nil
}

// SetWriteBuffer is as SetReadBuffer.
func (c *packetConn) SetWriteBuffer(n int) error {
	if s, ok := c.socket().(interface{ SetWriteBuffer(int) error }); ok {
		return s.SetWriteBuffer(n)
	}
	return nil
}
