package jitter

import (
	"io"
	"testing"
)

// chunk is what a pump reads and writes at a time.
const chunk = 16 << 10

func join(t testing.TB, cfg BudgetConfig) (*Budget, *Buffer, *Buffer) {
	t.Helper()
	b, err := NewBudget(cfg)
	if err != nil {
		t.Fatal(err)
	}
	up, down, ok := b.Join()
	if !ok {
		t.Fatal("the first stream was refused")
	}
	return b, up, down
}

func put(t testing.TB, b *Buffer, src []byte) {
	p, err := b.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	b.Commit(copy(p, src))
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops blocks at random under the race detector")
	}
	_, b, _ := join(t, BudgetConfig{Total: 64 << 20})
	defer b.Leave()
	src := make([]byte, chunk)
	if n := testing.AllocsPerRun(1000, func() {
		put(t, b, src)
		p, err := b.Next()
		if err != nil {
			t.Fatal(err)
		}
		b.Release(len(p))
	}); n != 0 {
		t.Errorf("%v allocations per chunk", n)
	}
}

// BenchmarkCopy is the bare copy of a chunk into one buffer and out of it.
func BenchmarkCopy(b *testing.B) {
	src, mid, dst := make([]byte, chunk), make([]byte, chunk), make([]byte, chunk)
	b.SetBytes(chunk)
	for b.Loop() {
		copy(mid, src)
		copy(dst, mid)
	}
}

// BenchmarkOneGoroutine is the same through a Buffer; the difference is what
// Reserve, Commit, Next and Release cost.
func BenchmarkOneGoroutine(b *testing.B) {
	_, buf, _ := join(b, BudgetConfig{Total: 64 << 20})
	defer buf.Leave()
	src, dst := make([]byte, chunk), make([]byte, chunk)
	b.SetBytes(chunk)
	for b.Loop() {
		put(b, buf, src)
		p, _ := buf.Next()
		buf.Release(copy(dst, p))
	}
}

// BenchmarkCalls is Reserve, Commit, Next and Release of a chunk without the
// copies.
func BenchmarkCalls(b *testing.B) {
	_, buf, _ := join(b, BudgetConfig{Total: 64 << 20})
	defer buf.Leave()
	for b.Loop() {
		buf.Reserve()
		buf.Commit(chunk)
		p, _ := buf.Next()
		buf.Release(len(p))
	}
}

// BenchmarkTwoGoroutines has a producer and a consumer, as the relay does. The
// consumer does nothing but copy, so it waits for the producer all the time:
// the worst case for wake-ups.
func BenchmarkTwoGoroutines(b *testing.B) {
	for _, bm := range []struct {
		name string
		max  int
	}{{"1MiB", 1 << 20}, {"64KiB", 64 << 10}} {
		b.Run(bm.name, func(b *testing.B) {
			_, buf, _ := join(b, BudgetConfig{Total: 64 << 20, Max: bm.max})
			defer buf.Leave()
			src := make([]byte, chunk)
			done := make(chan int64)
			go func() {
				dst := make([]byte, blockSize)
				var sum int64
				for {
					p, err := buf.Next()
					if err == io.EOF {
						done <- sum
						return
					}
					n := copy(dst, p)
					buf.Release(n)
					sum += int64(n)
				}
			}()
			b.SetBytes(chunk)
			b.ReportAllocs()
			for b.Loop() {
				for left := chunk; left > 0; {
					p, _ := buf.Reserve()
					n := copy(p, src[:min(left, len(p))])
					buf.Commit(n)
					left -= n
				}
			}
			buf.CloseWrite()
			<-done
		})
	}
}
