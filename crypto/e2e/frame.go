package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Frame is one message on the authenticated TLS connection of a session or of
// a pairing conversation: type u8 | length u16 | payload.
//
// Types 0x01 to 0x0f belong to sessions, 0x10 to 0x1f to pairing. Who does not
// know a type from 0x80 on skips it; an unknown type below ends the
// conversation.
type Frame struct {
	Type    uint8
	Payload []byte // at most MaxFramePayload bytes
}

// MaxFramePayload is the longest payload of a frame, in bytes.
const MaxFramePayload = 4096

// FrameOptional is the first type that a reader may skip.
const FrameOptional = 0x80

// Frame types of a session.
const (
	frameWelcome = 0x01 // agent to device, once and first; see Welcome
	frameGoAway  = 0x02 // either: code u16 | reason (UTF-8, to the end); then close_notify
	framePing    = 0x03 // either; nothing, or a number u64 that asks for a PONG
	framePong    = 0x04 // either; the number of the PING
	frameAck     = 0x05 // either; see ack
	frameCancel  = 0x06 // either; stream id u64 | code u16: the stream is over, both halves
	frameJoin    = 0x07 // device to agent, first on a further link; see join
	frameFull    = 0x08 // agent to device; stream id u64: its log is full, the writer waits
	frameLost    = 0x09 // device to agent; stream id u64 | number u32: that carrier is gone
)

const maxReason = 256 // bytes of a GOAWAY's reason

// ErrFrame says that a control frame is malformed, too long, out of order or
// of an unknown mandatory type.
var ErrFrame = errors.New("the other endpoint sent a malformed message")

// ReadFrame reads one frame and not one byte further. Its payload belongs to
// the caller. The error is io.EOF if r ended before the frame,
// io.ErrUnexpectedEOF if it ended inside, [ErrFrame] if the frame is too long,
// or r's.
func ReadFrame(r io.Reader) (Frame, error) {
	var h [3]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return Frame{}, err
	}
	n := int(binary.BigEndian.Uint16(h[1:]))
	if n > MaxFramePayload {
		return Frame{}, fmt.Errorf("%w: %d bytes, at most %d", ErrFrame, n, MaxFramePayload)
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(r, p); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	return Frame{Type: h[0], Payload: p}, nil
}

// WriteFrame writes one frame with one Write. It refuses a payload longer than
// [MaxFramePayload] with [ErrFrame].
func WriteFrame(w io.Writer, f Frame) error {
	if len(f.Payload) > MaxFramePayload {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrFrame, len(f.Payload), MaxFramePayload)
	}
	b := make([]byte, 0, 3+len(f.Payload))
	b = append(b, f.Type)
	b = binary.BigEndian.AppendUint16(b, uint16(len(f.Payload)))
	_, err := w.Write(append(b, f.Payload...))
	return err
}
