package pair

import (
	"fmt"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// maxRelays is how many relays an invite, a grant or a settings file may name.
const maxRelays = 3

func checkRelays(relays []wire.Relay) error {
	if len(relays) < 1 || len(relays) > maxRelays {
		return fmt.Errorf("%d relays given, from 1 to %d are possible", len(relays), maxRelays)
	}
	for _, r := range relays {
		if err := r.Check(); err != nil {
			return err
		}
	}
	return nil
}

func pinned(relays []wire.Relay) bool {
	for _, r := range relays {
		if r.Pinned() {
			return true
		}
	}
	return false
}

// appendRelays appends: n u8 | n x (length u8 | "host:port" or
// "host:port/tcpport") | and, if any relay has a pin, n x pin (32, zero where a
// relay has none).
func appendRelays(b []byte, relays []wire.Relay) []byte {
	b = append(b, byte(len(relays)))
	for _, r := range relays {
		b = append(b, byte(len(r.Address())))
		b = append(b, r.Address()...)
	}
	if pinned(relays) {
		for _, r := range relays {
			b = append(b, r.Pin[:]...)
		}
	}
	return b
}

// cursor reads fields off the front of b. After a read past the end, short is
// true and every further read gives zeros.
type cursor struct {
	b     []byte
	short bool
}

func (c *cursor) take(n int) []byte {
	if len(c.b) < n {
		c.b, c.short = nil, true
		return make([]byte, n)
	}
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) u8() int { return int(c.take(1)[0]) }

// relays reads what appendRelays wrote, without checking the addresses.
func (c *cursor) relays(withPins bool) []wire.Relay {
	n := c.u8()
	if n > maxRelays {
		// The caller's checkRelays refuses the count; the rest is not read.
		return make([]wire.Relay, n)
	}
	rs := make([]wire.Relay, n)
	for i := range rs {
		rs[i] = relayAt(string(c.take(c.u8())))
	}
	if withPins {
		for i := range rs {
			rs[i].Pin = wire.KeyPin(c.take(len(wire.KeyPin{})))
		}
	}
	return rs
}

// relayAt reads the address of a relay. What is none stays as it is, and the
// caller's checkRelays refuses it.
func relayAt(address string) wire.Relay {
	if r, err := wire.ParseRelay(address); err == nil && !r.Pinned() {
		return r
	}
	return wire.Relay{Addr: address}
}
