package transport

import (
	"container/list"
	"net"
	"net/netip"
	"time"
)

// pace lets a number of events pass each second, and some more after a rest. Of
// those that passed it needs only the time at which they are due to be forgotten
// (the generic cell rate algorithm of ITU-T I.371): one event later for each.
type pace struct {
	every time.Duration // between events; 0: no limit
	span  time.Duration // how far due may lie ahead
}

func paceOf(rate, burstSeconds int) pace {
	if rate < 0 {
		return pace{}
	}
	return pace{every: time.Second / time.Duration(rate), span: time.Duration(burstSeconds) * time.Second}
}

// used is how far due lies ahead.
func (p pace) used(due, now time.Time) time.Duration { return max(0, due.Sub(now)) }

// free reports whether another event may pass.
func (p pace) free(due, now time.Time) bool {
	return p.every == 0 || p.used(due, now) <= p.span-p.every
}

// charge returns what due is after another event.
func (p pace) charge(due, now time.Time) time.Time {
	return now.Add(min(p.used(due, now)+p.every, p.span))
}

// maxMembers bounds a crowd, which takes some 200 bytes each. When it is full,
// whose last handshake began longest ago is forgotten.
const maxMembers = 8192

// crowd counts the handshakes of each address, or of each network. Whoever has
// none under way and has rested is forgotten.
type crowd struct {
	of    func(net.Addr) netip.Prefix // whose an address is
	max   int                         // under way; negative: no limit
	pace  pace
	known map[netip.Prefix]*member
	order list.List // of *member, whose last handshake began longest ago in front
}

// member is one of a crowd. Its methods may be called on nil, which is nobody.
type member struct {
	prefix netip.Prefix
	due    time.Time // see pace
	under  int       // way
	place  *list.Element
}

func newCrowd(of func(net.Addr) netip.Prefix, most int, p pace) crowd {
	return crowd{of: of, max: most, pace: p, known: make(map[netip.Prefix]*member)}
}

// room reports whether another handshake from addr may begin.
func (c *crowd) room(addr net.Addr, now time.Time) bool {
	m := c.known[c.of(addr)]
	return m == nil || (c.max < 0 || m.under < c.max) && c.pace.free(m.due, now)
}

// charge counts a handshake from addr at now and returns whose it is, nil for
// nobody's.
func (c *crowd) charge(addr net.Addr, now time.Time) *member {
	p := c.of(addr)
	if !p.IsValid() {
		return nil
	}
	m := c.known[p]
	if m == nil {
		c.makeRoom()
		m = &member{prefix: p}
		m.place = c.order.PushBack(m)
		c.known[p] = m
	} else {
		c.order.MoveToBack(m.place)
	}
	m.due = c.pace.charge(m.due, now)
	return m
}

// makeRoom makes room for one more.
func (c *crowd) makeRoom() {
	if len(c.known) == maxMembers {
		c.forget(c.order.Front())
	}
}

func (c *crowd) forget(e *list.Element) {
	delete(c.known, c.order.Remove(e).(*member).prefix)
}

// tidy forgets who has none under way and has rested, and reports whether
// anybody is left.
func (c *crowd) tidy(now time.Time) (left bool) {
	for e := c.order.Front(); e != nil; {
		m, next := e.Value.(*member), e.Next()
		if m.under == 0 && !m.due.After(now) {
			c.forget(e)
		}
		e = next
	}
	return len(c.known) > 0
}

func (m *member) enter() {
	if m != nil {
		m.under++
	}
}

func (m *member) leave() {
	if m != nil {
		m.under--
	}
}
