package e2e

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// fullEvery is how often it is said of a stream that its log is full.
	fullEvery = 500 * time.Millisecond
	// pressedFor is how long a stream counts as one that could be faster after
	// its log was found full.
	pressedFor = 2 * time.Second
)

// Spread has large streams carried over these links beside each other, from now
// on: those whose writer has more to send than their carriers bring, and whose
// reader waits for it. All others keep to one carrier. Links that end are passed
// over; without any that works streams go over the link that OpenStream uses.
func (s *Session) Spread(links []*Link) {
	s.session.mu.Lock()
	s.layout++
	s.wide = slices.Clone(links)
	s.session.mu.Unlock()
	for _, c := range s.open() {
		c.mu.Lock()
		if time.Since(c.pressed) < pressedFor {
			c.follow()
		}
		c.mu.Unlock()
	}
}

// Prefer has streams opened on l, and control frames sent there, for as long as
// it works. Without a preference it is the newest link.
func (s *Session) Prefer(l *Link) {
	s.session.mu.Lock()
	defer s.session.mu.Unlock()
	s.preferred = l
}

// Pressed returns when a stream was last found slower than its writer and its
// reader are; the zero time if that never happened.
func (s *Session) Pressed() time.Time {
	s.session.mu.Lock()
	defer s.session.mu.Unlock()
	return s.pressed
}

// Traffic returns how many bytes of records have come, each counted once, and
// how many bytes of content were written, on all streams.
func (s *Session) Traffic() (in, out int64) { return s.arrived.Load(), s.bytesOut.Load() }

// Traffic returns how many bytes of records streams have got over the link, of
// those that had not come over another one, and how many they sent.
func (l *Link) Traffic() (in, out int64) { return l.bytesIn.Load(), l.bytesOut.Load() }

// full notes that a Write waits because the stream's log is full, which is the
// opener's to do something about.
func (c *Conn) full() {
	c.mu.Lock()
	full := c.out.held+bufferLen > streamLog
	now := time.Now()
	if !full || !c.opener && now.Sub(c.saidFull) < fullEvery {
		c.mu.Unlock()
		return
	}
	if c.opener {
		c.press(now)
		c.mu.Unlock()
		return
	}
	c.saidFull = now
	c.mu.Unlock()
	if l, _ := c.s.current(); l != nil {
		l.say(Frame{Type: frameFull, Payload: binary.BigEndian.AppendUint64(nil, c.name.id)})
	}
}

// heardFull takes the agent's word that a stream's log is full. That is no news
// if it waits for the reader here.
func (s *Session) heardFull(p []byte) error {
	if len(p) != 8 {
		return fmt.Errorf("%w: FULL of %d bytes", ErrFrame, len(p))
	}
	c := s.conn(binary.BigEndian.Uint64(p))
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.in.queued <= readAhead/2 && !c.in.stopped {
		c.press(time.Now())
	}
	return nil
}

// press needs mu.
func (c *Conn) press(now time.Time) {
	if c.dead.Load() != nil {
		return
	}
	c.pressed = now
	c.s.press(now)
	c.follow()
}

// press needs the mu of a stream.
func (s *session) press(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pressed = now
}

// follow has the stream's carriers follow the session's layout. Needs mu.
func (c *Conn) follow() {
	if !c.spreading && c.laid != c.s.layoutNow() {
		c.spreading = c.s.run(c.spread)
	}
}

func (s *session) layoutNow() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.layout
}

// wideLinks returns the links that large streams are carried over.
func (s *session) wideLinks() (layout uint64, links []*Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.wide {
		if slices.Contains(s.links, l) && l.reason() == nil {
			links = append(links, l)
		}
	}
	return s.layout, links
}

// spread gives the stream a new carrier on each link of the layout, and then
// gives the old ones up: each of those may hold a whole log of records, for
// which the new ones would wait.
func (c *Conn) spread() {
	for {
		c.mu.Lock()
		layout, links := c.s.wideLinks() // under mu: Spread counts on it
		if c.laid == layout || c.dead.Load() != nil || c.complete() {
			c.spreading = false
			c.mu.Unlock()
			return
		}
		c.laid = layout
		old := slices.Clone(c.carriers)
		c.mu.Unlock()
		if len(links) == 0 {
			if l := c.s.awaitLink(c.gone); l != nil {
				links = []*Link{l}
			}
		}
		if !carried(old, links) && c.carryAll(links) {
			for _, k := range old {
				c.replaced(k)
			}
		}
	}
}

// carried reports whether carriers are where links says: one on each.
func carried(carriers []*carrier, links []*Link) bool {
	left := slices.Clone(links)
	for _, k := range carriers {
		i := slices.Index(left, k.link)
		if i < 0 {
			return false
		}
		left = slices.Delete(left, i, i+1)
	}
	return len(left) == 0
}

// carryAll opens a carrier on each of these links and reports whether one
// stands.
func (c *Conn) carryAll(links []*Link) (stands bool) {
	var wait sync.WaitGroup
	errs := make([]error, len(links))
	for i, l := range links {
		wait.Go(func() { errs[i] = c.carry(l) })
	}
	wait.Wait()
	return slices.Contains(errs, nil)
}

// replaced ends a carrier that others have taken the place of.
func (c *Conn) replaced(k *carrier) { c.lose(k, errReplaced) }

// sayLost tells the agent that a carrier is gone: on a path that is broken it
// does not hear of it otherwise.
func (s *session) sayLost(id uint64, number uint32) {
	if l, _ := s.current(); l != nil {
		p := binary.BigEndian.AppendUint64(nil, id)
		l.say(Frame{Type: frameLost, Payload: binary.BigEndian.AppendUint32(p, number)})
	}
}

// heardLost takes the device's word that a carrier is gone, which may come before
// the carrier does.
func (s *session) heardLost(p []byte) error {
	if len(p) != 12 {
		return fmt.Errorf("%w: LOST of %d bytes", ErrFrame, len(p))
	}
	c := s.conn(binary.BigEndian.Uint64(p))
	if c == nil {
		return nil
	}
	number := binary.BigEndian.Uint32(p[8:])
	c.mu.Lock()
	i := slices.IndexFunc(c.carriers, func(k *carrier) bool { return k.number == number })
	var k *carrier
	if i >= 0 {
		k = c.carriers[i]
	} else {
		c.forgone.use(number)
	}
	c.mu.Unlock()
	if k != nil {
		c.lose(k, errLinkLost)
	}
	return nil
}
