// Package wire is the language between an endpoint and a relay: frames, codes
// and the names of routes. PROTOCOL.md in this directory is its text.
//
//	b := wire.Open{Route: route, Token: token}.Append(nil)
//	stream.Write(b)
//	...
//	f, err := wire.ReadFrame(stream)
//	open, err := wire.ParseOpen(f.Payload)
//
// Every parser is total: any input gives a value or an error, never a panic,
// and no parser allocates more than the limit of its frame. The package
// imports the standard library alone.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ALPN names the hop protocol and its major version (RFC 7301).
const ALPN = "blindrelay/1"

// Minor versions of the hop protocol that this package speaks.
const (
	MinVersion = 0
	MaxVersion = 0
)

// FrameType is the first byte of a frame.
type FrameType uint8

// Frame types. A frame is: type u8 | length u16 | payload of length bytes.
// Types from 0x80 on are optional: who does not know one skips it. An unknown
// type below 0x80 is a protocol error.
const (
	FrameHello      FrameType = 0x01 // endpoint to relay, first on the control stream: min version u8 | max version u8
	FrameWelcome    FrameType = 0x02 // relay to endpoint, answers HELLO: version u8
	FrameRegister   FrameType = 0x03 // agent to relay, behind HELLO and on later streams: instance (16) | count u16 | count x SHA-256 of a token (32) | length u16 | ticket (length) | length u16 | receipt (length)
	FrameRegistered FrameType = 0x04 // relay to agent, answers REGISTER: route (16) | valid u32 (s)
	FrameOpen       FrameType = 0x05 // device to relay, first on a data stream: route (16) | token (16) | urgency u8
	FrameIncoming   FrameType = 0x06 // relay to agent, first on a data stream: attachment u64
	FrameGoodbye    FrameType = 0x07 // relay to endpoint, on the control stream: code u16 | retry after u32 (ms) | text (UTF-8, to the end)
	FrameMeasure    FrameType = 0x08 // endpoint to relay, first on a stream: direction u8 (0 up, 1 down) | bytes u32 | route (16) | token (16)
	FrameMeasured   FrameType = 0x09 // relay to endpoint, answers a MEASURE that went up: bytes u32 | time u32 (us)
	FrameLimit      FrameType = 0x0a // relay to endpoint, on the control stream: code u16 | limit u64 | left u64 | retry after u32 (s)
	FrameReceipt    FrameType = 0x0b // relay to agent, on the control stream: receipt (to the end)

	firstOptional FrameType = 0x80
)

// Limits of frames, in bytes unless the name says otherwise.
const (
	HeaderLen = 3
	// MaxTokens is how many tokens one registration may list.
	MaxTokens = 1000
	// MaxTicket is the longest ticket of an agent.
	MaxTicket = 2048
	// MaxReceipt is the longest receipt of a relay.
	MaxReceipt = 512
	// MaxPayload is the longest payload of any frame: a REGISTER with MaxTokens,
	// the longest ticket and receipt, and room for later fields.
	MaxPayload = 36 << 10
	// MaxOptionalPayload is the longest payload of a frame that is skipped.
	MaxOptionalPayload = 1024
	// MaxOptionalFrames is how many optional frames may stand before a mandatory one.
	MaxOptionalFrames = 8
	// MaxGoodbyeText is the longest sentence in a GOODBYE.
	MaxGoodbyeText = 256
	// MaxConnections is how many connections of one instance of an agent stand
	// beside each other at a relay.
	MaxConnections = 8
	// MaxMeasure bounds one measurement, MaxMeasured all of a connection.
	MaxMeasure  = 16 << 20
	MaxMeasured = 64 << 20
)

// maxPayload is the longest payload of each mandatory frame. Payloads may be
// longer than their fields: a later minor version may append fields, which an
// older reader ignores.
var maxPayload = map[FrameType]int{
	FrameHello:      64,
	FrameWelcome:    64,
	FrameRegister:   MaxPayload,
	FrameRegistered: 64,
	FrameOpen:       128,
	FrameIncoming:   64,
	FrameGoodbye:    6 + MaxGoodbyeText,
	FrameMeasure:    128,
	FrameMeasured:   64,
	FrameLimit:      64,
	FrameReceipt:    MaxReceipt,
}

// Errors of the parsers. They carry no content of the frame.
var (
	ErrMalformed = errors.New("wire: malformed frame")
	ErrTooLarge  = errors.New("wire: frame too large")

	errTooManyTokens = fmt.Errorf("%w: too many tokens", ErrTooLarge)
)

// CodeOf returns the code that answers a parser's error: [CodeTooManyTokens],
// [CodeFrameTooLarge] or [CodeProtocol].
func CodeOf(err error) Code {
	switch {
	case errors.Is(err, errTooManyTokens):
		return CodeTooManyTokens
	case errors.Is(err, ErrTooLarge):
		return CodeFrameTooLarge
	}
	return CodeProtocol
}

// Frame is one frame as read. Payload belongs to the caller.
type Frame struct {
	Type    FrameType
	Payload []byte
}

// ReadFrame reads the next mandatory frame from r and skips optional ones. It
// reads not one byte further than the frame, so that r may go on with another
// protocol. io.EOF means that r ended between frames.
func ReadFrame(r io.Reader) (Frame, error) {
	for range MaxOptionalFrames + 1 {
		var h [HeaderLen]byte
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return Frame{}, err
		}
		t, n := FrameType(h[0]), int(binary.BigEndian.Uint16(h[1:]))
		limit, known := maxPayload[t]
		switch {
		case t >= firstOptional:
			limit = MaxOptionalPayload
		case !known:
			return Frame{}, fmt.Errorf("%w: unknown type 0x%02x", ErrMalformed, uint8(t))
		}
		if n > limit {
			return Frame{}, fmt.Errorf("%w: type 0x%02x with %d bytes, at most %d", ErrTooLarge, uint8(t), n, limit)
		}
		p := make([]byte, n)
		if _, err := io.ReadFull(r, p); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return Frame{}, err
		}
		if t < firstOptional {
			return Frame{Type: t, Payload: p}, nil
		}
	}
	return Frame{}, fmt.Errorf("%w: more than %d optional frames in a row", ErrMalformed, MaxOptionalFrames)
}

func appendHeader(b []byte, t FrameType, n int) []byte {
	b = append(b, byte(t))
	return binary.BigEndian.AppendUint16(b, uint16(n))
}

func short(t string, n, want int) error {
	return fmt.Errorf("%w: %s of %d bytes, at least %d", ErrMalformed, t, n, want)
}

// Hello is an endpoint's first frame: the minor versions it speaks.
type Hello struct{ MinVersion, MaxVersion uint8 }

// Append appends the frame to b.
func (h Hello) Append(b []byte) []byte {
	return append(appendHeader(b, FrameHello, 2), h.MinVersion, h.MaxVersion)
}

// ParseHello parses the payload of a HELLO.
func ParseHello(p []byte) (Hello, error) {
	if len(p) < 2 {
		return Hello{}, short("HELLO", len(p), 2)
	}
	if p[0] > p[1] {
		return Hello{}, fmt.Errorf("%w: HELLO with versions %d to %d", ErrMalformed, p[0], p[1])
	}
	return Hello{p[0], p[1]}, nil
}

// Choose returns the highest minor version that both sides speak.
func (h Hello) Choose() (version uint8, ok bool) {
	v := min(h.MaxVersion, MaxVersion)
	return v, v >= h.MinVersion && v >= MinVersion
}

// Welcome answers a HELLO with the version that is spoken from here on.
type Welcome struct{ Version uint8 }

// Append appends the frame to b.
func (w Welcome) Append(b []byte) []byte {
	return append(appendHeader(b, FrameWelcome, 1), w.Version)
}

// ParseWelcome parses the payload of a WELCOME.
func ParseWelcome(p []byte) (Welcome, error) {
	if len(p) < 1 {
		return Welcome{}, short("WELCOME", len(p), 1)
	}
	return Welcome{p[0]}, nil
}

// Instance is a random number that an agent's process draws when it starts.
// Connections with the key of a route and the same instance stand beside each
// other; one with another instance takes the place of them all.
type Instance [16]byte

// Register makes the agent's route reachable for the listed tokens, or
// replaces the list of an earlier REGISTER of the same instance.
type Register struct {
	Instance Instance
	Tokens   []TokenHash // at most MaxTokens
	// Ticket shows that the relay's operator admits the agent: at most MaxTicket
	// bytes, "" is none. It is of use to the holder of the route key alone.
	Ticket string
	// Receipt is the latest [Receipt] that the relay has given the agent for the
	// route: at most MaxReceipt bytes, "" is none.
	Receipt string
}

// Append appends the frame to b. It panics if there are more than [MaxTokens],
// or the ticket is longer than [MaxTicket] or the receipt than [MaxReceipt].
func (r Register) Append(b []byte) []byte {
	if len(r.Tokens) > MaxTokens || len(r.Ticket) > MaxTicket || len(r.Receipt) > MaxReceipt {
		panic("wire: REGISTER with too many tokens or too long a ticket or receipt")
	}
	b = appendHeader(b, FrameRegister, registerLen+len(r.Tokens)*32+len(r.Ticket)+len(r.Receipt))
	b = append(b, r.Instance[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Tokens)))
	for i := range r.Tokens {
		b = append(b, r.Tokens[i][:]...)
	}
	return appendText(appendText(b, r.Ticket), r.Receipt)
}

// registerLen is how long the payload of a REGISTER with no token, ticket and
// receipt is.
const registerLen = 22

func appendText(b []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(text))), text...)
}

// ParseRegister parses the payload of a REGISTER.
func ParseRegister(p []byte) (Register, error) {
	if len(p) < registerLen {
		return Register{}, short("REGISTER", len(p), registerLen)
	}
	n := int(binary.BigEndian.Uint16(p[16:]))
	if n > MaxTokens {
		return Register{}, fmt.Errorf("%w: %d, at most %d", errTooManyTokens, n, MaxTokens)
	}
	if want := registerLen + n*32; len(p) < want {
		return Register{}, short("REGISTER", len(p), want)
	}
	r := Register{Instance: Instance(p[:16]), Tokens: make([]TokenHash, n)}
	for i := range r.Tokens {
		copy(r.Tokens[i][:], p[18+i*32:])
	}
	rest := p[18+n*32:]
	var err error
	if r.Ticket, rest, err = cutText(rest, "ticket", MaxTicket); err != nil {
		return Register{}, err
	}
	if r.Receipt, _, err = cutText(rest, "receipt", MaxReceipt); err != nil {
		return Register{}, err
	}
	return r, nil
}

// cutText cuts what appendText has written off the start of p.
func cutText(p []byte, what string, limit int) (text string, rest []byte, err error) {
	if len(p) < 2 {
		return "", nil, fmt.Errorf("%w: REGISTER ends before its %s", ErrMalformed, what)
	}
	n := int(binary.BigEndian.Uint16(p))
	p = p[2:]
	switch {
	case n > limit:
		return "", nil, fmt.Errorf("%w: a %s of %d bytes, at most %d", ErrTooLarge, what, n, limit)
	case n > len(p):
		return "", nil, fmt.Errorf("%w: REGISTER ends within its %s", ErrMalformed, what)
	}
	return string(p[:n]), p[n:], nil
}

// Registered tells the agent that its route is reachable with the tokens of
// its latest REGISTER.
type Registered struct {
	Route Route
	Valid uint32 // seconds from now on for which its ticket admits the agent; 0: without end, or without a ticket
}

// Append appends the frame to b.
func (r Registered) Append(b []byte) []byte {
	b = append(appendHeader(b, FrameRegistered, 20), r.Route[:]...)
	return binary.BigEndian.AppendUint32(b, r.Valid)
}

// ParseRegistered parses the payload of a REGISTERED.
func ParseRegistered(p []byte) (Registered, error) {
	if len(p) < 20 {
		return Registered{}, short("REGISTERED", len(p), 20)
	}
	return Registered{Route: Route(p[:16]), Valid: binary.BigEndian.Uint32(p[16:])}, nil
}

// Urgency says how soon a device needs what a stream brings. While a route has
// more to forward than it may, its more urgent streams go first; it does not
// change what other routes get.
type Urgency uint8

// Urgencies. A relay takes unknown ones for Bulk.
const (
	Playing  Urgency = 0 // somebody watches, or waits for it
	Prefetch Urgency = 1 // it will be needed soon
	Bulk     Urgency = 2 // a download, a synchronisation, a backup
)

// Open asks the relay to join this stream to the agent of a route.
type Open struct {
	Route   Route
	Token   Token
	Urgency Urgency
}

// Append appends the frame to b.
func (o Open) Append(b []byte) []byte {
	b = appendHeader(b, FrameOpen, 33)
	b = append(b, o.Route[:]...)
	b = append(b, o.Token[:]...)
	return append(b, byte(o.Urgency))
}

// ParseOpen parses the payload of an OPEN.
func ParseOpen(p []byte) (Open, error) {
	if len(p) < 33 {
		return Open{}, short("OPEN", len(p), 33)
	}
	return Open{Route: Route(p[:16]), Token: Token(p[16:32]), Urgency: min(Urgency(p[32]), Bulk)}, nil
}

// Incoming stands before the bytes of a device's stream at the agent.
// Attachment is a random number that the relay gives to each device's
// connection, so that the agent knows which streams arrived together.
type Incoming struct{ Attachment uint64 }

// Append appends the frame to b.
func (i Incoming) Append(b []byte) []byte {
	return binary.BigEndian.AppendUint64(appendHeader(b, FrameIncoming, 8), i.Attachment)
}

// ParseIncoming parses the payload of an INCOMING.
func ParseIncoming(p []byte) (Incoming, error) {
	if len(p) < 8 {
		return Incoming{}, short("INCOMING", len(p), 8)
	}
	return Incoming{Attachment: binary.BigEndian.Uint64(p)}, nil
}

// Goodbye announces that the relay is about to close the connection, or with
// [CodeDraining] that the endpoint is to leave it.
type Goodbye struct {
	Code       Code
	RetryAfter uint32 // milliseconds before the endpoint should come back, or leave; 0: it chooses
	Text       string // a sentence for people, at most MaxGoodbyeText bytes; longer ones are cut
}

// Append appends the frame to b.
func (g Goodbye) Append(b []byte) []byte {
	text := g.Text
	if len(text) > MaxGoodbyeText {
		text = strings.ToValidUTF8(text[:MaxGoodbyeText], "") // no half character at the end
	}
	b = appendHeader(b, FrameGoodbye, 6+len(text))
	b = binary.BigEndian.AppendUint16(b, uint16(g.Code))
	b = binary.BigEndian.AppendUint32(b, g.RetryAfter)
	return append(b, text...)
}

// ParseGoodbye parses the payload of a GOODBYE. Text is as the relay sent it:
// quote it before it reaches a terminal or a log.
func ParseGoodbye(p []byte) (Goodbye, error) {
	if len(p) < 6 {
		return Goodbye{}, short("GOODBYE", len(p), 6)
	}
	return Goodbye{
		Code:       Code(binary.BigEndian.Uint16(p)),
		RetryAfter: binary.BigEndian.Uint32(p[2:]),
		Text:       string(p[6:]),
	}, nil
}
