package e2e

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// sealings is what was sealed under each key and nonce by any endpoint of a
// test.
type sealings struct {
	mu    sync.Mutex
	plain map[string][sha256.Size]byte // of additional data and plaintext, by key and nonce
	seals int
	err   error // the first two that differ
}

type sealingAEAD struct {
	cipher.AEAD
	all *sealings
	key string
}

func (a *sealingAEAD) Seal(dst, nonce, plain, aad []byte) []byte {
	a.all.mu.Lock()
	at, sum := a.key+string(nonce), sha256.Sum256(slices.Concat(aad, plain))
	if was, ok := a.all.plain[at]; ok && was != sum && a.all.err == nil {
		a.all.err = fmt.Errorf("key %x and nonce %x seal two plaintexts", a.key, nonce)
	}
	a.all.plain[at] = sum
	a.all.seals++
	a.all.mu.Unlock()
	return a.AEAD.Seal(dst, nonce, plain, aad)
}

func (x *sealings) suite(su *suite) *suite {
	return &suite{su.id, su.keyLen, func(key []byte) (cipher.AEAD, error) {
		a, err := su.aead(key)
		return &sealingAEAD{a, x, string(key)}, err
	}}
}

// copies counts the records on the hops of a test and how many of them are
// copies of others. The error says that a record was sent in two forms.
func copies(hops []taped) (records, again int, err error) {
	seen := make(map[string][]byte)
	for _, h := range hops {
		for dir, b := range [][]byte{h.up, h.down} {
			n := []int{openPrefaceLen, acceptPrefaceLen}[dir]
			if len(b) < n || bytes.HasPrefix(h.up, []byte{kindControl}) {
				continue
			}
			half := string(b[n-commitLen : n])
			if b[0] == kindResumed {
				n += resumptionLen
			}
			for b = b[min(n, len(b)):]; len(b) >= recordHeaderLen; {
				seq, size, err := recordHeader(b)
				if err != nil {
					return records, again, err
				}
				if size > len(b) {
					break // cut
				}
				at := fmt.Sprintf("%s %d", half, seq)
				if was := seen[at]; was != nil {
					if again++; !bytes.Equal(was, b[:size]) {
						return records, again, fmt.Errorf("record %d of a half was sent in two forms", seq)
					}
				}
				seen[at] = b[:size]
				records, b = records+1, b[size:]
			}
		}
	}
	return records, again, nil
}

// TestNonceUniqueness is a property of random sessions: two with each of two
// devices, many streams, both halves, carriers and links that are cut and
// replaced. No key and nonce ever seal two plaintexts, and a record that is
// sent again is the same bytes.
func TestNonceUniqueness(t *testing.T) {
	runs := uint64(40)
	if scheduleStride > 1 || testing.Short() {
		runs = 6
	}
	var seals, records, again int
	for seed := range runs {
		synctest.Test(t, func(t *testing.T) {
			x := &sealings{plain: make(map[string][sha256.Size]byte)}
			hops := sealAtRandom(t, x, seed)
			n, m, err := copies(hops)
			if err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			if x.err != nil {
				t.Errorf("seed %d: %v", seed, x.err)
			}
			seals, records, again = seals+x.seals, records+n, again+m
		})
	}
	t.Logf("%d runs: %d records sealed, %d on the hops, %d of them sent again", runs, seals, records, again)
	if again == 0 || records == 0 || seals == 0 {
		t.Error("nothing was sent again")
	}
}

func sealAtRandom(t *testing.T, x *sealings, seed uint64) []taped {
	ch := &chaos{rng: rand.New(rand.NewPCG(seed, 11))}
	w := newWorld(t, nil)
	ch.w = w
	tape := new(taping)
	var mu sync.Mutex
	w.prepare = func(n int, attachment uint64, d, a *pipeEnd) {
		mu.Lock()
		defer mu.Unlock()
		tape.prepare(n, attachment, d, a)
		if ch.over = n < 8; !ch.over { // not the handshakes
			ch.prepare(n, attachment, d, a)
		}
	}
	ids := []*Identity{w.allow(newIdentity(t)), w.allow(newIdentity(t))}
	var sessions []*Session
	for i := range uint64(4) {
		s := w.connect(ids[i%2], 1+i)
		if _, err := s.Welcome(context.Background()); err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, s)
	}
	su := x.suite(suites()[seed%3])
	for _, s := range sessions {
		s.session.suite = su
	}
	for _, v := range w.served() {
		v.session.suite = su
	}
	var wg sync.WaitGroup
	talk := func(c *Conn, n int) {
		wg.Go(func() {
			p := content(seed, n)
			for range 3 {
				k := 1 + ch.intN(len(p))
				if _, err := c.Write(p[:k]); err != nil {
					break
				}
				time.Sleep(time.Duration(ch.intN(300)) * time.Millisecond)
			}
			c.CloseWrite()
			io.Copy(io.Discard, c)
			c.Close()
		})
	}
	accepting := make(chan struct{}) // closed when Accept has ended
	go func() {
		defer close(accepting)
		for {
			c, err := w.server.Accept()
			if err != nil {
				return
			}
			talk(c, 30_000)
		}
	}()
	for _, s := range sessions {
		for range 4 {
			c, err := s.OpenStream(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			talk(c, 30_000)
		}
	}
	for at := uint64(10); at < 30; at++ {
		time.Sleep(time.Duration(ch.intN(500)) * time.Millisecond)
		s := sessions[ch.intN(len(sessions))]
		switch ch.intN(3) {
		case 0: // beside the old link
			w.join(s, at)
		case 1: // in its place
			if l := newest(s); l != nil {
				l.Close()
			}
			w.join(s, at)
		default: // cut a carrier
			if hops := w.hopsOf(uint64(1 + ch.intN(int(at)))); len(hops) > 1 {
				hops[1+ch.intN(len(hops)-1)].Reset(wire.CodeCancelled)
			}
		}
	}
	for _, s := range sessions {
		s.Close(wire.CodeNone, "done")
	}
	w.server.Close()
	<-accepting
	wg.Wait()
	return tape.tapes()
}

// TestNonceControls: what TestNonceUniqueness looks for is found where it is.
func TestNonceControls(t *testing.T) {
	x := &sealings{plain: make(map[string][sha256.Size]byte)}
	h, err := newHalf(x.suite(suiteOf(tls.TLS_AES_128_GCM_SHA256)), count(1, secretLen))
	if err != nil {
		t.Fatal(err)
	}
	seal := func(content string) []byte {
		b, err := h.seal(make([]byte, 0, 100), recordData, []byte(content), 0)
		if err != nil {
			t.Fatal(err)
		}
		h.seq = 0 // the weakness
		return b
	}
	first := seal("one")
	seal("one")
	if x.err != nil {
		t.Errorf("the same record sealed again is reported as %v", x.err)
	}
	other := seal("two")
	if x.err == nil {
		t.Error("a nonce that seals two plaintexts is not reported")
	}
	hop := func(kind byte, records ...[]byte) taped {
		preface := make([]byte, openPrefaceLen)
		if kind == kindResumed {
			preface = make([]byte, openPrefaceLen+resumptionLen)
		}
		preface[0] = kind
		return taped{up: append(preface, slices.Concat(records...)...)}
	}
	if n, again, err := copies([]taped{hop(kindSealed, first), hop(kindResumed, first)}); n != 2 || again != 1 || err != nil {
		t.Errorf("%d records, %d again, %v", n, again, err)
	}
	if _, _, err := copies([]taped{hop(kindSealed, first), hop(kindResumed, other)}); err == nil || errors.Is(err, errRecord) {
		t.Errorf("a record in two forms is reported as %v", err)
	}
}
