package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/quic-go/quic-go"
)

// What quic-go 0.65 demands of a migration, and what follows from it.
//
//   - Only a client may begin, once the handshake is confirmed, and only if the
//     server has not forbidden it. Its Transport must not use empty connection
//     IDs. The server gives out four connection IDs at a time, and each path
//     takes one. They come back when a path is closed, but not while nothing
//     gets through; so a path that failed is probed again the next time, and all
//     checks of a socket are one path: never more than three IDs are in use.
//   - A Transport that took part in a probe belongs to the connection from then
//     on: closing it closes the connection, even if that has moved on or the
//     probe failed. So its socket can be closed (see slot.go), but not the
//     Transport itself before the connection is over. maxMoves bounds them.
//   - Stateless resets are recognized only by the Transport that dialed. After
//     a migration a restarted relay is noticed as silence.
//   - Switch waits for the next event of the connection, and the server follows
//     only when it receives something other than a probe from the new address.
//     A Check brings about both.
//   - A probe is not sent while the congestion window is full, as it is soon when
//     somebody uploads into a dead path. Then the context ends the attempt.
//   - A server does not answer the PATH_CHALLENGE of an address that it knows
//     (it should: RFC 9000, section 8.2.2), but acknowledges it, which is what
//     Check waits for.
//   - Both sides start over with congestion window, round trip time and packet
//     size (1280 bytes), as RFC 9000, section 9.4, demands.
//
// A change of address needs no migration to be survived. The dialer's socket is
// bound to no address, so its packets leave by the new route as soon as there is
// one, and the relay follows as it follows a NAT that has forgotten. It does so
// when something is sent: a keep-alive, or a Check. Migrate is for what this
// leaves open. It asks whether the relay can be reached by the new way and stays
// where it is if not; a new port gets past a NAT or firewall that has stale
// state; packet size and congestion control start over, where a smaller MTU on
// the new way would else swallow every full packet; and the connection ID
// changes, so that the two networks cannot tell that they carry the same session.

// maxMoves is how often a session migrates. Each time leaves 25 KiB and two
// goroutines behind until the session is over (measured with 300 sessions).
const maxMoves = 16

// paths are the sockets that a dialed session has moved to.
type paths struct {
	dialer *Dialer
	conn   *quic.Conn

	turn      chan struct{} // holds one token while nobody migrates
	moved     *quic.Path    // in use, nil if it was dialed; owned by who has the token
	spare     *quic.Path    // to the last slot, which did not work; nil if none; as moved
	checkTurn chan struct{} // holds one token while nobody checks
	check     *quic.Path    // of checks on checked; nil before the first; owned by who has that token
	checked   *quic.Transport

	mu    sync.Mutex
	tr    *quic.Transport // in use
	slots []*slot         // of all migrations, with their Transports
	over  bool            // the session is over, the slots are being closed
}

func newPaths(d *Dialer, conn *quic.Conn) *paths {
	p := &paths{dialer: d, conn: conn, turn: make(chan struct{}, 1), checkTurn: make(chan struct{}, 1), tr: d.tr}
	p.turn <- struct{}{}
	p.checkTurn <- struct{}{}
	return p
}

func (p *paths) active() *quic.Transport {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tr
}

// Migrate takes turns: the second of two calls begins when the first is done.
func (s quicSession) Migrate(ctx context.Context) error {
	p := s.paths
	if p == nil || p.dialer.open == nil {
		return fmt.Errorf("move a session that has no sockets of its own: %w", errors.ErrUnsupported)
	}
	// Probe does not notice the end of the connection.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.conn.Context(), cancel)()
	select {
	case <-p.turn:
		defer func() { p.turn <- struct{}{} }()
	case <-ctx.Done():
		return s.moveError(ctx.Err())
	}
	next, err := p.add()
	if err != nil {
		return s.moveError(err)
	}
	if p.spare == nil {
		if p.spare, err = s.conn.AddPath(next.tr); err != nil {
			next.retire()
			return fmt.Errorf("move the session to another socket (%v): %w", err, errors.ErrUnsupported)
		}
	}
	path := p.spare
	if err := path.Probe(ctx); err != nil {
		return s.moveError(err)
	}
	if err := path.Switch(); err != nil {
		return s.moveError(err)
	}
	p.spare = nil
	old := p.use(next.tr)
	s.Check(ctx) // takes the relay along; if it does not answer now, the next packet will
	if old != nil {
		old.retire()
	}
	if p.moved != nil {
		p.moved.Close()
	}
	p.moved = path
	return nil
}

// moveError is what Migrate returns: the session's error if that is over.
func (s quicSession) moveError(err error) error {
	if over := s.Err(); over != nil {
		return over
	}
	return fmt.Errorf("move the session to another socket: %w", err)
}

// checkPath returns the path by which the socket in use is checked.
func (p *paths) checkPath() (*quic.Path, error) {
	tr := p.active()
	if p.checked == tr {
		return p.check, nil
	}
	if p.check != nil {
		p.check.Close() // gives its connection ID back
	}
	var err error
	p.check, err = p.conn.AddPath(tr)
	if err != nil {
		p.check, p.checked = nil, nil
		return nil, err
	}
	p.checked = tr
	return p.check, nil
}

// add opens a socket for the session to move to, or returns the one that did
// not work the last time.
func (p *paths) add() (*slot, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.over:
		return nil, net.ErrClosed
	case p.spare != nil:
		return p.slots[len(p.slots)-1], nil
	case len(p.slots) == maxMoves:
		return nil, fmt.Errorf("it has moved %d times: %w", maxMoves, errors.ErrUnsupported)
	}
	pc, err := p.dialer.open()
	if err != nil {
		return nil, err
	}
	if len(p.slots) == 0 {
		if !p.dialer.keeps() {
			pc.Close()
			return nil, net.ErrClosed
		}
		context.AfterFunc(p.conn.Context(), p.end)
	}
	s := newSlot(pc)
	p.slots = append(p.slots, s)
	return s, nil
}

// keeps counts a session that migrates; Close waits until it is over.
func (d *Dialer) keeps() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.moved.Add(1)
	return true
}

// use makes tr the one in use and returns the slot that was, nil if that was
// the dialer's own.
func (p *paths) use(tr *quic.Transport) (old *slot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.slots {
		if s.tr == p.tr {
			old = s
		}
	}
	p.tr = tr
	return old
}

// end closes every slot when the session is over.
func (p *paths) end() {
	defer p.dialer.moved.Done()
	p.mu.Lock()
	p.over = true
	slots := p.slots
	p.mu.Unlock()
	for _, s := range slots {
		s.close()
	}
}
