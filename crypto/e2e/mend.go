package e2e

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

const (
	// maxFutile is how many carriers in a row may bring nothing, over a link
	// that works, before their stream is given up.
	maxFutile = 8
	mendPause = 25 * time.Millisecond // doubles with each that did
	mendMost  = 2 * time.Second
)

var (
	errLinkLost = errors.New("the connection to the relay is gone")
	errReplaced = errors.New("another carrier has taken its place")
	errNoAnswer = errors.New("the server did not take up a stream again within 10 s")
)

// mend finds a carrier in the place of lost ones, after a pause. It runs at the
// opener, once for each stream at a time.
func (c *Conn) mend(pause time.Duration) {
	for {
		if !c.pause(pause) {
			return
		}
		l := c.s.awaitLink(c.gone)
		if l == nil {
			return
		}
		_ = c.carry(l) // kept as the stream's lastLoss
		if c.mended(l) {
			return
		}
		c.mu.Lock()
		pause = c.patience()
		c.mu.Unlock()
	}
}

// pause reports whether there is something to mend after it.
func (c *Conn) pause(d time.Duration) bool {
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-c.gone:
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead.Load() == nil && c.served() {
		c.mending = false
		return false
	}
	return c.dead.Load() == nil
}

// patience is how long to wait before the next carrier. Needs mu.
func (c *Conn) patience() time.Duration {
	if c.futile < 2 {
		return 0
	}
	return min(mendPause<<(c.futile-1), mendMost)
}

// mended reports whether mend has nothing left to do, after an attempt on l.
func (c *Conn) mended(l *Link) bool {
	defer c.retire()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.dead.Load() != nil:
		return true
	case c.served():
		c.mending = false
		return true
	case c.futile >= maxFutile && len(c.carriers) == 0 && l.reason() == nil:
		c.die(c.lossError(), wire.CodeTimeout)
		return true
	}
	return false
}

// served reports whether each half is delivered or has a carrier that stands and
// that its writer has not ended. Needs mu.
func (c *Conn) served() bool {
	out, in := c.out.done(), c.in.stopped || c.in.ended()
	for _, k := range c.carriers {
		if k.stands() {
			out = out || !k.sentFIN
			in = in || !k.seenFIN
		}
	}
	return out && in
}

// stands reports whether the other endpoint has taken the carrier, or has taken
// none of the stream yet.
func (k *carrier) stands() bool {
	select {
	case <-k.ready:
		return true
	default:
		return k.number == 0 || !k.c.opener
	}
}

// complete reports whether both halves are delivered. Needs mu.
func (c *Conn) complete() bool { return c.out.done() && (c.in.stopped || c.in.ended()) }

// carry opens a further carrier over l and returns when it stands.
func (c *Conn) carry(l *Link) error {
	ctx, cancel := context.WithTimeout(WithUrgency(c.s.ctx, c.urgency), handshakeTimeout)
	defer cancel()
	st, err := l.open(ctx)
	if err != nil {
		if ctx.Err() == nil {
			l.end(fmt.Errorf("open a stream through the relay: %w", err))
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.lastLoss = err
		return err
	}
	c.mu.Lock()
	k, err := c.further(l, st)
	c.mu.Unlock()
	if err != nil {
		st.Reset(wire.CodeCancelled)
		return err
	}
	select {
	case <-k.ready:
		return nil
	case <-k.over:
		return errLinkLost
	case <-ctx.Done():
		c.lose(k, errNoAnswer)
		return errNoAnswer
	}
}

// further makes the opener's end of a further carrier. Needs mu.
func (c *Conn) further(l *Link, st Stream) (*carrier, error) {
	at := resumption{number: c.opened, gone: c.opened, next: c.in.next}
	for _, k := range c.carriers {
		at.gone = min(at.gone, k.number)
	}
	if c.in.stopped {
		at.next = stopped
	}
	preface, err := resumed(c.preface, c.resume, l.binding, at)
	if err != nil {
		return nil, err
	}
	k := &carrier{st: st, link: l, number: at.number, preface: preface, prompt: true, await: true}
	c.opened++
	return k, c.attach(k)
}

// resumeAt adds a further carrier at the acceptor. gone says which carriers
// the opener has lost. It owns st.
func (c *Conn) resumeAt(l *Link, st Stream, at resumption) error {
	c.mu.Lock()
	if !c.seen.use(at.number) {
		c.mu.Unlock()
		return ErrReplay
	}
	if at.number < c.lowest {
		c.mu.Unlock()
		return errOvertaken
	}
	c.lowest = max(c.lowest, at.gone)
	var lost []*carrier
	for _, k := range c.carriers {
		if k.number < at.gone {
			lost = append(lost, k)
		}
	}
	c.mu.Unlock()
	for _, k := range lost {
		c.lose(k, errLinkLost)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.forgone.used(at.number) {
		return errOvertaken
	}
	if err := c.acknowledge(at.next); err != nil {
		return err
	}
	answer := resumption{number: at.number, next: c.in.next}
	if c.in.stopped {
		answer.next = stopped
	}
	preface, err := resumed(c.preface, c.resume, l.binding, answer)
	if err != nil {
		return err
	}
	return c.attach(&carrier{st: st, link: l, number: at.number, preface: preface, prompt: true})
}

// await gives a stream that has no carrier yet the time to get one.
func (c *Conn) await() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.carriers) == 0 && c.orphan == nil && c.dead.Load() == nil {
		c.orphan = time.AfterFunc(resumeWithin, c.starve)
	}
}

// loseLink ends the carriers of a link that has ended.
func (c *Conn) loseLink(l *Link) {
	c.mu.Lock()
	var lost []*carrier
	for _, k := range c.carriers {
		if k.link == l {
			lost = append(lost, k)
		}
	}
	c.mu.Unlock()
	for _, k := range lost {
		c.lose(k, errLinkLost)
	}
}
