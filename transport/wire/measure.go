package wire

import (
	"encoding/binary"
	"fmt"
)

// Measure asks the relay to take bytes from the endpoint (up) or to send it
// some (down), so that the endpoint learns how many pass. Route and Token are
// a device's, which an agent here must list; the relay does not read an
// agent's.
type Measure struct {
	Down  bool
	Bytes uint32 // at most MaxMeasure
	Route Route
	Token Token
}

// Append appends the frame to b.
func (m Measure) Append(b []byte) []byte {
	b = appendHeader(b, FrameMeasure, 37)
	direction := byte(0)
	if m.Down {
		direction = 1
	}
	b = append(b, direction)
	b = binary.BigEndian.AppendUint32(b, m.Bytes)
	b = append(b, m.Route[:]...)
	return append(b, m.Token[:]...)
}

// ParseMeasure parses the payload of a MEASURE.
func ParseMeasure(p []byte) (Measure, error) {
	if len(p) < 37 {
		return Measure{}, short("MEASURE", len(p), 37)
	}
	m := Measure{Down: p[0] == 1, Bytes: binary.BigEndian.Uint32(p[1:]), Route: Route(p[5:21]), Token: Token(p[21:37])}
	switch {
	case p[0] > 1:
		return Measure{}, fmt.Errorf("%w: MEASURE with direction %d", ErrMalformed, p[0])
	case m.Bytes > MaxMeasure:
		return Measure{}, fmt.Errorf("%w: MEASURE of %d bytes, at most %d", ErrMalformed, m.Bytes, MaxMeasure)
	}
	return m, nil
}

// Measured tells the endpoint how much of what it sent for a MEASURE has
// arrived, and in what time.
type Measured struct {
	Bytes uint32
	Time  uint32 // microseconds from MEASURE to the last byte
}

// Append appends the frame to b.
func (m Measured) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(appendHeader(b, FrameMeasured, 8), m.Bytes)
	return binary.BigEndian.AppendUint32(b, m.Time)
}

// ParseMeasured parses the payload of a MEASURED.
func ParseMeasured(p []byte) (Measured, error) {
	if len(p) < 8 {
		return Measured{}, short("MEASURED", len(p), 8)
	}
	return Measured{Bytes: binary.BigEndian.Uint32(p), Time: binary.BigEndian.Uint32(p[4:])}, nil
}
