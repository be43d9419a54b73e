package transport

import (
	"io"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// tcpReader takes the frames of a session, in its read goroutine.
type tcpReader struct {
	s     *tcpSession
	spare *chunk // for the next DATA frame
}

// enter locks the session for a frame that was read. The caller unlocks it.
func (r *tcpReader) enter() error {
	s := r.s
	s.mu.Lock()
	s.heard = s.now()
	if s.err != nil {
		return errOver
	}
	return nil
}

// stream returns the stream of a frame, nil if it is forgotten. Streams of the
// other end up to the one that it names exist from then on. It needs mu.
func (r *tcpReader) stream(id uint32) (*tcpStream, error) {
	s, n := r.s, (id+1)/2
	switch {
	case id == 0:
		return nil, protocolError("a frame without a stream")
	case s.opensHere(id) && n > s.opened:
		return nil, protocolError("a frame of a stream that nobody opened")
	case !s.opensHere(id) && n > s.allowed:
		return nil, protocolError("more streams than allowed")
	}
	for !s.opensHere(id) && s.seen < n {
		s.seen++
		s.accept <- s.newStream(number(s.seen, !s.client))
	}
	return s.streams[id], nil
}

func (r *tcpReader) data(id uint32, n int, fin bool, from io.Reader) error {
	s := r.s
	if r.spare == nil {
		r.spare = s.chunk()
	}
	c := r.spare
	if _, err := io.ReadFull(from, c.b[:n]); err != nil {
		return err
	}
	err := r.enter()
	defer s.mu.Unlock()
	if err != nil {
		return err
	}
	st, err := r.stream(id)
	if st == nil {
		return err
	}
	switch {
	case n > st.window:
		return protocolError("bytes beyond a stream's window")
	case st.fin && st.oweReset:
		return nil // the other end does not know yet
	case st.fin:
		return protocolError("bytes beyond a stream's end")
	}
	st.window -= n
	c.r, c.w = 0, n
	r.spare = st.received(c)
	if fin {
		st.fin = true
		poke(st.readable)
		s.settle(st)
	}
	return nil
}

func (r *tcpReader) settings(window, streams uint32) error {
	s := r.s
	err := r.enter()
	defer s.mu.Unlock()
	if err != nil {
		return err
	}
	if s.client && streams < firstStreams {
		return protocolError("a relay allows fewer streams than every endpoint may count on")
	}
	grown := int64(window) - s.window
	s.window = int64(window)
	for _, st := range s.streams {
		st.credit += grown
		s.sendable(st)
	}
	s.allow(streams)
	return nil
}

func (r *tcpReader) streams(total uint32) error {
	err := r.enter()
	defer r.s.mu.Unlock()
	if err == nil {
		r.s.allow(total)
	}
	return err
}

// allow takes how many streams may be opened here in all. It needs mu.
func (s *tcpSession) allow(total uint32) {
	if total = min(total, maxStreams); total > s.mayOpen {
		s.mayOpen = total
		close(s.more)
		s.more = make(chan struct{})
	}
}

func (r *tcpReader) credit(id uint32, n uint32) error {
	err := r.enter()
	defer r.s.mu.Unlock()
	if err != nil {
		return err
	}
	st, err := r.stream(id)
	if st == nil {
		return err
	}
	if st.credit += int64(n); st.credit > maxWindow {
		return protocolError("a window beyond what it can be")
	}
	r.s.sendable(st)
	return nil
}

func (r *tcpReader) reset(id uint32, code uint32) error {
	err := r.enter()
	defer r.s.mu.Unlock()
	if err != nil {
		return err
	}
	st, err := r.stream(id)
	if st == nil {
		return err
	}
	reset := &wire.ResetError{Code: wire.FromQUIC(uint64(code))}
	if !st.fin { // a half that is complete stays so
		st.stopReading(reset)
	}
	st.stopWriting(reset)
	st.fin, st.finished = true, true
	st.oweReset, st.oweStop, st.oweFin = false, false, false
	r.s.settle(st)
	return nil
}

func (r *tcpReader) stop(id uint32) error {
	err := r.enter()
	defer r.s.mu.Unlock()
	if err != nil {
		return err
	}
	st, err := r.stream(id)
	if st == nil || st.finished {
		return err
	}
	st.stopWriting(&wire.ResetError{Code: wire.CodeNone})
	st.oweFin = true // so that the other end forgets the half
	r.s.sendable(st)
	return nil
}

func (r *tcpReader) ping(ack bool, data [8]byte) error {
	s := r.s
	err := r.enter()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		return err
	case !ack:
		s.pong = &data // of several that were not answered, the last
		poke(s.wake)
		return nil
	case !s.awaited:
		return nil
	}
	s.awaited = false
	if rtt := s.now() - s.pinged; s.rtt == 0 {
		s.rtt = rtt
	} else {
		s.rtt += (rtt - s.rtt) / 8
	}
	close(s.answered)
	s.answered = make(chan struct{})
	return nil
}

func (r *tcpReader) goaway(code uint32, text []byte) error {
	r.s.finish(&wire.ClosedError{Code: wire.FromQUIC(uint64(code)), Text: goodbyeText(string(text)), Remote: true}, false)
	return errOver
}

// chunk returns room for a frame.
func (s *tcpSession) chunk() *chunk {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.spares) - 1
	if last < 0 {
		return new(chunk)
	}
	c := s.spares[last]
	s.spares = s.spares[:last]
	return c
}
