package hop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// measurePatience bounds a measurement: the relay gives it 10 s and answers
// within Patience.
const measurePatience = 10*time.Second + Patience

// Measure moves some bytes, at most wire.MaxMeasure, up to the relay or down
// from it, as far as they pass in 10 s, and returns how many passed each
// second. It takes that bandwidth from what else passes. A relay allows one at
// a time and wire.MaxMeasured bytes of a session in all; a refusal is a
// *wire.ResetError.
func (r *Registration) Measure(ctx context.Context, up bool, bytes int) (perSecond float64, err error) {
	return r.measure(ctx, up, bytes, wire.Open{})
}

// Measure moves some bytes, at most wire.MaxMeasure, up to the relay or down
// from it, as far as they pass in 10 s, and returns how many passed each
// second. It takes that bandwidth from what else passes. A relay allows one at
// a time and wire.MaxMeasured bytes of a session in all, and demands that the
// route's agent lists the token; a refusal is a *wire.ResetError.
func (a *Attachment) Measure(ctx context.Context, up bool, bytes int) (perSecond float64, err error) {
	return a.measure(ctx, up, bytes, a.to)
}

func (c *control) measure(ctx context.Context, up bool, bytes int, to wire.Open) (perSecond float64, err error) {
	if bytes < 1 || bytes > wire.MaxMeasure {
		return 0, fmt.Errorf("measure: %d bytes, a relay takes 1 to %d", bytes, wire.MaxMeasure)
	}
	ctx, cancel := context.WithTimeout(ctx, measurePatience)
	defer cancel()
	st, err := c.sess.OpenStream(ctx)
	if err != nil {
		return 0, fmt.Errorf("measure: %w", err)
	}
	defer st.Reset(wire.CodeNone) // frees the stream; the relay is done with it by then
	stop := context.AfterFunc(ctx, func() { st.SetDeadline(time.Now()) })
	defer stop()
	_, err = st.Write(wire.Measure{Down: !up, Bytes: uint32(bytes), Route: to.Route, Token: to.Token}.Append(nil))
	var moved int
	var took time.Duration
	switch {
	case err != nil:
	case up:
		moved, took, err = measureUp(st, bytes)
	default:
		moved, took, err = measureDown(st, bytes)
	}
	if err == nil && moved == 0 {
		err = errors.New("nothing passed")
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return 0, fmt.Errorf("measure: %w", err)
	}
	return float64(moved) / max(took, time.Microsecond).Seconds(), nil
}

const measureChunk = 16 << 10

// measureUp sends n bytes, or as many as the relay takes, and returns what the
// relay says of them.
func measureUp(st transport.Stream, n int) (moved int, took time.Duration, err error) {
	chunk := make([]byte, measureChunk)
	for n > 0 && err == nil {
		var k int
		k, err = st.Write(chunk[:min(n, len(chunk))])
		n -= k
	}
	if err == nil {
		err = st.CloseWrite()
	}
	// A relay whose time for this is up reads no further and answers.
	if reset, ok := errors.AsType[*wire.ResetError](err); err != nil && !(ok && reset.Code == wire.CodeNone) {
		return 0, 0, err
	}
	p, err := expect(st, wire.FrameMeasured)
	if err != nil {
		return 0, 0, err
	}
	m, err := wire.ParseMeasured(p)
	return int(m.Bytes), time.Duration(m.Time) * time.Microsecond, err
}

// measureDown takes n bytes, or as many as the relay sends. The clock starts
// with the first of them: the way there and back is no part of the rate.
func measureDown(st transport.Stream, n int) (moved int, took time.Duration, err error) {
	st.CloseWrite() // fails only if the relay has read what it needs
	chunk := make([]byte, measureChunk)
	begin := time.Now()
	for first := true; err == nil; first = false {
		var k int
		k, err = st.Read(chunk)
		if moved += k; moved > n {
			return 0, 0, fmt.Errorf("%w: more than the %d bytes that were asked for", wire.ErrMalformed, n)
		}
		if first && k < n && err == nil {
			begin, n, moved = time.Now(), n-k, 0
		}
	}
	if err != io.EOF {
		return 0, 0, err
	}
	return moved, time.Since(begin), nil
}
