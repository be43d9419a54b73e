package relay

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/blindrelay/blindrelay/relay/share"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// measureTime bounds one measurement. A slower path gets a measure of what
// passed until then.
const measureTime = 10 * time.Second

// measureChunk is what a measurement reads and writes at a time, in bytes. A
// measurement holds no more but the windows of its stream.
const measureChunk = 16 << 10

// measure serves a MEASURE of an endpoint that may ask for one, within the rates
// and the volume of its route. All measurements of a route have the share of one device: who
// measures over many connections gets no more.
func (s *session) measure(st transport.Stream, m wire.Measure, g *group) {
	if over := s.relay.registry.spent(g); over != nil {
		s.refuseMeasure(st, over.Code)
		s.relay.met(s, g, *over)
		return
	}
	if !s.enterMeasure(int64(m.Bytes)) {
		s.refuseMeasure(st, wire.CodeMeasureLimit)
		return
	}
	moved := 0
	defer func() {
		s.leaveMeasure(int64(moved))
		s.relay.registry.spend(g, int64(moved))
	}()
	// It takes no more than a forwarded stream would.
	up, down, ok := s.relay.budget.Join()
	if !ok {
		s.refuseMeasure(st, wire.CodeMemory)
		return
	}
	defer up.Leave()
	defer down.Leave()
	flow := g.measure.Flow(wire.Bulk)
	defer flow.Leave()
	defer context.AfterFunc(s.ctx, flow.Leave)()
	defer time.AfterFunc(measureTime, flow.Leave).Stop() // its turn may never come
	toRelay, toEndpoint := flow.Halves()
	counts := s.relay.metrics.measuredUp
	if m.Down {
		counts = s.relay.metrics.measuredDown
		moved = sendMeasure(st, int(m.Bytes), toEndpoint)
	} else {
		moved = takeMeasure(st, int(m.Bytes), toRelay)
	}
	counts.done.Inc()
	counts.bytes.Add(float64(moved))
}

func (s *session) refuseMeasure(st transport.Stream, code wire.Code) {
	st.Reset(code)
	s.relay.metrics.measurementsRefused.of(code).Inc()
}

// enterMeasure reports whether the session may measure so many bytes more.
func (s *session) enterMeasure(bytes int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.measuring || s.measured+bytes > wire.MaxMeasured {
		return false
	}
	s.measuring = true
	return true
}

func (s *session) leaveMeasure(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.measuring = false
	s.measured += bytes
}

// takeMeasure drops up to n bytes of the endpoint and says how long they took.
func takeMeasure(st transport.Stream, n int, half *share.Half) (taken int) {
	begin := time.Now()
	st.SetReadDeadline(begin.Add(measureTime))
	chunk := make([]byte, measureChunk)
	for taken < n {
		k, err := st.Read(chunk[:min(len(chunk), n-taken)])
		taken += k
		if half.Take(k) != nil {
			break // the time is up, or the session is over
		}
		if err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			st.Reset(wire.CodeCancelled)
			return taken
		}
	}
	took := time.Since(begin)
	st.StopRead()
	st.SetWriteDeadline(time.Now().Add(Patience))
	answer := wire.Measured{Bytes: uint32(taken), Time: uint32(took.Microseconds())}
	if _, err := st.Write(answer.Append(nil)); err != nil {
		st.Reset(wire.CodeCancelled)
		return taken
	}
	st.CloseWrite() // fails only if the endpoint reads no more
	return taken
}

// sendMeasure sends the endpoint up to n bytes.
func sendMeasure(st transport.Stream, n int, half *share.Half) (sent int) {
	st.StopRead()
	st.SetWriteDeadline(time.Now().Add(measureTime))
	chunk := make([]byte, measureChunk)
	for sent < n {
		next := min(len(chunk), n-sent)
		if half.Take(next) != nil {
			break // the time is up, or the session is over
		}
		k, err := st.Write(chunk[:next])
		sent += k
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			st.Reset(wire.CodeCancelled)
			return sent
		}
	}
	st.CloseWrite() // fails only if the endpoint reads no more
	return sent
}
