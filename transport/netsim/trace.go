package netsim

import (
	"bytes"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"time"
)

// Trace is a link that was recorded as opportunities to deliver 1500 bytes, in
// the format of mahimahi (Netravali et al., "Mahimahi: Accurate Record-and-
// Replay for HTTP", USENIX ATC 2015): each line is a time in whole milliseconds
// at which one opportunity comes, lines do not go back in time, and the trace
// repeats with the last line's time as its period. An opportunity delivers parts
// of packets and several packets; what finds no packet waiting is wasted. A
// Trace does not change and may be shared by links.
type Trace struct {
	at []uint32 // ms, ascending; the last is the period and is above 0
}

const (
	opportunity  = 1500            // bytes
	maxTrace     = 4 << 20         // lines
	maxTraceTime = 24 * 60 * 60000 // ms
)

// ParseTrace reads a trace of at most 4,194,304 lines and 24 hours. Empty lines
// and lines that begin with # are skipped.
func ParseTrace(text []byte) (*Trace, error) {
	t := &Trace{}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		ms, err := strconv.ParseUint(string(line), 10, 32)
		switch {
		case err != nil || ms > maxTraceTime:
			return nil, fmt.Errorf("trace line %d: %.20q is not a time in milliseconds up to 24 hours", n, line)
		case len(t.at) > 0 && uint32(ms) < t.at[len(t.at)-1]:
			return nil, fmt.Errorf("trace line %d: %d ms comes after %d ms; times must not go back", n, ms, t.at[len(t.at)-1])
		case len(t.at) == maxTrace:
			return nil, fmt.Errorf("trace line %d: more than %d lines", n, maxTrace)
		}
		t.at = append(t.at, uint32(ms))
	}
	if len(t.at) == 0 || t.at[len(t.at)-1] == 0 {
		return nil, errors.New("trace: no line with a time above 0 ms, which would be its period")
	}
	return t, nil
}

// Period is the time after which the trace repeats.
func (t *Trace) Period() time.Duration {
	return time.Duration(t.at[len(t.at)-1]) * time.Millisecond
}

// Rate is the trace's mean, in bit/s.
func (t *Trace) Rate() int64 {
	return int64(float64(len(t.at)) * opportunity * 8 / t.Period().Seconds())
}

// cursor walks through a trace that repeats.
type cursor struct {
	trace *Trace
	base  int64 // ns, start of the present repetition
	next  int   // index of the present opportunity
	left  int   // bytes that it can still deliver
}

func newCursor(t *Trace) cursor { return cursor{trace: t, left: opportunity} }

// time returns when the present opportunity comes.
func (c *cursor) time() int64 {
	return c.base + int64(c.trace.at[c.next])*int64(time.Millisecond)
}

// step goes to the next opportunity.
func (c *cursor) step() {
	c.left = opportunity
	if c.next++; c.next == len(c.trace.at) {
		c.next = 0
		c.base += int64(c.trace.Period())
	}
}

// seek wastes the opportunities before t.
func (c *cursor) seek(t int64) {
	if c.time() >= t {
		return
	}
	period := int64(c.trace.Period())
	if t > c.base+period {
		c.base += (t - c.base - 1) / period * period // t is after base, at most a period
		c.next = 0
	}
	c.left = opportunity
	ms := uint32((t - c.base + int64(time.Millisecond) - 1) / int64(time.Millisecond))
	c.next += sort.Search(len(c.trace.at)-c.next, func(i int) bool { return c.trace.at[c.next+i] >= ms })
}
