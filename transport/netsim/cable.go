package netsim

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// cable is a line between two devices of IP packets. Four goroutines serve it:
// in each direction one reads from a device into the link, and one writes to
// the other device what is due.
type cable struct {
	line      *Line
	near, far io.ReadWriteCloser
	up, down  *flight
	closing   sync.Once
}

// Join makes the line a cable between two devices of IP packets, such as TUN
// interfaces: what is read from near crosses the uplink to far, and from far the
// downlink to near. A Read returns one packet and a Write takes one, at most
// 1500 bytes; longer packets are dropped. Loss, rate and queue lie below the
// kernel's TCP, which answers them as on a real line. A line joins any number of
// pairs, which share it. It owns both devices and closes them, and what is on
// its way is gone, when one of them fails or with Line.Close. A path that blocks
// UDP is refused; a cable has no address that Rebind could change.
func (l *Line) Join(near, far io.ReadWriteCloser) error {
	if l.block {
		return errors.New("netsim: join two devices: the path blocks UDP, which only wrapped sockets know of")
	}
	c := &cable{line: l, near: near, far: far, up: newFlight(l, l.up), down: newFlight(l, l.down)}
	return l.add(c,
		func() { c.carry(c.near, c.up, c.far) },
		func() { c.carry(c.far, c.down, c.near) })
}

// carry serves one direction until the cable is closed or a device fails.
func (c *cable) carry(from io.Reader, f *flight, to io.Writer) {
	var reading sync.WaitGroup
	reading.Go(func() { c.collect(from, f) })
	for {
		p, err := f.take()
		if err != nil {
			break
		}
		if _, err := to.Write(p.data[:p.n]); err != nil {
			f.link.countLost() // its interface may be down for a while
		}
		f.settle(p)
	}
	reading.Wait()
	f.discard()
}

// collect reads packets into a link until the device fails.
func (c *cable) collect(from io.Reader, f *flight) {
	for {
		p := c.line.packet()
		n, err := from.Read(p.data[:])
		if err != nil {
			c.line.free(p)
			c.Close()
			return
		}
		p.n = n
		c.line.pass(f, p, 0)
	}
}

// Close cuts the cable.
func (c *cable) Close() error {
	var err error
	c.closing.Do(func() {
		c.up.finish(net.ErrClosed, -1)
		c.down.finish(net.ErrClosed, -1)
		err = errors.Join(c.near.Close(), c.far.Close())
	})
	return err
}

func (c *cable) rebind() error {
	return fmt.Errorf("netsim: change of address: a cable has none: %w", errors.ErrUnsupported)
}
