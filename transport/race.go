package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/quic-go/quic-go"
)

// HeadStart is how long QUIC is tried before TCP is tried as well.
const HeadStart = 300 * time.Millisecond

// DialerConfig says what a Dialer dials with.
type DialerConfig struct {
	// Socket is for QUIC; the Dialer owns it, and sessions cannot migrate. Nil: a
	// new UDP socket, which is bound to no address: packets leave from wherever
	// the routing table says, also after that has changed.
	Socket net.PacketConn
	// DialTCP dials for TLS on TCP; it has to heed its context. Nil: the
	// machine's network, but no TCP at all if Socket is given, whose network it
	// might not be.
	DialTCP func(ctx context.Context, network, addr string) (net.Conn, error)
	// PacketSize is the size of QUIC packets, in bytes of UDP payload, 1200 to
	// MaxPacketSize. 0: they begin with 1280, and grow to what the path carries.
	PacketSize uint16
}

// MaxPacketSize is the largest QUIC packet, in bytes of UDP payload. With the
// headers of UDP and IPv4 it has 28 more, with IPv6 48.
const (
	MaxPacketSize = 1452
	minPacketSize = 1200 // RFC 9000, section 14.1
)

// Dialer opens sessions to relays: by QUIC over one UDP socket, and one more for
// each session that has migrated, or by TLS on TCP.
// Its methods may be called concurrently.
type Dialer struct {
	tr       *quic.Transport
	conn     net.PacketConn
	dialTCP  func(ctx context.Context, network, addr string) (net.Conn, error)
	packet   uint16      // as in DialerConfig
	sessions tcpSessions // those over TCP
	// open opens a socket for a session to migrate to; nil if the dialer was
	// given its socket.
	open func() (net.PacketConn, error)

	blocked atomic.Bool // UDP did not get through on this network

	closing context.Context // done by Close
	close   context.CancelFunc

	mu     sync.Mutex
	closed bool           // no session may migrate any more
	moved  sync.WaitGroup // sessions that have migrated and are not over
}

// NewDialer returns a Dialer over pc, which it owns from then on, and which
// dials no TCP; with nil it opens a UDP socket of its own and dials both.
func NewDialer(pc net.PacketConn) (*Dialer, error) { return DialerConfig{Socket: pc}.NewDialer() }

// NewDialer returns a Dialer. It must be closed.
func (c DialerConfig) NewDialer() (*Dialer, error) {
	if c.PacketSize != 0 && (c.PacketSize < minPacketSize || c.PacketSize > MaxPacketSize) {
		return nil, fmt.Errorf("QUIC packets have %d to %d bytes, not %d", minPacketSize, MaxPacketSize, c.PacketSize)
	}
	d := &Dialer{conn: c.Socket, dialTCP: c.DialTCP, packet: c.PacketSize}
	if d.conn == nil {
		d.open = func() (net.PacketConn, error) { return net.ListenUDP("udp", nil) }
		var err error
		if d.conn, err = d.open(); err != nil {
			return nil, err
		}
		if d.dialTCP == nil {
			d.dialTCP = netDial
		}
	}
	d.tr = &quic.Transport{Conn: baited(d.conn), ConnectionIDLength: connIDLen}
	d.closing, d.close = context.WithCancel(context.Background())
	return d, nil
}

// NetworkChanged forgets that UDP was blocked: the next Dial tries QUIC first.
func (d *Dialer) NetworkChanged() { d.blocked.Store(false) }

// dialed is how one way of a race ended.
type dialed struct {
	session Session
	err     error
}

// contender is one way of a race.
type contender struct {
	result chan dialed // sent to once, with room for that; nil before the start and after the end
	err    error
}

// errStops is why nothing is dialed any more.
var errStops = &LostError{reason: "this end stops"}

// Dial opens a session to a relay, by QUIC or by TLS on TCP, whichever comes
// first. QUIC has a head start of HeadStart, unless TCP won the last race: then
// both start at once, until QUIC gets through or the network changes. cert is
// the agent's route certificate, nil for a device. Errors say what is wrong in
// the user's terms, of both ways.
func (d *Dialer) Dial(ctx context.Context, relay wire.Relay, cert *tls.Certificate) (Session, error) {
	if d.dialTCP == nil {
		return d.DialQUIC(ctx, relay, cert)
	}
	racing, cancel := context.WithCancel(ctx)
	defer cancel()
	way := func(dial func(context.Context, wire.Relay, *tls.Certificate) (Session, error)) *contender {
		c := &contender{result: make(chan dialed, 1)}
		if !d.sessions.run(func() {
			s, err := dial(racing, relay, cert)
			c.result <- dialed{s, err}
		}) {
			c.result <- dialed{nil, errStops}
		}
		return c
	}
	quic, tcp := way(d.DialQUIC), &contender{}
	defer func() { d.sendAway(quic); d.sendAway(tcp) }()
	headStart := HeadStart
	if d.blocked.Load() {
		headStart = 0
	}
	timer := time.NewTimer(headStart)
	defer timer.Stop()
	for quic.err == nil || tcp.err == nil {
		late := false
		select {
		case r := <-quic.result:
			if quic.take(r) {
				return r.session, nil
			}
			late = true
		case r := <-tcp.result:
			if tcp.take(r) {
				d.blocked.Store(true)
				return r.session, nil
			}
		case <-timer.C:
			late = true
		}
		if late && tcp.result == nil {
			tcp = way(d.DialTCP)
		}
	}
	return nil, bothFailed(quic.err, tcp.err)
}

// take keeps a result and reports whether it is a session.
func (c *contender) take(r dialed) bool {
	c.result, c.err = nil, r.err
	return r.err == nil
}

// sendAway closes the session of who comes second, if it comes.
func (d *Dialer) sendAway(c *contender) {
	result := c.result
	if result == nil {
		return
	}
	end := func() {
		if r := <-result; r.session != nil {
			r.session.Close(wire.CodeNone, "")
		}
	}
	if !d.sessions.run(end) {
		end() // the dialer is being closed, which ends the dialing
	}
}

// bothFailed says why neither way led to a relay. What is wrong with both is
// said once.
func bothFailed(quic, tcp error) error {
	if dns := (*net.DNSError)(nil); errors.Is(quic, ErrWrongRelay) || errors.As(quic, &dns) {
		return quic
	}
	return fmt.Errorf("%w; and %w", quic, tcp)
}

// Close ends every session of the dialer and closes its socket.
func (d *Dialer) Close() error {
	d.close()
	err := d.tr.Close() // which knows each session, also those that moved away
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.moved.Wait()
	err = errors.Join(err, d.conn.Close())
	d.sessions.close()
	return err
}
