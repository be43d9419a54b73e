package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	someRoute    = Route{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	someInstance = Instance{0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xcb, 0xcc, 0xcd, 0xce, 0xcf}
	someToken    = Token{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf}
	otherToken   = Token{0xb0, 0xb1, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xbb, 0xbc, 0xbd, 0xbe, 0xbf}
)

type goldenFrame struct {
	name, with string
	kind       FrameType
	value      any
	frame      []byte
}

// golden are the frames of PROTOCOL.md, in its order.
func golden() []goldenFrame {
	hello := Hello{0, 0}
	welcome := Welcome{0}
	none := Register{Instance: someInstance, Tokens: []TokenHash{}}
	two := Register{Instance: someInstance, Tokens: []TokenHash{someToken.Hash(), otherToken.Hash()}}
	ticketed := Register{Instance: someInstance, Tokens: []TokenHash{}, Ticket: "abc"}
	registered := Registered{Route: someRoute}
	registeredFor := Registered{Route: someRoute, Valid: 3600}
	receipted := Register{Instance: someInstance, Tokens: []TokenHash{}, Ticket: "abc", Receipt: "de"}
	open := Open{someRoute, someToken, Playing}
	bulk := Open{someRoute, someToken, Bulk}
	incoming := Incoming{0x0102030405060708}
	goodbye := Goodbye{CodeShutdown, 1500, "bye"}
	up := Measure{Bytes: 1 << 20}
	down := Measure{Down: true, Bytes: MaxMeasure, Route: someRoute, Token: someToken}
	measured := Measured{1 << 20, 250_000}
	limit := Limit{CodeVolumeLimit, 1e9, 250e6, 86_400}
	return []goldenFrame{
		{"HELLO", "versions 0 to 0", FrameHello, hello, hello.Append(nil)},
		{"WELCOME", "version 0", FrameWelcome, welcome, welcome.Append(nil)},
		{"REGISTER", "instance c0 c1 .. cf, no token", FrameRegister, none, none.Append(nil)},
		{"REGISTER", "instance c0 c1 .. cf, the tokens a0 a1 .. af and b0 b1 .. bf", FrameRegister, two, two.Append(nil)},
		{"REGISTER", "instance c0 c1 .. cf, no token, the ticket \"abc\"", FrameRegister, ticketed, ticketed.Append(nil)},
		{"REGISTER", "instance c0 c1 .. cf, no token, the ticket \"abc\", the receipt \"de\"", FrameRegister, receipted, receipted.Append(nil)},
		{"REGISTERED", "route 00 01 .. 0f", FrameRegistered, registered, registered.Append(nil)},
		{"REGISTERED", "route 00 01 .. 0f, for an hour", FrameRegistered, registeredFor, registeredFor.Append(nil)},
		{"OPEN", "route 00 01 .. 0f, token a0 a1 .. af, playing", FrameOpen, open, open.Append(nil)},
		{"OPEN", "route 00 01 .. 0f, token a0 a1 .. af, bulk", FrameOpen, bulk, bulk.Append(nil)},
		{"INCOMING", "attachment 0x0102030405060708", FrameIncoming, incoming, incoming.Append(nil)},
		{"GOODBYE", `shutdown, 1500 ms, "bye"`, FrameGoodbye, goodbye, goodbye.Append(nil)},
		{"MEASURE", "up, 1 MiB, no route and token", FrameMeasure, up, up.Append(nil)},
		{"MEASURE", "down, 16 MiB, route 00 01 .. 0f, token a0 a1 .. af", FrameMeasure, down, down.Append(nil)},
		{"MEASURED", "1 MiB in 250 ms", FrameMeasured, measured, measured.Append(nil)},
		{"LIMIT", "volume_limit of 1 GB, 250 MB left, for a day", FrameLimit, limit, limit.Append(nil)},
		{"RECEIPT", "\"abc\"", FrameReceipt, Receipt("abc"), Receipt("abc").Append(nil)},
	}
}

// parse calls the parser of a frame's type.
func parse(t FrameType, p []byte) (any, error) {
	switch t {
	case FrameHello:
		return ParseHello(p)
	case FrameWelcome:
		return ParseWelcome(p)
	case FrameRegister:
		return ParseRegister(p)
	case FrameRegistered:
		return ParseRegistered(p)
	case FrameOpen:
		return ParseOpen(p)
	case FrameIncoming:
		return ParseIncoming(p)
	case FrameGoodbye:
		return ParseGoodbye(p)
	case FrameMeasure:
		return ParseMeasure(p)
	case FrameMeasured:
		return ParseMeasured(p)
	case FrameLimit:
		return ParseLimit(p)
	case FrameReceipt:
		return ParseReceipt(p)
	}
	return nil, errors.New("no parser")
}

func encode(v any) []byte { return v.(interface{ Append([]byte) []byte }).Append(nil) }

func TestRoundTrip(t *testing.T) {
	more := []goldenFrame{
		{name: "HELLO 0-255", kind: FrameHello, value: Hello{0, 255}},
		{name: "WELCOME 255", kind: FrameWelcome, value: Welcome{255}},
		{name: "REGISTER with all there can be", kind: FrameRegister, value: Register{Tokens: make([]TokenHash, MaxTokens), Ticket: strings.Repeat("x", MaxTicket), Receipt: strings.Repeat("y", MaxReceipt)}},
		{name: "INCOMING of ones", kind: FrameIncoming, value: Incoming{1<<64 - 1}},
		{name: "GOODBYE without text", kind: FrameGoodbye, value: Goodbye{Code: 0xffff, RetryAfter: 1<<32 - 1}},
		{name: "GOODBYE with all text", kind: FrameGoodbye, value: Goodbye{Text: strings.Repeat("x", MaxGoodbyeText)}},
	}
	for _, g := range append(golden(), more...) {
		prefix := []byte("before")
		b := g.value.(interface{ Append([]byte) []byte }).Append(prefix)
		if !bytes.HasPrefix(b, prefix) {
			t.Errorf("%s: Append does not append", g.name)
		}
		f, err := ReadFrame(bytes.NewReader(b[len(prefix):]))
		if err != nil || f.Type != g.kind {
			t.Errorf("%s: ReadFrame gives %v, %v", g.name, f.Type, err)
			continue
		}
		v, err := parse(f.Type, f.Payload)
		if err != nil || !reflect.DeepEqual(v, g.value) {
			t.Errorf("%s: got %+v, %v", g.name, v, err)
		}
	}
}

// TestTruncated cuts every golden frame at every byte, in the stream and in
// the payload.
func TestTruncated(t *testing.T) {
	for _, g := range golden() {
		for n := range g.frame {
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			if _, err := ReadFrame(bytes.NewReader(g.frame[:n])); err != want {
				t.Errorf("%s of %d bytes: %v, want %v", g.name, n, err, want)
			}
		}
		payload := g.frame[HeaderLen:]
		needed := len(payload)
		switch g.kind { // whose text may have any length
		case FrameGoodbye:
			needed = 6
		case FrameReceipt:
			needed = 0
		}
		for n := range needed {
			if _, err := parse(g.kind, payload[:n]); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s with %d bytes of payload: %v", g.name, n, err)
			}
		}
		for ft, n := range least {
			if ft != g.kind {
				continue
			}
			if _, err := parse(ft, make([]byte, n)); err != nil {
				t.Errorf("type %#x does not take its %d bytes: %v", ft, n, err)
			}
		}
	}
}

// TestAppendedFields shows that a payload may grow in a later minor version.
func TestAppendedFields(t *testing.T) {
	for _, g := range golden() {
		if g.kind == FrameGoodbye || g.kind == FrameReceipt {
			continue // its text goes to the end
		}
		p := append(bytes.Clone(g.frame[HeaderLen:]), "later"...)
		frame := append([]byte{byte(g.kind), 0, byte(len(p))}, p...)
		f, err := ReadFrame(bytes.NewReader(frame))
		if err != nil {
			t.Errorf("%s: %v", g.name, err)
			continue
		}
		if v, err := parse(f.Type, f.Payload); err != nil || !reflect.DeepEqual(v, g.value) {
			t.Errorf("%s: got %+v, %v", g.name, v, err)
		}
	}
}

// TestOversize gives each type one byte more than it may have, and no payload:
// the header alone must be refused.
func TestOversize(t *testing.T) {
	header := func(ft FrameType, n int) []byte {
		return binary.BigEndian.AppendUint16([]byte{byte(ft)}, uint16(n))
	}
	limits := map[FrameType]int{firstOptional: MaxOptionalPayload, 0xff: MaxOptionalPayload}
	for ft, n := range maxPayload {
		limits[ft] = n
	}
	for ft, n := range limits {
		_, err := ReadFrame(bytes.NewReader(header(ft, n+1)))
		if !errors.Is(err, ErrTooLarge) || CodeOf(err) != CodeFrameTooLarge {
			t.Errorf("type %#x with %d bytes: %v", ft, n+1, err)
		}
		largest := append(header(ft, n), make([]byte, n)...)
		want := error(nil)
		if ft >= firstOptional {
			want = io.EOF // it is skipped
		}
		if _, err := ReadFrame(bytes.NewReader(largest)); err != want {
			t.Errorf("type %#x with %d bytes: %v", ft, n, err)
		}
	}
}

func TestUnknownTypes(t *testing.T) {
	for ft := range firstOptional {
		if _, known := maxPayload[ft]; known {
			continue
		}
		_, err := ReadFrame(bytes.NewReader([]byte{byte(ft), 0, 0}))
		if !errors.Is(err, ErrMalformed) || CodeOf(err) != CodeProtocol {
			t.Errorf("type %#x: %v", ft, err)
		}
	}
}

func TestOptionalFramesAreSkipped(t *testing.T) {
	optional := []byte{0x80, 0, 2, 'h', 'i', 0xff, 0, 0}
	hello := Hello{0, 0}.Append(nil)
	for n := 0; n <= MaxOptionalFrames; n += 2 {
		b := append(bytes.Repeat(optional, n/2), hello...)
		if f, err := ReadFrame(bytes.NewReader(b)); err != nil || f.Type != FrameHello {
			t.Errorf("behind %d optional frames: %v, %v", n, f, err)
		}
	}
	endless := bytes.NewReader(bytes.Repeat(optional, 1000))
	if _, err := ReadFrame(endless); !errors.Is(err, ErrMalformed) {
		t.Errorf("endless optional frames: %v", err)
	}
	if read := int(endless.Size()) - endless.Len(); read > (MaxOptionalFrames+1)*5 {
		t.Errorf("read %d bytes of endless optional frames", read)
	}
}

// TestReadsNoFurther reads two frames and what follows from a reader that
// hands out one byte at a time, and from one that hands out all it has.
func TestReadsNoFurther(t *testing.T) {
	for _, g := range golden() {
		b := append([]byte{0x90, 0, 1, 0}, g.frame...) // skipped, not read ahead
		b = append(append(b, g.frame...), "rest"...)
		for _, r := range []io.Reader{bytes.NewReader(b), iotest.OneByteReader(bytes.NewReader(b)), iotest.DataErrReader(bytes.NewReader(b))} {
			for range 2 {
				f, err := ReadFrame(r)
				if err != nil || !bytes.Equal(f.Payload, g.frame[HeaderLen:]) {
					t.Fatalf("%s: %v, %v", g.name, f, err)
				}
			}
			if rest, _ := io.ReadAll(r); string(rest) != "rest" {
				t.Errorf("%s: %q is left", g.name, rest)
			}
		}
	}
}

func TestReadFrameKeepsErrors(t *testing.T) {
	boom := errors.New("boom")
	frame := Open{}.Append(nil)
	for n := range frame {
		r := io.MultiReader(bytes.NewReader(frame[:n]), iotest.ErrReader(boom))
		if _, err := ReadFrame(r); !errors.Is(err, boom) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

func TestHello(t *testing.T) {
	if _, err := ParseHello([]byte{2, 1}); !errors.Is(err, ErrMalformed) {
		t.Errorf("min above max: %v", err)
	}
	for _, c := range []struct {
		hello   Hello
		version uint8
		ok      bool
	}{
		{Hello{0, 0}, 0, true},
		{Hello{0, 255}, MaxVersion, true},
		{Hello{MaxVersion, MaxVersion + 1}, MaxVersion, true},
		{Hello{MaxVersion + 1, MaxVersion + 1}, 0, false},
		{Hello{MaxVersion + 1, 255}, 0, false},
	} {
		v, ok := c.hello.Choose()
		if ok != c.ok || ok && v != c.version {
			t.Errorf("%+v: version %d, %v", c.hello, v, ok)
		}
	}
}

func TestTooManyTokens(t *testing.T) {
	for _, n := range []int{MaxTokens + 1, 0xffff} {
		p := binary.BigEndian.AppendUint16(someInstance[:], uint16(n))
		_, err := ParseRegister(append(p, 0, 0, 0, 0))
		if !errors.Is(err, ErrTooLarge) || CodeOf(err) != CodeTooManyTokens {
			t.Errorf("%d tokens: %v", n, err)
		}
	}
	// One token too many fits into a frame, so that its sender learns why.
	p := binary.BigEndian.AppendUint16(someInstance[:], MaxTokens+1)
	p = append(p, make([]byte, (MaxTokens+1)*32)...)
	frame := append(binary.BigEndian.AppendUint16([]byte{byte(FrameRegister)}, uint16(len(p))), p...)
	if _, err := ReadFrame(bytes.NewReader(frame)); err != nil {
		t.Errorf("a REGISTER with one token too many: %v", err)
	}
}

func TestTicketTooLong(t *testing.T) {
	for _, n := range []int{MaxTicket + 1, 0xffff} {
		p := binary.BigEndian.AppendUint16(make([]byte, 18), uint16(n))
		p = append(p, make([]byte, MaxTicket+1)...)
		_, err := ParseRegister(p)
		if !errors.Is(err, ErrTooLarge) || CodeOf(err) != CodeFrameTooLarge {
			t.Errorf("a ticket of %d bytes: %v", n, err)
		}
	}
	p := Register{Ticket: "abc"}.Append(nil)[HeaderLen:]
	if _, err := ParseRegister(p[:len(p)-1]); !errors.Is(err, ErrMalformed) || CodeOf(err) != CodeProtocol {
		t.Errorf("a ticket that is cut: %v", err)
	}
}

func TestMeasure(t *testing.T) {
	payload := Measure{Bytes: MaxMeasure}.Append(nil)[HeaderLen:]
	for name, spoil := range map[string]func([]byte){
		"a third direction": func(p []byte) { p[0] = 2 },
		"a byte too many":   func(p []byte) { binary.BigEndian.PutUint32(p[1:], MaxMeasure+1) },
	} {
		p := bytes.Clone(payload)
		spoil(p)
		if _, err := ParseMeasure(p); !errors.Is(err, ErrMalformed) || CodeOf(err) != CodeProtocol {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGoodbyeText(t *testing.T) {
	for _, text := range []string{strings.Repeat("x", 300), strings.Repeat("é", 200), "x" + strings.Repeat("é", 200)} {
		g, err := ParseGoodbye(Goodbye{Text: text}.Append(nil)[HeaderLen:])
		if err != nil || len(g.Text) > MaxGoodbyeText || len(g.Text) < MaxGoodbyeText-1 ||
			!strings.HasPrefix(text, g.Text) || !utf8.ValidString(g.Text) {
			t.Errorf("%.10s... became %q, %v", text, g.Text, err)
		}
	}
}

func TestCodes(t *testing.T) {
	for v, want := range map[uint64]Code{0: CodeNone, 0x105: CodeTimeout, 0xffff: 0xffff, 0x10000: CodeInternal, 1 << 62: CodeInternal} {
		if got := FromQUIC(v); got != want {
			t.Errorf("FromQUIC(%#x) is %v, want %v", v, got, want)
		}
	}
	for _, c := range Codes() {
		if c.FromEndpoint() != (c >= CodeCancelled) {
			t.Errorf("%v: FromEndpoint is %v", c, c.FromEndpoint())
		}
	}
	if CodeOf(io.EOF) != CodeProtocol {
		t.Errorf("an error without a code of its own is %v", CodeOf(io.EOF))
	}
}

func TestErrorTexts(t *testing.T) {
	for want, err := range map[string]error{
		"stream reset: tampered": &ResetError{CodeTampered},
		`connection closed by the other end: not_admitted ("no\x1b[2J")`: &ClosedError{CodeNotAdmitted, "no\x1b[2J", true},
		"connection closed here: timeout":                                &ClosedError{Code: CodeTimeout},
	} {
		if err.Error() != want {
			t.Errorf("got %s, want %s", err, want)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	for _, g := range golden() {
		f.Add(g.frame)
		f.Add(append([]byte{0x80, 0, 1, 7}, g.frame...))
		f.Add(g.frame[:len(g.frame)-1])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		frame, err := ReadFrame(r)
		if err != nil {
			if frame.Payload != nil {
				t.Error("an error and a payload")
			}
			return
		}
		used := b[:len(b)-r.Len()]
		if !bytes.HasSuffix(used, frame.Payload) || len(frame.Payload) > maxPayload[frame.Type] {
			t.Errorf("type %#x with %d bytes out of %x", frame.Type, len(frame.Payload), used)
		}
		if v, err := parse(frame.Type, frame.Payload); err == nil && len(encode(v)) > HeaderLen+len(frame.Payload) {
			t.Errorf("%+v is longer than what it was read from", v)
		}
	})
}

// fuzzPayload feeds a parser: what it takes must survive another round.
func fuzzPayload(f *testing.F, ft FrameType) {
	for _, g := range golden() {
		f.Add(g.frame[HeaderLen:])
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) > maxPayload[ft] {
			return
		}
		v, err := parse(ft, p)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
				t.Errorf("error %v", err)
			}
			return
		}
		again, err := parse(ft, encode(v)[HeaderLen:])
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(v, again) {
			t.Errorf("%+v became %+v", v, again)
		}
	})
}

func FuzzParseHello(f *testing.F)      { fuzzPayload(f, FrameHello) }
func FuzzParseWelcome(f *testing.F)    { fuzzPayload(f, FrameWelcome) }
func FuzzParseRegister(f *testing.F)   { fuzzPayload(f, FrameRegister) }
func FuzzParseRegistered(f *testing.F) { fuzzPayload(f, FrameRegistered) }
func FuzzParseOpen(f *testing.F)       { fuzzPayload(f, FrameOpen) }
func FuzzParseIncoming(f *testing.F)   { fuzzPayload(f, FrameIncoming) }
func FuzzParseGoodbye(f *testing.F)    { fuzzPayload(f, FrameGoodbye) }
func FuzzParseMeasure(f *testing.F)    { fuzzPayload(f, FrameMeasure) }
func FuzzParseMeasured(f *testing.F)   { fuzzPayload(f, FrameMeasured) }
func FuzzParseLimit(f *testing.F)      { fuzzPayload(f, FrameLimit) }
func FuzzParseReceipt(f *testing.F)    { fuzzPayload(f, FrameReceipt) }

func TestReceiptBounds(t *testing.T) {
	p := Register{Receipt: "abc"}.Append(nil)[HeaderLen:]
	if _, err := ParseRegister(p[:len(p)-1]); !errors.Is(err, ErrMalformed) || CodeOf(err) != CodeProtocol {
		t.Errorf("a receipt that is cut: %v", err)
	}
	p = binary.BigEndian.AppendUint16(make([]byte, 20), MaxReceipt+1)
	if _, err := ParseRegister(append(p, make([]byte, MaxReceipt+1)...)); CodeOf(err) != CodeFrameTooLarge {
		t.Errorf("a receipt of %d bytes: %v", MaxReceipt+1, err)
	}
	for _, c := range []byte{0, ' ', '\n', 0x7f, 0xff} {
		if _, err := ParseReceipt([]byte{'a', c}); !errors.Is(err, ErrMalformed) {
			t.Errorf("RECEIPT with byte %#x: %v", c, err)
		}
	}
}

func TestUnknownUrgency(t *testing.T) {
	p := Open{Urgency: 255}.Append(nil)[HeaderLen:]
	if o, err := ParseOpen(p); err != nil || o.Urgency != Bulk {
		t.Errorf("urgency 255 is %d, %v", o.Urgency, err)
	}
}
