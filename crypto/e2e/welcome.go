package e2e

import (
	"encoding/binary"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// Defaults of a Welcome and of a session before its WELCOME arrived.
const (
	defaultMaxStreams = 128
	defaultIdle       = 60 * time.Second
	minIdle           = 3 * time.Second
	maxIdle           = 10 * time.Minute
)

// Limits of Welcome.Relays.
const (
	MaxRelays    = 8
	MaxRelayText = 255 // bytes of one relay
)

// Welcome is what an agent tells a device that it admits:
//
//	minor version u8 | max streams u16 | idle seconds u16 | route token (16) |
//	count u8 (0..8) | count x (length u8 | relay)
//
// A later minor version may append fields, which an older reader ignores.
type Welcome struct {
	// MaxStreams is how many streams the device may have open at once; 0 at
	// the agent: 128. The agent refuses what exceeds it by more than double,
	// because a stream that has ended at the device may still be open at the
	// agent.
	MaxStreams int
	// Idle is after how long without a control frame either side drops the
	// session: whole seconds from 3 s to 10 min; 0 at the agent: 60 s. Both
	// sides send one three times as often.
	Idle time.Duration
	// Relays are where the agent can be reached, as "host:port" or
	// "host:port#pin", the preferred one first.
	Relays []string
	// RouteToken is what the device shows relays from now on.
	RouteToken wire.Token
}

// withDefaults fills in zeros and refuses what cannot be said.
func (w Welcome) withDefaults() (Welcome, error) {
	if w.MaxStreams == 0 {
		w.MaxStreams = defaultMaxStreams
	}
	if w.Idle == 0 {
		w.Idle = defaultIdle
	}
	return w, w.check()
}

func (w *Welcome) check() error {
	switch {
	case w.MaxStreams < 1 || w.MaxStreams > 1<<16-1:
		return fmt.Errorf("%w: a session with %d streams", ErrFrame, w.MaxStreams)
	case w.Idle < minIdle || w.Idle > maxIdle || w.Idle%time.Second != 0:
		return fmt.Errorf("%w: a session that may be idle for %v", ErrFrame, w.Idle)
	case len(w.Relays) > MaxRelays:
		return fmt.Errorf("%w: %d relays, at most %d", ErrFrame, len(w.Relays), MaxRelays)
	}
	for _, r := range w.Relays {
		if r == "" || len(r) > MaxRelayText || !utf8.ValidString(r) {
			return fmt.Errorf("%w: a relay's name of %d bytes, 1 to %d of UTF-8", ErrFrame, len(r), MaxRelayText)
		}
	}
	return nil
}

// payload encodes a Welcome that check accepts.
func (w *Welcome) payload() []byte {
	b := []byte{0}
	b = binary.BigEndian.AppendUint16(b, uint16(w.MaxStreams))
	b = binary.BigEndian.AppendUint16(b, uint16(w.Idle/time.Second))
	b = append(b, w.RouteToken[:]...)
	b = append(b, byte(len(w.Relays)))
	for _, r := range w.Relays {
		b = append(append(b, byte(len(r))), r...)
	}
	return b
}

func parseWelcome(p []byte) (Welcome, error) {
	const fixed = 1 + 2 + 2 + 16 + 1
	if len(p) < fixed {
		return Welcome{}, fmt.Errorf("%w: WELCOME of %d bytes, at least %d", ErrFrame, len(p), fixed)
	}
	w := Welcome{
		MaxStreams: int(binary.BigEndian.Uint16(p[1:])),
		Idle:       time.Duration(binary.BigEndian.Uint16(p[3:])) * time.Second,
		RouteToken: wire.Token(p[5:21]),
	}
	n, p := int(p[fixed-1]), p[fixed:]
	if n > MaxRelays {
		return Welcome{}, fmt.Errorf("%w: %d relays, at most %d", ErrFrame, n, MaxRelays)
	}
	for range n {
		if len(p) < 1 || len(p) < 1+int(p[0]) {
			return Welcome{}, fmt.Errorf("%w: WELCOME is cut", ErrFrame)
		}
		end := 1 + int(p[0])
		w.Relays = append(w.Relays, string(p[1:end]))
		p = p[end:]
	}
	return w, w.check()
}
