package cinema

import (
	"bytes"
	"slices"
	"sync"
	"testing"
)

// count returns n bytes that count up from first.
func count(first, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(first + i)
	}
	return b
}

func TestWireKeepsTheLastBytes(t *testing.T) {
	for name, chunks := range map[string][]int{
		"nothing":             {},
		"empty chunk":         {0},
		"one byte":            {1},
		"less than a sample":  {sampleSize - 1},
		"a sample":            {sampleSize},
		"more than a sample":  {3*sampleSize + 7},
		"small ones":          {3, 5, 7},
		"small, over a bound": {100, 100, 100},
		"large, then small":   {10 * sampleSize, 9},
		"small, then large":   {9, 10 * sampleSize},
	} {
		t.Run(name, func(t *testing.T) {
			w := NewWire()
			var all []byte
			for _, n := range chunks {
				p := count(len(all), n)
				w.Seen(ToAgent, p)
				all = append(all, p...)
				clear(p) // Seen must not keep it
			}
			s := w.Snapshot()
			if s.ToAgent.Bytes != uint64(len(all)) {
				t.Errorf("counted %d bytes of %d", s.ToAgent.Bytes, len(all))
			}
			if want := all[max(0, len(all)-sampleSize):]; !bytes.Equal(s.ToAgent.Last, want) {
				t.Errorf("sample is %x, want %x", s.ToAgent.Last, want)
			}
			if s.ToDevice.Bytes != 0 || len(s.ToDevice.Last) != 0 {
				t.Errorf("the other direction has %+v", s.ToDevice)
			}
		})
	}
}

func TestWireSnapshotIsTheCallers(t *testing.T) {
	w := NewWire()
	w.Seen(ToDevice, count(0, sampleSize))
	s := w.Snapshot()
	kept := slices.Clone(s.ToDevice.Last)
	w.Seen(ToDevice, count(99, sampleSize))
	if !bytes.Equal(s.ToDevice.Last, kept) {
		t.Error("a later chunk changed an earlier snapshot")
	}
}

// Seen returns and counts while somebody holds the sample: a call that waited
// would end this test by its timeout.
func TestWireNeverWaits(t *testing.T) {
	w := NewWire()
	f := &w.flows[ToDevice]
	f.mu.Lock()
	w.Seen(ToDevice, count(0, 10))
	f.mu.Unlock()
	if s := w.Snapshot(); s.ToDevice.Bytes != 10 || len(s.ToDevice.Last) != 0 {
		t.Errorf("got %d bytes and a sample of %d, want 10 and 0", s.ToDevice.Bytes, len(s.ToDevice.Last))
	}
	w.Seen(ToDevice, []byte{7})
	if s := w.Snapshot(); !bytes.Equal(s.ToDevice.Last, []byte{7}) {
		t.Errorf("sample is %x, want only what was seen while it was free", s.ToDevice.Last)
	}
}

func TestWireCountsExactlyUnderConcurrency(t *testing.T) {
	const goroutines, chunks = 8, 500
	w := NewWire()
	var done sync.WaitGroup
	for i := range goroutines {
		done.Go(func() {
			w.StreamOpened()
			for n := range chunks {
				w.Seen(Direction(n%2), count(i, n))
				if n%50 == 0 {
					w.Snapshot()
				}
			}
			if i%2 == 0 {
				w.StreamClosed()
			}
		})
	}
	done.Wait()
	s := w.Snapshot()
	if s.Streams != goroutines/2 {
		t.Errorf("%d streams are open, want %d", s.Streams, goroutines/2)
	}
	if got, want := s.ToDevice.Bytes+s.ToAgent.Bytes, uint64(goroutines*chunks*(chunks-1)/2); got != want {
		t.Errorf("counted %d bytes, want %d", got, want)
	}
}

func TestSeenAllocatesNothing(t *testing.T) {
	w, p := NewWire(), make([]byte, 16<<10)
	if n := testing.AllocsPerRun(1000, func() { w.Seen(ToDevice, p); w.Seen(ToAgent, p[:40]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSeen(b *testing.B) {
	w, p := NewWire(), make([]byte, 16<<10)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		w.Seen(ToDevice, p)
	}
}
