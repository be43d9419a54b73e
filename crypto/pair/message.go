package pair

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// Frames of the pairing conversation, inside the TLS connection of ALPN
// blindrelay-pair/1. The device sends one PAIR_REQ, the agent answers with one
// PAIR_OK or PAIR_ERR, both close. A later version may append fields, which an
// older reader ignores.
//
//	PAIR_REQ  secret (16) | name length u8 | device's own name
//	PAIR_OK   flags u8 (2: relay pins) | name length u8 | device's name | length u8 | server's name
//	          | token (16) | relays, as in an invite
//	PAIR_ERR  refusal u16
const (
	framePairReq = 0x10
	framePairOK  = 0x11
	framePairErr = 0x12

	// maxOptional is how many frames of unknown optional types are skipped.
	maxOptional = 8
)

// refusal is why an agent does not pair. An invite that is unknown, used,
// expired or being approved for another device is one and the same refusal.
type refusal uint16

const (
	refusedInvite   refusal = 1
	refusedLater    refusal = 2 // too many failures, come back in a minute
	refusedByOwner  refusal = 3 // the owner said no; the invite is gone
	refusedSilence  refusal = 4 // the owner did not answer; the invite is still good
	refusedInternal refusal = 5 // the agent cannot store the device
)

func (r refusal) String() string {
	switch r {
	case refusedInvite:
		return "the server does not accept the invite: it was used already, has expired or was withdrawn; ask for a new one (`blindlink invite` at home)"
	case refusedLater:
		return "the server refuses to pair for a minute because too many attempts failed: try again later"
	case refusedByOwner:
		return "the owner did not approve: compare the six words with the owner and ask for a new invite"
	case refusedSilence:
		return "nobody at home approved in time: try the same invite again while the owner is at hand"
	case refusedInternal:
		return "the server could not store this device: look at the log of `blindlink share`"
	}
	return fmt.Sprintf("the server refused for a reason that this version does not know (%d): update blindlink", uint16(r))
}

// grant is what a PAIR_OK says.
type grant struct {
	device, server string
	token          wire.Token
	relays         []wire.Relay
}

func (g grant) encode() []byte {
	flags := byte(0)
	if pinned(g.relays) {
		flags |= flagPins
	}
	b := []byte{flags}
	b = append(append(b, byte(len(g.device))), g.device...)
	b = append(append(b, byte(len(g.server))), g.server...)
	b = append(b, g.token[:]...)
	return appendRelays(b, g.relays)
}

func parseGrant(p []byte) (grant, error) {
	c := cursor{b: p}
	flags := c.u8()
	g := grant{device: string(c.take(c.u8())), server: string(c.take(c.u8())), token: wire.Token(c.take(16))}
	g.relays = c.relays(flags&flagPins != 0)
	if c.short {
		return grant{}, fmt.Errorf("%w: PAIR_OK is cut", e2e.ErrFrame)
	}
	if err := errors.Join(checkName(g.device), checkName(g.server), checkRelays(g.relays)); err != nil {
		return grant{}, fmt.Errorf("%w: %w", e2e.ErrFrame, err)
	}
	return g, nil
}

// pairRequest is what a PAIR_REQ says.
type pairRequest struct {
	secret [16]byte
	name   string
}

func (r pairRequest) encode() []byte {
	b := append(r.secret[:], byte(len(r.name)))
	return append(b, r.name...)
}

// parseRequest makes the name fit to be shown and stored.
func parseRequest(p []byte) (pairRequest, error) {
	c := cursor{b: p}
	r := pairRequest{secret: [16]byte(c.take(16))}
	r.name = cleanName(string(c.take(c.u8())), "device")
	if c.short {
		return pairRequest{}, fmt.Errorf("%w: PAIR_REQ is cut", e2e.ErrFrame)
	}
	return r, nil
}

func (r refusal) encode() []byte { return binary.BigEndian.AppendUint16(nil, uint16(r)) }

func parseRefusal(p []byte) (refusal, error) {
	if len(p) < 2 {
		return 0, fmt.Errorf("%w: PAIR_ERR is cut", e2e.ErrFrame)
	}
	return refusal(binary.BigEndian.Uint16(p)), nil
}

func readRequest(conn net.Conn) (pairRequest, error) {
	f, err := readFrame(conn)
	if err != nil {
		return pairRequest{}, fmt.Errorf("pairing request: %w", err)
	}
	if f.Type != framePairReq {
		return pairRequest{}, fmt.Errorf("%w: type 0x%02x where PAIR_REQ belongs", e2e.ErrFrame, f.Type)
	}
	return parseRequest(f.Payload)
}

// readFrame reads the next frame that is not optional.
func readFrame(conn net.Conn) (e2e.Frame, error) {
	for range maxOptional + 1 {
		f, err := e2e.ReadFrame(conn)
		if err != nil || f.Type < e2e.FrameOptional {
			return f, err
		}
	}
	return e2e.Frame{}, fmt.Errorf("%w: more than %d optional ones in a row", e2e.ErrFrame, maxOptional)
}
