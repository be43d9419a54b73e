package e2e

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/mlkem"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// taped is all that stood on one hop, as the relay and the network see it.
type taped struct {
	up, down []byte
}

// taping keeps every byte of every hop of a world.
type taping struct{ hops []*pipeEnd }

func (x *taping) prepare(_ int, _ uint64, d, _ *pipeEnd) {
	d.out.limit, d.in.limit = 1<<20, 1<<20 // what such lanes carry is kept
	x.hops = append(x.hops, d)
}

func (x *taping) tapes() (all []taped) {
	for _, d := range x.hops {
		var t taped
		d.out.set(func() { t.up = bytes.Clone(d.out.all) })
		d.in.set(func() { t.down = bytes.Clone(d.in.all) })
		all = append(all, t)
	}
	return all
}

// recorded is a whole session as an eavesdropper has it, with what he does not
// have: the secret, TLS's own log of keys, and the content.
type recorded struct {
	hops    []taped
	suite   *suite
	secret  []byte
	keyLog  string
	content []string // of both halves of each stream
}

// recordSession runs a session between two identities on the given randomness,
// with two streams, a carrier that is lost, and a second link.
func recordSession(t *testing.T, server, device *Identity, seed uint64) (r recorded) {
	t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
		cryptotest.SetGlobalRandom(t, seed)
		synctest.Test(t, func(t *testing.T) {
			tape, keyLog := new(taping), new(bytes.Buffer)
			w := newWorld(t, func(cfg *ServerConfig) { cfg.Identity = server })
			w.id, w.prepare = server, tape.prepare
			w.server.tls.KeyLogWriter = keyLog
			s := w.connect(w.allow(device), 1)
			if _, err := s.Welcome(context.Background()); err != nil {
				t.Fatal(err)
			}
			for i := range 2 {
				said, answered := fmt.Sprintf("a request, needle %d", i), fmt.Sprintf("a response, haystack %d", i)
				a, b := w.streams(s)
				a.Write([]byte(said))
				synctest.Wait()
				if i == 1 { // what follows goes over a further carrier and link
					w.drop(1)
					if _, err := w.join(s, 2); err != nil {
						t.Fatal(err)
					}
				}
				b.Write([]byte(answered))
				a.CloseWrite()
				b.CloseWrite()
				for c, want := range map[*Conn]string{b: said, a: answered} {
					if got, err := io.ReadAll(c); err != nil || string(got) != want {
						t.Fatalf("%q, %v", got, err)
					}
				}
				r.content = append(r.content, "x"+said, answered)
			}
			s.Close(wire.CodeNone, "done")
			r.hops, r.suite, r.secret, r.keyLog = tape.tapes(), s.suite, s.secret, keyLog.String()
		})
	})
	return r
}

// open returns the content of the streams in a recording that a session's
// secret opens, in the order of their first carriers.
func (r *recorded) open(secret []byte) (content []string) {
	type key struct {
		id     uint64
		opener bool
	}
	parts := make(map[key]map[uint64][]byte)
	var order []key
	add := func(k key, half sealedHalf, records []byte) {
		if parts[k] == nil {
			parts[k] = make(map[uint64][]byte)
			order = append(order, k)
		}
		o, err := newOpening(r.suite, half.secret)
		if err != nil {
			return
		}
		var nonce [nonceLen]byte
		for len(records) >= recordHeaderLen {
			seq, size, err := recordHeader(records)
			if err != nil || size > len(records) {
				return
			}
			if _, c, err := o.open(&nonce, make([]byte, maxSealed), records[:size]); err == nil {
				parts[k][seq] = c
			}
			records = records[size:]
		}
	}
	for _, h := range r.hops {
		p, err := parseOpenPreface(h.up)
		if err != nil {
			continue // TLS
		}
		name, opens, err := p.verify(r.suite, secret)
		if err != nil {
			continue
		}
		more := 0
		if h.up[0] == kindResumed {
			more = resumptionLen
		}
		add(key{p.id, true}, opens, h.up[min(len(h.up), openPrefaceLen+more):])
		if len(h.down) < acceptPrefaceLen+more {
			continue
		}
		if accepts, err := verifyAccept(name, secret, h.down); err == nil {
			add(key{p.id, false}, accepts, h.down[acceptPrefaceLen+more:])
		}
	}
	for _, k := range order {
		var all []byte
		for seq := range uint64(len(parts[k])) {
			all = append(all, parts[k][seq]...)
		}
		content = append(content, string(all))
	}
	return content
}

// TestForwardSecrecy holds both identity keys and all bytes of a session's
// hops, and tries to read them.
//
// No test can show that something cannot be computed. This one shows two
// things. First, the secret of a session is no function of the keys: with the
// same two identities and certificates, the same programs and the same clock
// a handshake on other randomness makes a secret that opens nothing; the same
// randomness, as a control, makes the same secret, which opens all. Second, no
// Diffie-Hellman or ML-KEM secret that the two keys can be put to, with what
// stands in the recording, gets through TLS's key schedule to keys that open
// the handshake: the keys sign, and are nowhere an input. That the ephemeral
// keys are gone from memory afterwards is not shown here; the standard library
// holds them for the handshake alone.
func TestForwardSecrecy(t *testing.T) {
	server, device := newIdentity(t), newIdentity(t)
	taken := recordSession(t, server, device, 1)
	if got := taken.open(taken.secret); !slices.Equal(got, taken.content) || len(got) != 4 {
		t.Fatalf("control: the session's own secret opens %q, want %q", got, taken.content)
	}
	for _, h := range taken.hops {
		for _, c := range taken.content {
			if bytes.Contains(h.up, []byte(c)) || bytes.Contains(h.down, []byte(c)) {
				t.Fatalf("%q stands in the recording", c)
			}
		}
	}

	again := recordSession(t, server, device, 1)
	if !bytes.Equal(again.secret, taken.secret) || len(taken.open(again.secret)) != 4 {
		t.Error("control: the same keys and the same randomness make another secret, so other randomness proves nothing")
	}
	for seed := range uint64(8) {
		other := recordSession(t, server, device, 2+seed)
		if got := taken.open(other.secret); len(got) > 0 {
			t.Errorf("the identities, in another handshake, open %q", got)
		}
	}

	guesses := taken.guesses(t, server, device)
	for _, g := range guesses {
		if got := taken.open(g); len(got) > 0 {
			t.Errorf("%x opens %q", g, got)
		}
		for _, part := range [][]byte{g[:32], g[32:]} {
			if got := taken.open(part); len(got) > 0 {
				t.Errorf("%x opens %q", part, got)
			}
		}
	}
	for i, h := range taken.handshakes() {
		traffic := taken.logged(t, i)
		if !h.finished(traffic) {
			t.Error("control: the handshake's own secret does not open it")
		}
		for _, g := range guesses {
			if h.finished(h.traffic(g)) {
				t.Errorf("a secret made of identity keys opens the handshake: %x", g)
			}
		}
	}
	t.Logf("%d secrets made of the identity keys and the recording tried", len(guesses))
}

// guesses are the 64 bytes that the hybrid exchange could have come to if one
// of the identity keys were part of it.
func (r *recorded) guesses(t *testing.T, ids ...*Identity) (all [][]byte) {
	none := make([]byte, 32)
	x, kem := [][]byte{none}, [][]byte{none}
	var scalars []*ecdh.PrivateKey
	var seeds [][]byte
	for _, id := range ids {
		key := id.cert.PrivateKey.(ed25519.PrivateKey)
		digest := sha512.Sum512(key.Seed())
		seeds = append(seeds, key, digest[:])
		x, kem = append(x, key.Seed()), append(kem, key.Seed())
		for _, b := range [][]byte{key.Seed(), digest[:32], digest[32:]} {
			k, err := ecdh.X25519().NewPrivateKey(b)
			if err != nil {
				t.Fatal(err)
			}
			scalars = append(scalars, k)
		}
	}
	var shares [][]byte
	for _, h := range r.handshakes() {
		client, server := h.shares()
		if len(client) != mlkem.EncapsulationKeySize768+32 || len(server) != mlkem.CiphertextSize768+32 {
			t.Fatalf("key shares of %d and %d bytes", len(client), len(server))
		}
		shares = append(shares, client[len(client)-32:], server[len(server)-32:])
		for _, seed := range seeds {
			dk, err := mlkem.NewDecapsulationKey768(seed)
			if err != nil {
				t.Fatal(err)
			}
			secret, err := dk.Decapsulate(server[:mlkem.CiphertextSize768])
			if err != nil {
				t.Fatal(err)
			}
			kem = append(kem, secret)
		}
	}
	for _, k := range scalars {
		shares = append(shares, k.PublicKey().Bytes())
	}
	for _, k := range scalars {
		for _, share := range shares {
			pub, err := ecdh.X25519().NewPublicKey(share)
			if err != nil {
				t.Fatal(err)
			}
			secret, err := k.ECDH(pub)
			if err != nil {
				t.Fatal(err)
			}
			x = append(x, secret)
		}
	}
	for _, a := range kem {
		for _, b := range x {
			all = append(all, slices.Concat(a, b)) // draft-ietf-tls-ecdhe-mlkem, section 4.1: ML-KEM's comes first
		}
	}
	return all
}

// handshake is one TLS handshake in a recording.
type handshake struct {
	suite        uint16
	hello, reply []byte   // messages
	sealed       [][]byte // the server's encrypted records, the handshake's first
}

func (r *recorded) handshakes() (all []handshake) {
	for _, h := range r.hops {
		if !bytes.HasPrefix(h.up, []byte{kindControl}) || len(h.down) == 0 { // or nothing was sent on it
			continue
		}
		var s handshake
		for b := h.down; len(b) > 5; {
			n := 5 + int(binary.BigEndian.Uint16(b[3:]))
			switch b[0] {
			case 22: // handshake, RFC 8446, section 5.1
				s.reply = b[5:n]
			case 23: // application data
				s.sealed = append(s.sealed, b[:n])
			}
			b = b[n:]
		}
		s.hello = h.up[1+5:][:binary.BigEndian.Uint16(h.up[1+3:])]
		id := 4 + 2 + 32 // of the suite: after the head, the version, the random and the session's id
		s.suite = binary.BigEndian.Uint16(s.reply[id+1+int(s.reply[id]):])
		all = append(all, s)
	}
	return all
}

// shares are the key shares of X25519MLKEM768 (0x11ec).
func (h *handshake) shares() (client, server []byte) {
	find := func(b []byte, size int) []byte {
		head := binary.BigEndian.AppendUint16([]byte{0x11, 0xec}, uint16(size))
		_, after, _ := bytes.Cut(b, head)
		return after[:min(len(after), size)]
	}
	return find(h.hello, mlkem.EncapsulationKeySize768+32), find(h.reply, mlkem.CiphertextSize768+32)
}

func (h *handshake) hash() func() hash.Hash {
	if h.suite == tls.TLS_AES_256_GCM_SHA384 {
		return sha512.New384
	}
	return sha256.New
}

// traffic is the server's handshake traffic secret if shared is what the key
// exchange came to.
func (h *handshake) traffic(shared []byte) []byte {
	transcript := h.hash()()
	transcript.Write(h.hello)
	transcript.Write(h.reply)
	return serverTraffic(h.hash(), shared, transcript.Sum(nil))
}

// serverTraffic is server_handshake_traffic_secret of RFC 8446, section 7.1.
func serverTraffic(h func() hash.Hash, shared, transcript []byte) []byte {
	size := h().Size()
	early, _ := hkdf.Extract(h, make([]byte, size), make([]byte, size))
	derived := expandLabel(h, early, "derived", h().Sum(nil), size)
	secret, _ := hkdf.Extract(h, shared, derived)
	return expandLabel(h, secret, "s hs traffic", transcript, size)
}

// expandLabel is HKDF-Expand-Label of RFC 8446, section 7.1.
func expandLabel(h func() hash.Hash, secret []byte, label string, context []byte, n int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(len("tls13 "+label)))
	info = append(info, "tls13 "+label...)
	info = append(info, byte(len(context)))
	b, _ := hkdf.Expand(h, secret, string(append(info, context...)), n)
	return b
}

// finished opens the server's flight with a traffic secret and verifies that
// its Finished covers the handshake as it was recorded (RFC 8446, section
// 4.4.4). It reports false if that is not the flight's secret.
func (h *handshake) finished(traffic []byte) bool {
	su, size := suiteOf(h.suite), h.hash()().Size()
	aead, err := su.aead(expandLabel(h.hash(), traffic, "key", nil, su.keyLen))
	if err != nil {
		return false
	}
	iv := [nonceLen]byte(expandLabel(h.hash(), traffic, "iv", nil, nonceLen))
	transcript := h.hash()()
	transcript.Write(h.hello)
	transcript.Write(h.reply)
	var flight []byte
	for seq, record := range h.sealed {
		nonce := iv
		nonceOf(&nonce, uint64(seq))
		b, err := aead.Open(nil, nonce[:], record[5:], record[:5])
		if err != nil {
			return false
		}
		flight = append(flight, b[:len(b)-1]...) // its last byte is the type
		for len(flight) >= 4 {
			n := 4 + int(binary.BigEndian.Uint32(flight)&0xffffff)
			if len(flight) < n {
				break
			}
			if flight[0] == 20 {
				mac := hmac.New(h.hash(), expandLabel(h.hash(), traffic, "finished", nil, size))
				mac.Write(transcript.Sum(nil))
				return hmac.Equal(mac.Sum(nil), flight[4:n])
			}
			transcript.Write(flight[:n])
			flight = flight[n:]
		}
	}
	return false
}

// logged is what TLS logged as the server's traffic secret of a handshake.
func (r *recorded) logged(t *testing.T, n int) []byte {
	for line := range strings.Lines(r.keyLog) {
		fields := strings.Fields(line)
		if fields[0] != "SERVER_HANDSHAKE_TRAFFIC_SECRET" {
			continue
		}
		if n--; n < 0 {
			b, err := hex.DecodeString(fields[2])
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
	t.Fatal("no such secret was logged")
	return nil
}

// TestTrafficSecret holds serverTraffic against the trace of RFC 8448,
// section 3.
func TestTrafficSecret(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	got := serverTraffic(sha256.New,
		unhex("8bd4054fb55b9d63fdfbacf9f04b9f0d35e6d63f537563efd46272900f89492d"),
		unhex("860c06edc07858ee8e78f0e7428c58edd6b43f2ca3e6e95f02ed063cf0e1cad8"))
	if want := unhex("b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38"); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}
