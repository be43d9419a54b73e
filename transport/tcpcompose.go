package transport

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

// compose fills out with what is owed, at most about maxBatch bytes, and reports
// whether they are the last. It needs mu.
func (s *tcpSession) compose() (last bool) {
	if s.trim {
		s.trim = false
		s.out = newOutbox()
	}
	s.out.b = s.out.b[:0]
	if !s.greeted {
		s.greeted = true
		s.out.settings(s.windows)
	}
	if s.err != nil {
		if s.goodbye != nil {
			s.out.f.WriteGoAway(0, http2.ErrCode(s.goodbye.Code), []byte(s.goodbye.Text))
		}
		return true
	}
	if s.pong != nil {
		s.out.f.WritePing(true, *s.pong)
		s.pong = nil
	}
	if s.grant {
		s.grant = false
		s.out.streams(s.allowed)
	}
	for len(s.controls) > 0 && len(s.out.b) < maxBatch/4 {
		st := s.controls[0]
		s.controls = s.controls[1:]
		st.inControl = false
		s.composeControl(st)
	}
	for len(s.ready) > 0 && s.out.room() > 0 {
		st := s.ready[0]
		s.ready = s.ready[1:]
		st.inData = false
		s.composeData(st)
	}
	if len(s.out.b) > 0 || s.ping {
		now := s.now()
		if s.ping || !s.awaited && now-s.pinged >= pingEvery {
			s.ping, s.awaited, s.pinged = false, true, now
			s.out.f.WritePing(false, [8]byte(binary.BigEndian.AppendUint64(nil, uint64(now))))
		}
		s.sent = now
	}
	return false
}

func (s *tcpSession) composeControl(st *tcpStream) {
	switch {
	case st.oweReset:
		st.oweReset = false
		s.out.f.WriteRSTStream(st.id, http2.ErrCode(st.code))
	case st.oweStop:
		st.oweStop = false
		s.out.stop(st.id)
	case st.consumed > 0 && st.readErr == nil && !st.fin:
		s.out.f.WriteWindowUpdate(st.id, uint32(st.consumed))
		st.window += st.consumed
		st.consumed = 0
	}
	s.settle(st)
}

// composeData sends what st may send and the batch has room for, and its end.
func (s *tcpSession) composeData(st *tcpStream) {
	n := 0
	if st.writeErr == nil && st.credit > 0 {
		n = int(min(int64(len(st.pending)), st.credit, int64(s.out.room())))
	}
	fin := st.oweFin && (st.writeErr != nil || n == len(st.pending))
	if n == 0 && !fin {
		s.settle(st)
		return
	}
	s.out.f.WriteData(st.id, fin, st.pending[:n])
	st.pending = st.pending[n:]
	st.credit -= int64(n)
	if fin {
		st.oweFin, st.finished = false, true
		s.settle(st)
		return
	}
	if len(st.pending) == 0 {
		poke(st.writable)
	}
	s.sendable(st)
}

// control queues st for a frame that it owes. It needs mu.
func (s *tcpSession) control(st *tcpStream) {
	if st.inControl || st.forgotten || s.err != nil {
		return
	}
	st.inControl = true
	s.controls = append(s.controls, st)
	poke(s.wake)
}

// sendable queues st for DATA if it can send any. It needs mu.
func (s *tcpSession) sendable(st *tcpStream) {
	if st.inData || st.finished || s.err != nil || !st.oweFin && (len(st.pending) == 0 || st.credit <= 0) {
		return
	}
	st.inData = true
	s.ready = append(s.ready, st)
	poke(s.wake)
}

// settle forgets a stream whose halves are both over for both ends and that
// waits in no queue, and lets the other end open another one for it. It needs mu.
func (s *tcpSession) settle(st *tcpStream) {
	queued := st.inControl || st.inData
	if s.err != nil || st.forgotten || queued || !st.accepted || !st.fin || !st.finished || st.readErr == nil && len(st.chunks) > 0 {
		return
	}
	st.forgotten = true
	delete(s.streams, st.id)
	if s.opensHere(st.id) || s.allowed == maxStreams {
		return
	}
	s.allowed++
	s.grant = true
	poke(s.wake)
}

// free takes a chunk back. It needs mu.
func (s *tcpSession) free(c *chunk) {
	if len(s.spares) < freeChunks && s.err == nil {
		s.spares = append(s.spares, c)
	}
}

func (s *tcpSession) opensHere(id uint32) bool { return s.client == (id%2 == 1) }
