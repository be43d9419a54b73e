package netsim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// Path is what lies between an endpoint's sockets and the network: a link for
// each direction, seen from the endpoint. ParseProfile and Profiles make them.
type Path struct {
	Name   string // as ParseProfile was given it
	Source string // where a profile's figures are from, in a sentence
	Up     Link
	Down   Link
	// BlockUDP loses every datagram, as some hotels' networks do.
	BlockUDP bool
	// RebindEvery changes the address of all sockets so often; 0 is never,
	// otherwise at least 10 ms.
	RebindEvery time.Duration
}

func (p *Path) check() error {
	if err := p.Up.check(); err != nil {
		return fmt.Errorf("uplink: %w", err)
	}
	if err := p.Down.check(); err != nil {
		return fmt.Errorf("downlink: %w", err)
	}
	if p.RebindEvery != 0 && p.RebindEvery < 10*time.Millisecond {
		return fmt.Errorf("address changes every %v, must be at least 10ms apart", p.RebindEvery)
	}
	return nil
}

// Config is what a Line is made of. New keeps a copy.
type Config struct {
	Path Path
	// Seed decides every random fate on the line. Lines with the same seed are
	// alike, so viewers that shall differ need different seeds.
	Seed uint64
	// Listen opens the socket that replaces one with the address old. Nil opens
	// a UDP socket on the same IP address and another port.
	Listen func(old net.Addr) (net.PacketConn, error)
}

// linger bounds how long a closed socket's packets go on being sent.
const linger = 5 * time.Second

// socket is a wrapped socket, or a pair of devices.
type socket interface {
	Close() error
	rebind() error
}

// Line is a running Path, shared by all sockets that it wraps and all devices
// that it joins. It has two goroutines for each socket, four for each pair of
// devices, and one more if addresses change by themselves.
// Its methods may be called concurrently.
type Line struct {
	// set at construction
	start    time.Time
	up, down *link
	block    bool
	listen   func(net.Addr) (net.PacketConn, error)
	packets  sync.Pool     // of *packet
	done     chan struct{} // closed by Close
	wait     sync.WaitGroup

	mu sync.Mutex
	// guarded by mu
	sockets map[socket]struct{}
	closed  bool
	rebinds uint64
}

// New starts a line. Time on its links runs from now.
func New(cfg Config) (*Line, error) {
	if err := cfg.Path.check(); err != nil {
		return nil, fmt.Errorf("netsim: path %q: %w", cfg.Path.Name, err)
	}
	if cfg.Listen == nil {
		cfg.Listen = listenAgain
	}
	rtt := cfg.Path.Up.Delay + cfg.Path.Down.Delay
	l := &Line{
		start:   time.Now(),
		up:      newLink(cfg.Path.Up, cfg.Seed, 1, rtt),
		down:    newLink(cfg.Path.Down, cfg.Seed, 2, rtt),
		block:   cfg.Path.BlockUDP,
		listen:  cfg.Listen,
		packets: sync.Pool{New: func() any { return new(packet) }},
		done:    make(chan struct{}),
		sockets: make(map[socket]struct{}),
	}
	if every := cfg.Path.RebindEvery; every > 0 {
		l.wait.Go(func() { l.rebindEvery(every) })
	}
	return l, nil
}

func listenAgain(old net.Addr) (net.PacketConn, error) {
	udp, ok := old.(*net.UDPAddr)
	if !ok {
		return nil, fmt.Errorf("a %s socket needs Config.Listen to change its address", old.Network())
	}
	return net.ListenUDP("udp", &net.UDPAddr{IP: udp.IP, Zone: udp.Zone})
}

func (l *Line) rebindEvery(every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			l.Rebind() // a socket that failed says so to its reader
		case <-l.done:
			return
		}
	}
}

// Rebind gives every wrapped UDP socket a new local address and resets every
// TCP connection. What is on its way up leaves from the new address; what is on
// its way down and has been received still arrives, what reaches the old address
// later does not. A socket that gets no new address is broken: reading from it
// returns the error.
func (l *Line) Rebind() error {
	l.mu.Lock()
	l.rebinds++
	all := make([]socket, 0, len(l.sockets))
	for s := range l.sockets {
		all = append(all, s)
	}
	l.mu.Unlock()
	var errs []error
	for _, s := range all {
		errs = append(errs, s.rebind())
	}
	return errors.Join(errs...)
}

// add registers a socket and starts two goroutines for it, or fails if the line is
// closed.
func (l *Line) add(s socket, send, receive func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("netsim: the line is closed: %w", net.ErrClosed)
	}
	l.sockets[s] = struct{}{}
	l.wait.Go(func() {
		send()
		l.mu.Lock()
		delete(l.sockets, s)
		l.mu.Unlock()
	})
	l.wait.Go(receive)
	return nil
}

// WrapPacketConn puts a UDP socket, or what acts as one, behind the line. The
// result owns pc. Its write calls never wait, so it knows no write deadline;
// addresses given to them must not be changed afterwards. It holds 32,768
// datagrams in each direction, further ones are lost. Close lets what was
// written go on for up to 5 s and then closes pc; it does not wait for that,
// Line.Close does.
func (l *Line) WrapPacketConn(pc net.PacketConn) (net.PacketConn, error) {
	c := newPacketConn(l, pc)
	if err := l.add(c, c.send, c.receive); err != nil {
		return nil, err
	}
	return c, nil
}

// WrapConn puts a stream connection behind the line. The result owns nc, has a
// CloseWrite method, and closes as WrapPacketConn's does.
func (l *Line) WrapConn(nc net.Conn) (net.Conn, error) {
	c := newConn(l, nc)
	if err := l.add(c, c.send, c.receive); err != nil {
		return nil, err
	}
	return c, nil
}

// Dial connects over TCP through the line, which takes a round trip of its
// links, and wraps the connection. It fits http.Transport.DialContext.
func (l *Line) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if network != "tcp" && network != "tcp4" && network != "tcp6" {
		return nil, fmt.Errorf("netsim: dial %s: only TCP can be dialed; wrap a socket for others", network)
	}
	if err := l.trip(ctx, l.up); err != nil {
		return nil, fmt.Errorf("netsim: dial %s: %w", addr, err)
	}
	nc, err := new(net.Dialer).DialContext(ctx, network, addr)
	if back := l.trip(ctx, l.down); err != nil || back != nil {
		if err == nil {
			nc.Close()
			err = fmt.Errorf("netsim: dial %s: %w", addr, back)
		}
		return nil, err
	}
	c, err := l.WrapConn(nc)
	if err != nil {
		nc.Close()
	}
	return c, err
}

// trip waits while a segment without data crosses a link.
func (l *Line) trip(ctx context.Context, over *link) error {
	t := time.NewTimer(time.Duration(l.segment(over, 0) - l.now()))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.done:
		return syscall.ECONNABORTED
	}
}

// segment sends n bytes of a stream over a link and returns when they arrive.
func (l *Line) segment(over *link, n int) int64 {
	over.mu.Lock()
	defer over.mu.Unlock()
	return over.segment(l.now(), n+headerTCP)
}

// Close cuts every cable, closes every wrapped socket and waits until what these
// sent has left, 5 s at most, and all goroutines have ended.
func (l *Line) Close() error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.done)
	}
	all := make([]socket, 0, len(l.sockets))
	for s := range l.sockets {
		all = append(all, s)
	}
	l.mu.Unlock()
	for _, s := range all {
		s.Close()
	}
	l.wait.Wait()
	return nil
}

// Stats are a line's counts.
type Stats struct {
	Up, Down LinkStats
	Rebinds  uint64
}

// Stats returns the counts so far.
func (l *Line) Stats() Stats {
	l.mu.Lock()
	n := l.rebinds
	l.mu.Unlock()
	return Stats{Up: l.up.stats(), Down: l.down.stats(), Rebinds: n}
}

func (l *Line) now() int64 { return int64(time.Since(l.start)) }

func (l *Line) packet() *packet { return l.packets.Get().(*packet) }

func (l *Line) free(p *packet) {
	p.next, p.addr, p.err, p.n, p.read = nil, nil, nil, 0, 0
	l.packets.Put(p)
}
