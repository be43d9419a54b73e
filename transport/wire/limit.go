package wire

import (
	"encoding/binary"
	"fmt"
)

// Limit tells an endpoint of a limit that holds for it: an agent of those of
// its route after each REGISTERED, and either endpoint when one is met.
type Limit struct {
	Code Code // which limit it is
	// Limit is how much it allows, Left how much of that is left now: bits per
	// second, bytes, or a number of what the code counts. Of a rate, Left is 0
	// while it holds something up.
	Limit, Left uint64
	// RetryAfter is in how many seconds there will be more; 0: as soon as
	// something ends.
	RetryAfter uint32
}

// Append appends the frame to b.
func (l Limit) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(appendHeader(b, FrameLimit, 22), uint16(l.Code))
	b = binary.BigEndian.AppendUint64(b, l.Limit)
	b = binary.BigEndian.AppendUint64(b, l.Left)
	return binary.BigEndian.AppendUint32(b, l.RetryAfter)
}

// ParseLimit parses the payload of a LIMIT.
func ParseLimit(p []byte) (Limit, error) {
	if len(p) < 22 {
		return Limit{}, short("LIMIT", len(p), 22)
	}
	return Limit{
		Code:       Code(binary.BigEndian.Uint16(p)),
		Limit:      binary.BigEndian.Uint64(p[2:]),
		Left:       binary.BigEndian.Uint64(p[10:]),
		RetryAfter: binary.BigEndian.Uint32(p[18:]),
	}, nil
}

// Receipt says how much of its volume a route has used, in the relay's own
// words: a text of at most MaxReceipt bytes that only the relay can make and
// check. The agent keeps the latest one and shows it in its next REGISTER
// there, so that the relay need not remember it.
type Receipt string

// Append appends the frame to b. It panics if the text is longer than
// [MaxReceipt].
func (r Receipt) Append(b []byte) []byte {
	if len(r) > MaxReceipt {
		panic("wire: RECEIPT with too long a text")
	}
	return append(appendHeader(b, FrameReceipt, len(r)), r...)
}

// ParseReceipt parses the payload of a RECEIPT. Its bytes are printable ASCII.
func ParseReceipt(p []byte) (Receipt, error) {
	for _, c := range p {
		if c <= ' ' || c > '~' {
			return "", fmt.Errorf("%w: RECEIPT with byte 0x%02x", ErrMalformed, c)
		}
	}
	return Receipt(p), nil
}
