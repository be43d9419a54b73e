package transport

import (
	"context"
	"net"
	"sync"
	"sync/atomic"

	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/quic-go/quic-go"
)

// acceptQueue is how many sessions of one carrier may wait until they are
// accepted, those in a handshake included: as many as may come in 4 s after a
// rest with the default limits, 64 KiB of memory.
const acceptQueue = 4096

// queue holds sessions until they are accepted. Who begins a handshake takes a
// place first, so that no session waits for one, and none comes for nothing.
type queue struct {
	sessions chan Session // sent to with a place alone, so it never blocks; closed by nobody
	taken    atomic.Int64 // places
	done     chan struct{}
	stopping sync.Once // closes done
}

func newQueue(places int) *queue {
	return &queue{sessions: make(chan Session, places), done: make(chan struct{})}
}

// take takes a place, unless all are taken.
func (q *queue) take() bool {
	if q.taken.Add(1) > int64(cap(q.sessions)) {
		q.taken.Add(-1)
		return false
	}
	return true
}

// give gives a place back to which no session came.
func (q *queue) give() { q.taken.Add(-1) }

// put puts a session in the place that was taken for it.
func (q *queue) put(s Session) {
	select {
	case <-q.done:
		q.give()
		refuse(s)
	default:
		q.sessions <- s
	}
}

// Accept returns the next session, net.ErrClosed after Stop.
func (q *queue) Accept(ctx context.Context) (Session, error) {
	select {
	case s := <-q.sessions:
		q.give()
		return s, nil
	case <-q.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// stop has Accept and put take no more.
func (q *queue) stop() { q.stopping.Do(func() { close(q.done) }) }

// empty refuses what nobody has accepted. No put may run any more.
func (q *queue) empty() {
	for {
		select {
		case s := <-q.sessions:
			q.give()
			refuse(s)
		default:
			return
		}
	}
}

// refuse ends a session that came too late.
func refuse(s Session) { s.Close(wire.CodeShutdown, "the relay is going down") }

// door is where the connections of one QUIC socket come in. quic-go has room
// for 32 whose handshake is done, and refuses what comes when it is full. So a
// goroutine waits for each handshake that is under way, and one always.
type door struct {
	ln     *quic.Listener // set before opened is closed
	opened chan struct{}

	mu    sync.Mutex
	under int // handshakes under way
	// waiting are the goroutines, at least as many as are under way and one, at
	// most one more; each with what sends it away.
	waiting map[context.Context]context.CancelFunc
}

func newDoor() *door {
	return &door{opened: make(chan struct{}), waiting: make(map[context.Context]context.CancelFunc)}
}

// began counts a handshake, and returns what another goroutine has to wait with;
// nil if enough wait.
func (d *door) began() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.under++
	if len(d.waiting) > d.under {
		return nil
	}
	return d.enter()
}

// ended counts one handshake less. A goroutine that waits for nothing any more
// leaves.
func (d *door) ended() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.under--
	for ctx, leave := range d.waiting {
		if len(d.waiting) <= d.under+1 {
			return
		}
		delete(d.waiting, ctx)
		leave()
	}
}

// enter adds a goroutine that waits. Needs mu.
func (d *door) enter() context.Context {
	ctx, leave := context.WithCancel(context.Background())
	d.waiting[ctx] = leave
	return ctx
}

// accept waits for a connection whose handshake is done. It fails once the
// listener is closed, or the goroutine was sent away.
func (d *door) accept(ctx context.Context) (*quic.Conn, error) {
	<-d.opened
	conn, err := d.ln.Accept(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	if leave := d.waiting[ctx]; leave != nil {
		delete(d.waiting, ctx)
		leave()
	}
	return conn, err
}

// again returns what the goroutine that accepted is to wait with again; nil if
// enough others wait.
func (d *door) again() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.waiting) > d.under {
		return nil
	}
	return d.enter()
}
