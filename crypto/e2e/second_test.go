package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
)

// second is testdata/second.py, another implementation of the protocol that was
// written from DESIGN.md alone.
type second struct {
	t   *testing.T
	in  *json.Encoder
	out *json.Decoder
}

// object is a question or an answer; bytes are hexBytes.
type object map[string]any

// hexBytes are bytes that are hex in JSON.
type hexBytes []byte

func (b hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(b)), nil }

func (b *hexBytes) UnmarshalText(p []byte) (err error) {
	*b, err = hex.DecodeString(string(p))
	return err
}

// reply is any answer of the second implementation.
type reply struct {
	Refused        string
	ID             uint64
	Said, Answered hexBytes
	Up, Down       hexBytes
	Asks, Answers  [3]uint64
	Records        []hexBytes
	Contents       []hexBytes
	Payload        hexBytes
	Streams        string
	Binding        string
	Context        hexBytes
}

func startSecond(t *testing.T) *second {
	t.Helper()
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(python, "-c", "import cryptography").Run() != nil {
			continue
		}
		cmd := exec.Command(python, "testdata/second.py")
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			in.Close()
			if err := cmd.Wait(); err != nil {
				t.Errorf("second.py: %v", err)
			}
		})
		return &second{t, json.NewEncoder(in), json.NewDecoder(out)}
	}
	const lack = "python3 with the package cryptography is missing (Debian: python3-cryptography): the second implementation does NOT run"
	if os.Getenv("CI") == "true" {
		t.Fatal(lack)
	}
	t.Skip(lack)
	return nil
}

// ask returns the answer to one question.
func (s *second) ask(what string, q object) (r reply) {
	s.t.Helper()
	q["ask"] = what
	if err := s.in.Encode(q); err != nil {
		s.t.Fatal(err)
	}
	if err := s.out.Decode(&r); err != nil {
		s.t.Fatalf("second.py does not answer to %s: %v", what, err)
	}
	return r
}

// accepted is ask for what must not be refused.
func (s *second) accepted(what string, q object) reply {
	s.t.Helper()
	r := s.ask(what, q)
	if r.Refused != "" {
		s.t.Fatalf("second.py refuses to %s: %s", what, r.Refused)
	}
	return r
}

// TestSecondImplementation has testdata/second.py open what this package
// sealed, and the reverse, with random secrets, numbers, contents and sizes in
// all three suites; what one refuses the other one refuses too.
func TestSecondImplementation(t *testing.T) {
	py := startSecond(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	rounds := 30
	if scheduleStride > 1 {
		rounds = 6
	}
	var opened, refused int
	for _, su := range suites() {
		for range rounds {
			o := &opinion{t: t, py: py, rng: rng, su: su, s: sessionWith(t, su, randomBytes(rng, secretLen)), binding: randomBytes(rng, 32)}
			o.streams()
			o.furtherCarriers()
			o.epochs()
			o.join()
			opened += o.opened
			refused += o.refused
		}
	}
	t.Logf("%d halves read both ways, %d changed halves refused by both", opened, refused)
	exports(t, py)
}

// exports holds the keys of a real handshake against the second opinion on
// how they are exported.
func exports(t *testing.T, py *second) {
	w := newWorld(t, nil)
	id := w.allow(newIdentity(t))
	s := w.connect(id, 1)
	if _, err := s.Welcome(context.Background()); err != nil {
		t.Fatal(err)
	}
	server, device := w.id.Pin(), id.Pin()
	r := py.accepted("exporter", object{"server": hexBytes(server[:]), "device": hexBytes(device[:])})
	cs := s.first.tls.ConnectionState()
	for label, want := range map[string][]byte{r.Streams: s.secret, r.Binding: s.binding} {
		if got, err := cs.ExportKeyingMaterial(label, r.Context, 32); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what second.py would export: %v", label, err)
		}
	}
}

// opinion is one round of questions about one session.
type opinion struct {
	t       *testing.T
	py      *second
	rng     *rand.Rand
	su      *suite
	s       *session
	binding []byte

	up, down        []byte // of a stream that this package sealed
	opened, refused int
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// parts are random contents of the Writes of a half.
func (o *opinion) parts() (all [][]byte) {
	for range 1 + o.rng.IntN(4) {
		all = append(all, randomBytes(o.rng, []int{0, 1, 255, 2047, 2048, 16384, 16385, o.rng.IntN(40_000)}[o.rng.IntN(8)]))
	}
	return all
}

func (o *opinion) question(q object) object {
	q["secret"], q["suite"], q["link"] = hexBytes(o.s.secret), o.su.id, hexBytes(o.binding)
	return q
}

func (o *opinion) streamID() uint64 { return o.rng.Uint64N(maxStreamID + 1) }

// streams: whole streams, sealed by either and read by the other.
func (o *opinion) streams() {
	id := o.streamID()
	ours := record(o.t, o.s, id, o.parts(), o.parts())
	o.up, o.down = ours.up, ours.down
	got := o.py.accepted("read", o.question(object{"up": hexBytes(ours.up), "down": hexBytes(ours.down)}))
	if got.ID != id || !bytes.Equal(got.Said, ours.said) || !bytes.Equal(got.Answered, ours.answered) {
		o.t.Fatalf("%s: second.py reads other content than this package sealed", tls.CipherSuiteName(o.su.id))
	}

	said, answered := bytes.Join(o.parts(), nil), bytes.Join(o.parts(), nil)
	r := o.py.accepted("write", o.question(object{"id": id, "said": hexBytes(said), "answered": hexBytes(answered), "seed": o.rng.Uint32()}))
	theirs := &recording{t: o.t, s: o.s, up: r.Up, down: r.Down, said: said, answered: answered}
	p, err := parseOpenPreface(r.Up)
	if err != nil {
		o.t.Fatal(err)
	}
	if theirs.name, _, err = p.verify(o.su, o.s.secret); err != nil || p.id != id {
		o.t.Fatalf("the preface of stream %d by second.py: %d, %v", id, p.id, err)
	}
	for _, h := range theirs.halves() {
		content, err := h.replay(h.bytes)
		if err != nil || !bytes.Equal(content, h.content) {
			o.t.Fatalf("%s: this package reads %d bytes of the %s's half that second.py sealed, of %d: %v", tls.CipherSuiteName(o.su.id), len(content), h.name, len(h.content), err)
		}
	}
	o.opened += 4

	for i, h := range theirs.halves() {
		bad := bytes.Clone(h.bytes)
		if at := o.rng.IntN(len(bad)); o.rng.IntN(3) == 0 {
			bad = bad[:at]
		} else {
			bad[at] ^= 1 << o.rng.IntN(8)
		}
		var err error
		synctest.Test(o.t, func(*testing.T) { _, err = h.settled(bad) }) // a cut half waits a minute for more
		q := o.question(object{"up": r.Up, "down": r.Down})
		q[[]string{"up", "down"}[i]] = hexBytes(bad)
		if answer := o.py.ask("read", q); err == nil || answer.Refused == "" {
			o.t.Fatalf("a changed half of the %s: this package says %v, second.py %q", h.name, err, answer.Refused)
		}
		o.refused++
	}
}

// furtherCarriers: prefaces that resume, and records that come over several
// carriers, some more than once.
func (o *opinion) furtherCarriers() {
	p, err := parseOpenPreface(o.up)
	if err != nil {
		o.t.Fatal(err)
	}
	name, opens, err := p.verify(o.su, o.s.secret)
	if err != nil {
		o.t.Fatal(err)
	}
	accepts, err := verifyAccept(name, o.s.secret, o.down)
	if err != nil {
		o.t.Fatal(err)
	}
	asks := resumption{o.rng.Uint32(), o.rng.Uint32(), o.rng.Uint64()}
	answers := resumption{number: asks.number, next: []uint64{o.rng.Uint64(), stopped}[o.rng.IntN(2)]}
	first := object{"up": hexBytes(o.up[:openPrefaceLen]), "down": hexBytes(o.down[:acceptPrefaceLen]),
		"asks": []uint64{uint64(asks.number), uint64(asks.gone), asks.next}, "answers": []uint64{uint64(answers.number), 0, answers.next}}
	theirs := o.py.accepted("resume", o.question(first))
	up, err := resumed(o.up[:openPrefaceLen], opens.resume, o.binding, asks)
	if err != nil || !bytes.Equal(up, theirs.Up) {
		o.t.Fatalf("the opener's preface is %x here and %x in second.py, %v", up, theirs.Up, err)
	}
	down, err := resumed(o.down[:acceptPrefaceLen], accepts.resume, o.binding, answers)
	if err != nil || !bytes.Equal(down, theirs.Down) {
		o.t.Fatalf("the acceptor's preface is %x here and %x in second.py, %v", down, theirs.Down, err)
	}
	if at, err := verifyResumption(theirs.Up[openPrefaceLen:], opens.resume, o.binding); err != nil || at != asks {
		o.t.Fatalf("%+v read as %+v, %v", asks, at, err)
	}
	r := o.py.accepted("resumed", o.question(object{"up": hexBytes(up), "down": hexBytes(down)}))
	if r.Asks != [3]uint64{uint64(asks.number), uint64(asks.gone), asks.next} || r.Answers != [3]uint64{uint64(answers.number), 0, answers.next} {
		o.t.Fatalf("%+v, %+v read as %v, %v", asks, answers, r.Asks, r.Answers)
	}
	bad := bytes.Clone(up)
	bad[openPrefaceLen+o.rng.IntN(resumptionLen)] ^= 1 << o.rng.IntN(8)
	if r := o.py.ask("resumed", o.question(object{"up": hexBytes(bad), "down": hexBytes(down)})); r.Refused == "" {
		o.t.Fatal("second.py takes a changed preface")
	}
	if _, err := verifyResumption(bad[openPrefaceLen:], opens.resume, o.binding); err != ErrSpliced {
		o.t.Fatalf("this package takes a changed preface: %v", err)
	}

	carriers := make([]hexBytes, 3)
	for b := o.up[openPrefaceLen:]; len(b) > 0; {
		_, size, err := recordHeader(b)
		if err != nil {
			o.t.Fatal(err)
		}
		for range 1 + o.rng.IntN(2) {
			i := o.rng.IntN(len(carriers))
			carriers[i] = append(carriers[i], b[:size]...)
		}
		b = b[size:]
	}
	whole := o.py.accepted("read", o.question(object{"up": hexBytes(o.up), "down": hexBytes(o.down)}))
	merged := o.py.accepted("merge", o.question(object{"up": hexBytes(up), "carriers": carriers}))
	if !bytes.Equal(merged.Said, whole.Said) {
		o.t.Fatal("records over three carriers read otherwise than over one")
	}
}

// epochs: records on both sides of each change of keys.
func (o *opinion) epochs() {
	secret := randomBytes(o.rng, secretLen)
	var seqs []uint64
	for epoch := range uint64(4) {
		seqs = append(seqs, epoch*rekeyEvery, epoch*rekeyEvery+1+o.rng.Uint64N(rekeyEvery-2), (epoch+1)*rekeyEvery-1)
	}
	w, err := newHalf(o.su, secret)
	if err != nil {
		o.t.Fatal(err)
	}
	r, err := newOpening(o.su, secret)
	if err != nil {
		o.t.Fatal(err)
	}
	var records []hexBytes
	for _, seq := range seqs {
		w.seq = seq
		text := []byte(decimal(seq))
		rec, err := w.seal(make([]byte, 0, 500), recordData, text, int(seq%256))
		if err != nil {
			o.t.Fatal(err)
		}
		records = append(records, rec)
	}
	q := object{"suite": o.su.id, "secret": hexBytes(secret), "seqs": seqs, "records": records}
	theirs := o.py.accepted("seal", q)
	if !slices.EqualFunc(theirs.Records, records, func(a, b hexBytes) bool { return bytes.Equal(a, b) }) {
		o.t.Fatal("second.py seals to other bytes")
	}
	for i, c := range o.py.accepted("open_all", q).Contents {
		if string(c) != decimal(seqs[i]) {
			o.t.Fatalf("second.py opens record %d to %q", seqs[i], c)
		}
	}
	var nonce [nonceLen]byte
	for i, rec := range theirs.Records {
		if _, c, err := r.open(&nonce, make([]byte, 500), rec); err != nil || string(c) != decimal(seqs[i]) {
			o.t.Fatalf("record %d by second.py opens to %q, %v", seqs[i], c, err)
		}
	}
}

func decimal(n uint64) string { return strconv.FormatUint(n, 10) }

// join: the payload of JOIN.
func (o *opinion) join() {
	j := join{session: o.s.id, next: o.rng.Uint64()}
	for range o.rng.IntN(6) {
		j.streams = append(j.streams, o.streamID())
	}
	var err error
	if j.mac, err = joinMAC(o.s.secret, o.binding); err != nil {
		o.t.Fatal(err)
	}
	streams := append([]uint64{}, j.streams...)
	if r := o.py.accepted("join", o.question(object{"next": j.next, "streams": streams})); !bytes.Equal(r.Payload, j.payload()) {
		o.t.Fatalf("JOIN is %x here and %x in second.py", j.payload(), r.Payload)
	}
}
