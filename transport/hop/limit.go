package hop

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// Limit is the relay's latest word on one limit. It is the relay's own and not
// to be trusted.
type Limit struct {
	wire.Limit
	Received time.Time
}

// isLimit reports whether a code names a limit that LIMIT may tell of, in this
// version. It bounds what a session keeps: one Limit for each.
func isLimit(c wire.Code) bool {
	switch c {
	case wire.CodeMemory, wire.CodeDeviceLimit, wire.CodeStreamLimit, wire.CodeVolumeLimit,
		wire.CodeRouteRate, wire.CodeDeviceRate, wire.CodeEgressRate, wire.CodeRelayStreams:
		return true
	}
	return false
}

// hear takes the next frame behind the greeting. It returns the GOODBYE, which
// is the last.
func (c *control) hear() (*wire.Goodbye, error) {
	f, err := wire.ReadFrame(c.st)
	if err != nil {
		return nil, err
	}
	switch {
	case f.Type == wire.FrameGoodbye:
		g, err := wire.ParseGoodbye(f.Payload)
		return &g, err
	case f.Type == wire.FrameLimit:
		l, err := wire.ParseLimit(f.Payload)
		if err == nil {
			c.heardLimit(l)
		}
		return nil, err
	case f.Type == wire.FrameReceipt && c.agent:
		r, err := wire.ParseReceipt(f.Payload)
		if err == nil {
			c.mu.Lock()
			c.receipt = string(r)
			c.mu.Unlock()
			c.tell()
		}
		return nil, err
	}
	return nil, fmt.Errorf("%w: type 0x%02x behind the greeting", wire.ErrMalformed, uint8(f.Type))
}

// heardLimit replaces what was said of the same limit before.
func (c *control) heardLimit(l wire.Limit) {
	if !isLimit(l.Code) {
		return
	}
	c.mu.Lock()
	i, found := slices.BinarySearchFunc(c.limits, l.Code, func(have Limit, code wire.Code) int { return cmp.Compare(have.Code, code) })
	if !found {
		c.limits = slices.Insert(c.limits, i, Limit{})
	}
	c.limits[i] = Limit{l, time.Now()}
	c.mu.Unlock()
	c.tell()
}

// tell makes News ready.
func (c *control) tell() {
	select {
	case c.news <- struct{}{}:
	default:
	}
}

// News gets a value when the relay has said something of its limits, or given a
// receipt, since the value before. It is for one reader.
func (c *control) News() <-chan struct{} { return c.news }

// Limits returns what the relay has said of its limits, the latest word on
// each, in the order of their codes. Limits that this package does not know are
// left out.
func (c *control) Limits() []Limit {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.limits)
}

// Receipt returns the relay's latest receipt on this session; before the first
// that which Register has shown. Update shows it.
func (r *Registration) Receipt() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.receipt
}
