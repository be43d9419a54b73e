package e2e

import (
	"bytes"
	"crypto/cipher"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
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
	r := &recorder{used: make(map[string]int)}
	s := fakeSession(r.suite(suites()[0]))
	for id := range uint64(20) {
		a, b := newPipe(1 << 20)
		// The same number twice, as after a clone of the machine: the salts differ.
		device, err := openConn(s, a, id/2)
		if err != nil {
			t.Fatal(err)
		}
		device.w.half.seq = rekeyEvery - 3
		for range 6 {
			if _, err := device.Write(make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
		}
		agent, err := acceptFrom(s, b)
		if err != nil {
			t.Fatal(err)
		}
		agent.Write([]byte("one"))
		agent.SetWriteDeadline(aLongTimeAgo)
		if _, err := agent.Write([]byte("lost")); !isTimeout(err) {
			t.Fatal(err)
		}
		agent.SetWriteDeadline(noDeadline)
		if _, err := agent.Write([]byte("other content at that place")); err == nil {
			t.Fatal("a write half works on after an error")
		}
		device.Close()
		agent.Close()
	}
	if want := 20 * (6 + 2); len(r.used) < want {
		t.Errorf("%d seals seen, want at least %d", len(r.used), want)
	}
	for k, n := range r.used {
		if n > 1 {
			t.Errorf("key and nonce %s used %d times", k, n)
		}
	}
}

func TestRekey(t *testing.T) {
	for _, su := range suites() {
		device, agent := connPair(t, su, 1<<20)
		for _, h := range []*half{device.w.half, agent.r.half} {
			h.seq = 2*rekeyEvery - 2
		}
		first := bytes.Clone(device.w.half.secret)
		var want []byte
		for i := range 5 {
			p := fmt.Appendf(nil, "record %d ", i)
			want = append(want, p...)
			if _, err := device.Write(p); err != nil {
				t.Fatal(err)
			}
		}
		device.CloseWrite()
		// The announcing record was sealed with number 0.
		io.CopyN(io.Discard, agent.st, recordHeaderLen+padTo+tagLen)
		if got, err := io.ReadAll(agent); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("read %q, %v", got, err)
		}
		next, _ := expand(first, "next", nil, secretLen)
		if !bytes.Equal(device.w.half.secret, next) || !bytes.Equal(agent.r.half.secret, next) {
			t.Error("the secret has not moved on by one")
		}
		device.Close()
		agent.Close()
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
	for _, su := range suites() {
		for _, size := range []int{100, 16 << 10, 32 << 10} {
			device, agent := connPair(t, su, 256<<10)
			p, q := make([]byte, size), make([]byte, size+maxPadding+1)
			n := testing.AllocsPerRun(100, func() {
				if _, err := device.Write(p); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(agent, q[:size]); err != nil {
					t.Fatal(err)
				}
			})
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
			r, _ := newHalf(su, make([]byte, secretLen))
			p, buf, q := make([]byte, maxContent), make([]byte, 0, bufferLen), make([]byte, maxContent+1)
			b.SetBytes(maxContent)
			for b.Loop() {
				rec, err := w.seal(buf, recordData, p, 0)
				if err != nil {
					b.Fatal(err)
				}
				if _, _, err := r.open(q, rec); err != nil {
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
	s := fakeSession(suites()[0])
	peer := copyOf(s)
	b.ReportAllocs()
	for b.Loop() {
		x, y := newPipe(1 << 10)
		c, err := openConn(s, x, 1)
		if err != nil {
			b.Fatal(err)
		}
		c.Write(nil)
		if _, err := acceptFrom(peer, y); err != nil {
			b.Fatal(err)
		}
	}
}
