package jitter

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errCut = errors.New("cut")

// fill commits until it would block for good, and returns how many bytes the
// buffer took. It must run in a bubble.
func fill(t *testing.T, b *Buffer) int {
	t.Helper()
	total, done := 0, make(chan error)
	go func() {
		for {
			p, err := b.Reserve()
			if err != nil {
				done <- err
				return
			}
			b.Commit(len(p))
			total += len(p)
		}
	}()
	synctest.Wait() // the producer waits for room
	b.mu.Lock()
	n := total
	b.mu.Unlock()
	t.Cleanup(func() { b.Abort(errCut); <-done })
	return n
}

// drain consumes n bytes.
func drain(t testing.TB, b *Buffer, n int) {
	t.Helper()
	for n > 0 {
		p, err := b.Next()
		if err != nil {
			t.Fatal(err)
		}
		p = p[:min(n, len(p))]
		b.Release(len(p))
		n -= len(p)
	}
}

func TestEndComesAfterTheLastByte(t *testing.T) {
	_, b, _ := join(t, BudgetConfig{Total: 1 << 20})
	defer b.Leave()
	put(t, b, []byte("film"))
	b.CloseWrite()
	b.CloseWrite()
	if _, err := b.Reserve(); err != io.ErrClosedPipe {
		t.Errorf("Reserve after CloseWrite: %v", err)
	}
	p, err := b.Next()
	if string(p) != "film" || err != nil {
		t.Fatalf("Next = %q, %v", p, err)
	}
	b.Release(1)
	if p, err = b.Next(); string(p) != "ilm" || err != nil {
		t.Fatalf("Next after a partial Release = %q, %v", p, err)
	}
	b.Release(3)
	for range 2 {
		if p, err = b.Next(); p != nil || err != io.EOF {
			t.Fatalf("Next at the end = %q, %v", p, err)
		}
	}
}

func TestSmallCommitsShareABlock(t *testing.T) {
	budget, b, _ := join(t, BudgetConfig{Total: 1 << 20})
	defer b.Leave()
	for i := range blockSize {
		put(t, b, []byte{byte(i)})
	}
	if used := budget.Stats().Used; used != blockSize {
		t.Errorf("%d commits of 1 byte use %d bytes, want one block", blockSize, used)
	}
	p, err := b.Next()
	if len(p) != blockSize || err != nil {
		t.Errorf("Next = %d bytes, %v; want the whole block", len(p), err)
	}
	b.Release(len(p))
}

func TestIdleBufferHoldsNoBlock(t *testing.T) {
	budget, b, _ := join(t, BudgetConfig{Total: 1 << 20})
	defer b.Leave()
	steps := []struct {
		name string
		do   func()
		used int64
	}{
		{"joined", func() {}, 0},
		{"reserved", func() { b.Reserve() }, blockSize},
		{"nothing read", func() { b.Commit(0) }, 0},
		{"reserved again", func() { b.Reserve() }, blockSize},
		{"read", func() { b.Commit(10) }, blockSize},
		{"reserved behind it", func() { b.Reserve() }, blockSize},
		{"consumed under the producer's slice", func() { drain(t, b, 10) }, blockSize},
		{"slice given back", func() { b.Commit(0) }, 0},
		{"read once more", func() { put(t, b, []byte("x")) }, blockSize},
		{"consumed", func() { drain(t, b, 1) }, 0},
	}
	for _, s := range steps {
		s.do()
		if used := budget.Stats().Used; used != s.used {
			t.Errorf("%s: %d bytes used, want %d", s.name, used, s.used)
		}
	}
}

func TestAbortWakesBothSides(t *testing.T) {
	for name, end := range map[string]func(*Buffer) error{
		"abort": func(b *Buffer) error { b.Abort(errCut); b.Abort(io.EOF); return errCut },
		"leave": func(b *Buffer) error { b.Leave(); b.Abort(errCut); return errLeft },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, full, empty := join(t, BudgetConfig{Total: 1 << 20, Max: blockSize})
				defer full.Leave()
				defer empty.Leave()
				put(t, full, make([]byte, blockSize))
				errs := make(chan error, 2)
				go func() { _, err := full.Reserve(); errs <- err }()
				go func() { _, err := empty.Next(); errs <- err }()
				synctest.Wait()
				if len(errs) != 0 {
					t.Fatalf("did not block: %v", <-errs)
				}
				for _, b := range []*Buffer{full, empty} {
					want := end(b)
					if err := <-errs; err != want {
						t.Errorf("woken with %v, want %v", err, want)
					}
					if _, err := b.Next(); err != want {
						t.Errorf("Next afterwards: %v, want %v", err, want)
					}
					if _, err := b.Reserve(); err != want {
						t.Errorf("Reserve afterwards: %v, want %v", err, want)
					}
				}
			})
		})
	}
}

func TestCloseWriteWakesTheConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, b, _ := join(t, BudgetConfig{Total: 1 << 20})
		defer b.Leave()
		got := make(chan error, 1)
		go func() { _, err := b.Next(); got <- err }()
		synctest.Wait()
		b.CloseWrite()
		if err := <-got; err != io.EOF {
			t.Errorf("Next = %v, want io.EOF", err)
		}
	})
}

// A slice that is out when the buffer is left must not become another
// stream's memory.
func TestLeaveKeepsSlicesOfOthersOut(t *testing.T) {
	budget, b, other := join(t, BudgetConfig{Total: 1 << 20})
	put(t, b, make([]byte, 2*blockSize)) // copies one block
	put(t, b, make([]byte, 10))
	taken, err := b.Next()
	if err != nil {
		t.Fatal(err)
	}
	lent, err := b.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	b.Leave()
	for range 4 {
		p, err := other.Reserve()
		if err != nil {
			t.Fatal(err)
		}
		if &p[0] == &taken[0] || &p[len(p)-1] == &lent[len(lent)-1] {
			t.Fatal("memory that is still out was handed to another stream")
		}
		other.Commit(len(p))
		if len(other.ring) == other.count {
			break
		}
	}
	b.Commit(len(lent))
	b.Release(len(taken))
	b.Leave()
	other.Leave()
	checkEmpty(t, budget)
}

func TestLyingCallsPanic(t *testing.T) {
	for name, f := range map[string]func(*Buffer){
		"Commit without Reserve": func(b *Buffer) { b.Commit(1) },
		"Commit of too much":     func(b *Buffer) { p, _ := b.Reserve(); b.Commit(len(p) + 1) },
		"negative Commit":        func(b *Buffer) { b.Reserve(); b.Commit(-1) },
		"Release without Next":   func(b *Buffer) { b.Release(1) },
		"Release of too much":    func(b *Buffer) { p, _ := b.Next(); b.Release(len(p) + 1) },
		"negative Release":       func(b *Buffer) { b.Next(); b.Release(-1) },
	} {
		t.Run(name, func(t *testing.T) {
			_, b, _ := join(t, BudgetConfig{Total: 1 << 20})
			put(t, b, []byte("abc"))
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
				b.Leave()
			}()
			f(b)
		})
	}
}

// Every block size, boundary and wrap of the ring: what comes out is what went
// in, for all pairs of chunk sizes.
func TestBytesInOrder(t *testing.T) {
	src := make([]byte, 9*blockSize+77)
	for i := range src {
		src[i] = byte(i * 31 >> 3)
	}
	sizes := []int{1000, blockSize - 1, blockSize, 100}
	for _, in := range sizes {
		for _, out := range sizes {
			t.Run(fmt.Sprintf("%d/%d", in, out), func(t *testing.T) {
				budget, b, other := join(t, BudgetConfig{Total: 1 << 20, Max: 3 * blockSize})
				go func() {
					for rest := src; len(rest) > 0; {
						p, err := b.Reserve()
						if err != nil {
							t.Error(err)
							return
						}
						n := copy(p[:min(in, len(p))], rest)
						rest = rest[n:]
						b.Commit(n)
					}
					b.CloseWrite()
				}()
				var got []byte
				for {
					p, err := b.Next()
					if err == io.EOF {
						break
					}
					if err != nil {
						t.Fatal(err)
					}
					p = p[:min(out, len(p))]
					got = append(got, p...)
					b.Release(len(p))
				}
				if !bytes.Equal(got, src) {
					t.Errorf("%d bytes came out of %d, or others", len(got), len(src))
				}
				b.Leave()
				other.Leave()
				checkEmpty(t, budget)
			})
		}
	}
}
