package e2e

import (
	"bytes"
	"crypto/cipher"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// recorder notes every nonce that a key seals with.
type recorder struct {
	mu   sync.Mutex
	used map[string]int
	keys int
}

type recordingAEAD struct {
	cipher.AEAD
	r   *recorder
	key []byte
}

func (a *recordingAEAD) Seal(dst, nonce, plain, aad []byte) []byte {
	a.r.mu.Lock()
	a.r.used[fmt.Sprintf("%x %x", a.key, nonce)]++
	a.r.mu.Unlock()
	return a.AEAD.Seal(dst, nonce, plain, aad)
}

// suite returns a suite like su that tells r.
func (r *recorder) suite(su *suite) *suite {
	return &suite{su.id, su.keyLen, func(key []byte) (cipher.AEAD, error) {
		r.mu.Lock()
		r.keys++
		r.mu.Unlock()
		a, err := su.aead(key)
		return &recordingAEAD{a, r, bytes.Clone(key)}, err
	}}
}

func TestNoNonceIsUsedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{used: make(map[string]int)}
		s := fakeSession(t, r.suite(suites()[0]))
		for id := range uint64(20) {
			// The same number twice, as after a clone of the machine: the salts differ.
			here, there := copyOf(t, s), copyOf(t, s)
			device, agent := connsOf(t, here, there, id/2, 1<<20)
			agent.Write([]byte("one"))
			agent.SetWriteDeadline(aLongTimeAgo)
			if _, err := agent.Write([]byte("late")); !isTimeout(err) {
				t.Fatal(err)
			}
			agent.SetWriteDeadline(noDeadline)
			if _, err := agent.Write([]byte("other content at that place")); err != nil {
				t.Fatal(err)
			}
			device.out.half.seq = rekeyEvery - 3
			for range 6 {
				if _, err := device.Write(make([]byte, 100)); err != nil {
					t.Fatal(err)
				}
			}
			// Records that go over several carriers are not sealed again.
			for n := range uint32(3) {
				device.mu.Lock()
				for _, k := range device.carriers {
					device.abandon(k)
				}
				x, _ := newPipe(1 << 20)
				if err := device.attach(&carrier{st: x, number: n + 1, prompt: true}); err != nil {
					t.Fatal(err)
				}
				device.mu.Unlock()
			}
			synctest.Wait()
			device.Close()
			agent.Close()
		}
		if want := 20 * (7 + 2); len(r.used) < want {
			t.Errorf("%d seals seen, want at least %d", len(r.used), want)
		}
		for k, n := range r.used {
			if n > 1 {
				t.Errorf("key and nonce %s used %d times", k, n)
			}
		}
	})
}

func TestRekey(t *testing.T) {
	for _, su := range suites() {
		secret := count(7, secretLen)
		w, err := newHalf(su, secret)
		if err != nil {
			t.Fatal(err)
		}
		r, err := newOpening(su, secret)
		if err != nil {
			t.Fatal(err)
		}
		seal := func(seq uint64) []byte {
			w.seq = seq
			rec, err := w.seal(make([]byte, 0, 100), recordData, fmt.Append(nil, seq), 0)
			if err != nil {
				t.Fatal(err)
			}
			return rec
		}
		var nonce [nonceLen]byte
		open := func(seq uint64, rec []byte, good bool) {
			t.Helper()
			_, got, err := r.open(&nonce, make([]byte, 100), rec)
			if good != (err == nil) || good && string(got) != fmt.Sprint(seq) {
				t.Errorf("record %d: %q, %v", seq, got, err)
			}
		}
		var recs [][]byte
		seqs := []uint64{5, rekeyEvery - 1, rekeyEvery, rekeyEvery + 1, 2*rekeyEvery - 1, 2 * rekeyEvery, 2*rekeyEvery + 1}
		for _, seq := range seqs {
			recs = append(recs, seal(seq))
		}
		// Two changes of keys ahead: refused. One ahead, and back: opened. A
		// forged record of the next epoch does not move the keys.
		forged := bytes.Clone(recs[2])
		forged[len(forged)-1] ^= 1
		open(seqs[5], recs[5], false)
		open(seqs[2], forged, false)
		for _, i := range []int{0, 2, 1, 3, 6, 4, 5} {
			open(seqs[i], recs[i], true)
		}
		open(seqs[1], recs[1], false)
		next, _ := expand(secret, "next", nil, secretLen)
		next, _ = expand(next, "next", nil, secretLen)
		if !bytes.Equal(w.secret, next) || !bytes.Equal(r.secret, next) {
			t.Error("the secret has not moved on by two")
		}
	}
}

func TestLastRecord(t *testing.T) {
	h, err := newHalf(suites()[0], make([]byte, secretLen))
	if err != nil {
		t.Fatal(err)
	}
	h.seq = maxRecords - 1
	b := make([]byte, 0, 100)
	if b, err = h.seal(b, recordData, nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, err = h.seal(b, recordData, nil, 0); err != errExhausted {
		t.Fatalf("one record too many: %v", err)
	}
}

func TestFirstRecordHidesItsLength(t *testing.T) {
	for n := range 5000 {
		inner := n + 1 + firstPadding(n)
		if n < padBelow && inner%padTo != 0 || n >= padBelow && inner != n+1 || firstPadding(n) > maxPadding {
			t.Fatalf("%d bytes become %d", n, inner)
		}
	}
}

// TestAnySizes writes and reads in random sizes over hops of random room.
func TestAnySizes(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		device, agent := connPair(t, suites()[seed%3], 1+rng.IntN(100_000))
		want := make([]byte, rng.IntN(500_000))
		for i := range want {
			want[i] = byte(rng.Uint32())
		}
		sizes := func(seed uint64) func() int {
			rng := rand.New(rand.NewPCG(seed, 2))
			most := 1 + rng.IntN(70_000)
			return func() int { return 1 + rng.IntN(most) }
		}
		send := func(c *Conn, size func() int) error {
			for p := want; len(p) > 0; {
				n, err := c.Write(p[:min(len(p), size())])
				if err != nil {
					return err
				}
				p = p[n:]
			}
			return c.CloseWrite()
		}
		receive := func(c *Conn, size func() int) error {
			var got []byte
			for {
				p := make([]byte, size())
				n, err := c.Read(p)
				got = append(got, p[:n]...)
				if err == io.EOF && bytes.Equal(got, want) {
					return nil
				}
				if err != nil {
					return fmt.Errorf("after %d of %d bytes: %w", len(got), len(want), err)
				}
			}
		}
		errs := make(chan error, 4)
		for i, c := range []*Conn{device, agent} {
			go func() { errs <- send(c, sizes(seed*4+uint64(i))) }()
			go func() { errs <- receive(c, sizes(seed*4+2+uint64(i))) }()
		}
		for range 4 {
			if err := <-errs; err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
		}
		device.Close()
		agent.Close()
	}
}

func TestNoAllocationPerRecord(t *testing.T) {
	if scheduleStride > 1 {
		t.Skip("the race detector makes pools forget at random")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // a change of it empties pools
	for _, su := range suites() {
		for _, size := range []int{100, 16 << 10, 32 << 10} {
			device, agent := connPair(t, su, 256<<10)
			p, q := make([]byte, size), make([]byte, size+maxPadding+1)
			once := func() {
				if _, err := device.Write(p); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(agent, q[:size]); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 * streamLog / max(size, sizes[0]) { // until the log's memory goes round
				once()
			}
			// A busy machine can hold acknowledgments up, and the log then takes
			// more memory: the least of some runs counts.
			n := testing.AllocsPerRun(1000, once)
			for range 4 {
				n = min(n, testing.AllocsPerRun(1000, once))
			}
			if n != 0 {
				t.Errorf("%s, %d bytes: %v allocations for a Write and its Reads", tls.CipherSuiteName(su.id), size, n)
			}
			device.Close()
			agent.Close()
		}
	}
}

// BenchmarkSealOpen is the cost of the record layer alone: one record of 16 KiB
// sealed and opened.
func BenchmarkSealOpen(b *testing.B) {
	for _, su := range suites() {
		b.Run(tls.CipherSuiteName(su.id), func(b *testing.B) {
			w, _ := newHalf(su, make([]byte, secretLen))
			r, _ := newOpening(su, make([]byte, secretLen))
			var nonce [nonceLen]byte
			p, buf, q := make([]byte, maxContent), make([]byte, 0, bufferLen), make([]byte, maxContent+1)
			b.SetBytes(maxContent)
			for b.Loop() {
				rec, err := w.seal(buf, recordData, p, 0)
				if err != nil {
					b.Fatal(err)
				}
				if _, _, err := r.open(&nonce, q, rec); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkConn is a Write and its Reads through an in-memory hop.
func BenchmarkConn(b *testing.B) {
	for _, size := range []int{1 << 10, 4 << 10, 16 << 10, 32 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			device, agent := connPair(b, suites()[0], 256<<10)
			p, q := make([]byte, size), make([]byte, 64<<10)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := device.Write(p); err != nil {
					b.Fatal(err)
				}
				for n := 0; n < size; {
					k, err := agent.Read(q)
					if err != nil {
						b.Fatal(err)
					}
					n += k
				}
			}
		})
	}
}

// BenchmarkOpenStream is what a stream costs beside its records: both ends' keys.
func BenchmarkOpenStream(b *testing.B) {
	s := fakeSession(b, suites()[0])
	peer := copyOf(b, s)
	b.ReportAllocs()
	for id := uint64(0); b.Loop(); id++ {
		device, agent := connsOf(b, s, peer, id, 1<<10)
		device.Reset(wire.CodeCancelled)
		agent.Reset(wire.CodeCancelled)
	}
}
