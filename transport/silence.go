package transport

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// heard knows since when nothing was received on a connection. quic-go tells
// how many packets came, not when, so the count is looked at: by each caller of
// silent, and by a timer between them, so that the answer is right also for one
// who asks seldom. Nothing is done for each packet, and nothing at all on a
// connection of which nobody asks.
type heard struct {
	conn      *quic.Conn
	keepAlive time.Duration // of the end that has one

	mu      sync.Mutex
	packets uint64    // received at the last look
	at      time.Time // of the look that found them; zero before the first
	looked  time.Time // of the last look
}

func newHeard(conn *quic.Conn, keepAlive time.Duration) *heard {
	return &heard{conn: conn, keepAlive: keepAlive}
}

// lookEvery is how long it may take until a packet is seen: half a keep-alive.
func (h *heard) lookEvery() time.Duration { return h.keepAlive / 2 }

// tick looks until the connection is over.
func (h *heard) tick() {
	if h.conn.Context().Err() != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.look(h.conn.ConnectionStats().PacketsReceived, time.Now())
	time.AfterFunc(h.lookEvery(), h.tick)
}

// look notes how many packets have come until now. Who could not look for long,
// because the machine slept or has too much to do, knows nothing of the time in
// between: packets may still wait in the socket.
func (h *heard) look(packets uint64, now time.Time) {
	if packets != h.packets || now.Sub(h.looked) > 2*h.lookEvery() {
		h.packets, h.at = packets, now
	}
	h.looked = now
}

func (h *heard) silent() time.Duration {
	stats := h.conn.ConnectionStats()
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.at.IsZero() {
		time.AfterFunc(h.lookEvery(), h.tick)
	}
	h.look(stats.PacketsReceived, now)
	// A keep-alive goes out after one and a half probe timeouts at the
	// earliest (RFC 9000, section 10.1.2, and quic-go).
	pto := stats.SmoothedRTT + 4*stats.MeanDeviation + maxAckDelay
	due := max(h.keepAlive, pto*3/2) + Patience(stats.SmoothedRTT)
	if d := now.Sub(h.at); d > due {
		return d
	}
	return 0
}

// maxAckDelay is by how much an end may delay an acknowledgement; quic-go's.
const maxAckDelay = 26 * time.Millisecond

func (s quicSession) Silent() time.Duration { return s.heard.silent() }

// Check sends a PATH_CHALLENGE (RFC 9000, section 8.2) along the path that is in
// use. A relay acknowledges it. It answers in full only if it sees a new address
// behind it, and then follows there at once, so that a check also shortens what
// a NAT that has forgotten costs.
//
// Silence in between is told from an answer by time: what comes sooner than
// three quarters of the shortest round trip after the call was on its way. With
// bulk data that comes in while nothing gets out, the first check succeeds; with
// a full congestion window the challenge has to wait for room in it, of which
// there is none if nothing comes back.
//
// Checks take turns: the second of two begins when the first is done.
func (s quicSession) Check(ctx context.Context) error {
	if s.paths == nil {
		return fmt.Errorf("check a device or an agent: %w", errors.ErrUnsupported)
	}
	if err := s.Err(); err != nil {
		return err
	}
	select {
	case <-s.paths.checkTurn:
		defer func() { s.paths.checkTurn <- struct{}{} }()
	case <-ctx.Done():
		return fmt.Errorf("the relay has not answered: %w", ctx.Err())
	case <-s.Done():
		return s.Err()
	}
	path, err := s.paths.checkPath()
	if err != nil {
		return fmt.Errorf("check the relay (%v): %w", err, errors.ErrUnsupported)
	}
	ctx, cancel := context.WithCancel(ctx)
	answered := make(chan error, 1) // sent to once, by the goroutine below
	go func() { answered <- path.Probe(ctx) }()
	defer func() {
		cancel()
		<-answered
	}()
	stats := s.conn.ConnectionStats()
	early := time.NewTimer(stats.MinRTT * 3 / 4)
	defer early.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	before, settled := stats.PacketsReceived, false
	for {
		select {
		case err := <-answered:
			answered <- err // for the deferred receive
			if err == nil {
				return nil
			}
			if ctx.Err() == nil {
				return fmt.Errorf("check the relay: %w", err)
			}
			return fmt.Errorf("the relay has not answered: %w", ctx.Err())
		case <-early.C:
			before, settled = s.conn.ConnectionStats().PacketsReceived, true
		case <-look.C:
			if settled && s.conn.ConnectionStats().PacketsReceived != before {
				return nil
			}
		case <-s.Done():
			return s.Err()
		}
	}
}
