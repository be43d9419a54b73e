package e2e

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// A writer learns at most so late what was read.
const (
	ackEvery  = 256 << 10 // bytes
	ackWithin = 100 * time.Millisecond
)

// ack says what a reader of one half wants next, and, if the stream has had
// several carriers, what has come over those that it has: id u64 | next u64 |
// count u8 (0..16) | count x (number u32 | bytes of records u64). An ACK frame
// has any number of them.
type ack struct {
	id, next uint64
	came     []arrived
}

type arrived struct {
	number uint32
	bytes  uint64
}

const (
	ackLen     = 8 + 8 + 1
	arrivedLen = 4 + 8
	ackMost    = ackLen + maxCarriers*arrivedLen
)

func (a ack) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, a.id)
	b = binary.BigEndian.AppendUint64(b, a.next)
	b = append(b, byte(len(a.came)))
	for _, k := range a.came {
		b = binary.BigEndian.AppendUint32(b, k.number)
		b = binary.BigEndian.AppendUint64(b, k.bytes)
	}
	return b
}

// parseAck reads the first ack of p and returns what follows it.
func parseAck(p []byte) (a ack, rest []byte, err error) {
	if len(p) < ackLen {
		return a, nil, fmt.Errorf("%w: ACK is cut", ErrFrame)
	}
	a.id, a.next = binary.BigEndian.Uint64(p), binary.BigEndian.Uint64(p[8:])
	n := int(p[ackLen-1])
	p = p[ackLen:]
	if n > maxCarriers || len(p) < n*arrivedLen {
		return a, nil, fmt.Errorf("%w: ACK of %d carriers", ErrFrame, n)
	}
	for range n {
		a.came = append(a.came, arrived{binary.BigEndian.Uint32(p), binary.BigEndian.Uint64(p[4:])})
		p = p[arrivedLen:]
	}
	return a, p, nil
}

// oweAck notes that n more bytes were read, and that the writer has to be told
// if there is news. Needs mu.
func (c *Conn) oweAck(n int) {
	in := &c.in
	in.unsaid += n
	want := in.wanted()
	if want == in.told && !in.fresh {
		return
	}
	urgent := want == stopped || in.unsaid >= ackEvery || in.last > 0 && want == in.last
	if in.urgent || in.dirty && !urgent {
		return
	}
	in.dirty, in.urgent = true, urgent
	c.s.oweAck(c, urgent)
}

// ack returns what the writer has to be told now.
func (c *Conn) ack() ack {
	c.mu.Lock()
	defer c.mu.Unlock()
	in := &c.in
	in.dirty, in.urgent, in.unsaid, in.fresh = false, false, 0, false
	in.told = in.wanted()
	a := ack{id: c.name.id, next: in.told}
	if !c.alone() {
		for _, k := range c.carriers {
			a.came = append(a.came, arrived{k.number, k.came})
		}
	}
	return a
}

// sayAgain makes the next acknowledgment due, whatever the other endpoint was
// told before.
func (c *Conn) sayAgain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in.told = 0
	c.in.urgent, c.in.dirty = false, false
	c.oweAck(ackEvery)
}

// acked takes over what the reader of this stream's write half said.
func (c *Conn) acked(a ack) error {
	c.mu.Lock()
	err := c.acknowledge(a.next)
	c.arrived(a.came)
	c.mu.Unlock()
	c.settle()
	return err
}

// arrived takes over what has come over which carrier. Needs mu.
func (c *Conn) arrived(came []arrived) {
	if len(came) == 0 {
		return
	}
	now := time.Now()
	for _, k := range c.carriers {
		for _, a := range came {
			if a.number == k.number {
				k.pace.hear(a.bytes, now)
			}
		}
	}
	c.wakeCarriers()
}

// oweAck takes a stream on the list of those that have something to say.
func (s *session) oweAck(c *Conn, urgent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirty[c] = struct{}{}
	switch {
	case urgent:
		s.ackAt = time.Time{}
		wake(s.kick)
	case len(s.dirty) == 1:
		s.ackAt = time.Now().Add(ackWithin)
		wake(s.kick)
	}
}

// acks takes the acknowledgments that are due, or says when they will be.
func (s *session) acks(now time.Time) (due []*Conn, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.dirty) == 0 || len(s.links) == 0 {
		return nil, sessionLife
	}
	if wait := s.ackAt.Sub(now); wait > 0 {
		return nil, wait
	}
	for c := range s.dirty {
		due = append(due, c)
	}
	clear(s.dirty)
	return due, sessionLife
}

// sendAcks tells the other endpoint what was read.
func (s *session) sendAcks(l *Link, due []*Conn) {
	var p []byte
	for _, c := range due {
		a := c.ack()
		p = a.append(p)
		if len(p) > MaxFramePayload-ackMost {
			l.say(Frame{Type: frameAck, Payload: p})
			p = nil
		}
	}
	if len(p) > 0 {
		l.say(Frame{Type: frameAck, Payload: p})
	}
}

// control handles the frames that both sides treat alike. An error ends the
// session.
func (s *session) control(f Frame) error {
	p := f.Payload
	switch f.Type {
	case frameGoAway:
		if len(p) < 2 || len(p) > 2+maxReason {
			return fmt.Errorf("%w: GOAWAY of %d bytes", ErrFrame, len(p))
		}
		return &GoAwayError{Code: wire.Code(binary.BigEndian.Uint16(p)), Reason: string(p[2:])}
	case frameAck:
		for len(p) > 0 {
			a, rest, err := parseAck(p)
			if err != nil {
				return err
			}
			if c := s.conn(a.id); c != nil {
				if err := c.acked(a); err != nil {
					return err
				}
			}
			p = rest
		}
	case frameCancel:
		if len(p) != 10 {
			return fmt.Errorf("%w: CANCEL of %d bytes", ErrFrame, len(p))
		}
		s.cancelled(binary.BigEndian.Uint64(p), wire.Code(binary.BigEndian.Uint16(p[8:])))
	}
	return nil
}

func cancelFrame(id uint64, code wire.Code) Frame {
	p := binary.BigEndian.AppendUint64(nil, id)
	return Frame{Type: frameCancel, Payload: binary.BigEndian.AppendUint16(p, uint16(code))}
}
