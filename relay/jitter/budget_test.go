package jitter

import (
	"strings"
	"testing"
	"testing/synctest"
)

// checkEmpty fails if a budget that every stream has left does not have all
// its memory back.
func checkEmpty(t testing.TB, b *Budget) {
	t.Helper()
	s := b.Stats()
	if s.Reserved != 0 || s.Used != 0 || s.Streams != 0 || b.free.Load() != s.Total {
		t.Errorf("after the last Leave: %+v, free %d", s, b.free.Load())
	}
}

func TestBudgetConfig(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  BudgetConfig
		err  string // part of it; empty: none
		max  int
		flr  int
	}{
		{name: "defaults", cfg: BudgetConfig{Total: 1 << 20}, max: 1 << 20, flr: 64 << 10},
		{name: "rounded", cfg: BudgetConfig{Total: 1 << 20, Max: 3*blockSize + 1, Floor: blockSize + 1}, max: 3 * blockSize, flr: 2 * blockSize},
		{name: "floor rounded up to max at most", cfg: BudgetConfig{Total: 1 << 20, Max: blockSize + 9, Floor: blockSize + 9}, max: blockSize, flr: blockSize},
		{name: "max below the default floor", cfg: BudgetConfig{Total: 1 << 20, Max: blockSize}, max: blockSize, flr: blockSize},
		{name: "exactly one stream", cfg: BudgetConfig{Total: 2*(64<<10) + 100, Overhead: 99}, max: 1 << 20, flr: 64 << 10},
		{name: "one byte less", cfg: BudgetConfig{Total: 2*(64<<10) + 99, Overhead: 99}, err: "cannot hold one stream"},
		{name: "no total", cfg: BudgetConfig{}, err: "cannot hold one stream"},
		{name: "negative total", cfg: BudgetConfig{Total: -1}, err: "cannot hold one stream"},
		{name: "floor above max", cfg: BudgetConfig{Total: 1 << 30, Max: 64 << 10, Floor: 128 << 10}, err: "above the maximum"},
		{name: "negative max", cfg: BudgetConfig{Total: 1 << 30, Max: -1}, err: "per direction"},
		{name: "max below a block", cfg: BudgetConfig{Total: 1 << 30, Max: 100}, err: "per direction"},
		{name: "huge max", cfg: BudgetConfig{Total: 1 << 62, Max: 1 << 40}, err: "per direction"},
		{name: "negative floor", cfg: BudgetConfig{Total: 1 << 30, Floor: -1}, err: "negative"},
		{name: "negative overhead", cfg: BudgetConfig{Total: 1 << 30, Overhead: -1}, err: "negative"},
		{name: "overhead beyond any total", cfg: BudgetConfig{Total: 1 << 30, Overhead: 1<<63 - 1}, err: "cannot hold one stream"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := NewBudget(tt.cfg)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one about %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if b.max != tt.max || b.floor != tt.flr {
				t.Errorf("max %d, floor %d; want %d, %d", b.max, b.floor, tt.max, tt.flr)
			}
			if _, _, ok := b.Join(); !ok {
				t.Error("the first stream was refused")
			}
		})
	}
}

func TestJoinIsRefusedWhenMemoryIsPromisedOut(t *testing.T) {
	const overhead, n = 300_001, 10
	budget, err := NewBudget(BudgetConfig{Total: n*(2*(64<<10)+overhead+1) + 100, Overhead: overhead})
	if err != nil {
		t.Fatal(err)
	}
	var all []*Buffer
	for i := range n {
		up, down, ok := budget.Join()
		if !ok {
			t.Fatalf("stream %d of %d was refused", i+1, n)
		}
		all = append(all, up, down)
	}
	if _, _, ok := budget.Join(); ok {
		t.Fatal("a stream was promised memory that is not there")
	}
	s := budget.Stats()
	if s.Streams != n || s.Refused != 1 || s.Reserved != n*(2*(64<<10)+overhead+1) {
		t.Errorf("%+v", s)
	}
	// One direction of each of two streams does not make a stream less, but it
	// makes room for one.
	all[0].Leave()
	all[0].Leave()
	if _, _, ok := budget.Join(); ok {
		t.Error("leaving twice gave memory back twice")
	}
	all[2].Leave()
	if s := budget.Stats(); s.Streams != n {
		t.Errorf("%d streams, want %d", s.Streams, n)
	}
	up, down, ok := budget.Join()
	if !ok {
		t.Error("refused although two directions left")
	}
	for _, b := range append(all, up, down) {
		b.Leave()
	}
	checkEmpty(t, budget)
}

func TestFrozenConsumers(t *testing.T) {
	const max, floor = 16 * blockSize, 2 * blockSize
	for _, tt := range []struct {
		name   string
		total  int64
		frozen int // directions
		check  func(t *testing.T, sizes []int, s Stats)
	}{
		{"plenty", 400 * blockSize, 4, func(t *testing.T, sizes []int, s Stats) {
			for i, n := range sizes {
				if n != max {
					t.Errorf("direction %d holds %d bytes, want the maximum %d", i, n, max)
				}
			}
			if s.Share != max {
				t.Errorf("share %d, want %d", s.Share, max)
			}
		}},
		{"tight", 200 * blockSize, 30, func(t *testing.T, sizes []int, s Stats) {
			for i, n := range sizes {
				if n < floor {
					t.Errorf("direction %d holds %d bytes, below its floor", i, n)
				}
			}
			if first, last := sizes[0], sizes[len(sizes)-1]; first <= last {
				t.Errorf("the first holds %d, the last %d: the share did not shrink", first, last)
			}
			if s.Share != floor {
				t.Errorf("share %d, want %d", s.Share, floor)
			}
			if free := s.Total - s.Reserved - (s.Used - 30*floor); free < 200/16*blockSize {
				t.Errorf("%d bytes are left to newcomers, want a sixteenth of %d", free, s.Total)
			}
		}},
		{"floors only", 30 * 2 * blockSize, 30, func(t *testing.T, sizes []int, s Stats) {
			for i, n := range sizes {
				if n != floor {
					t.Errorf("direction %d holds %d bytes, want the floor %d", i, n, floor)
				}
			}
			if s.Share != floor {
				t.Errorf("share %d, want %d", s.Share, floor)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				budget, err := NewBudget(BudgetConfig{Total: tt.total, Max: max, Floor: floor})
				if err != nil {
					t.Fatal(err)
				}
				var all []*Buffer
				for range tt.frozen / 2 {
					up, down, ok := budget.Join()
					if !ok {
						t.Fatal("refused")
					}
					all = append(all, up, down)
				}
				t.Cleanup(func() {
					for _, b := range all {
						b.Leave()
					}
					checkEmpty(t, budget)
				})
				var sizes []int
				used := int64(0)
				for _, b := range all {
					n := fill(t, b)
					sizes = append(sizes, n)
					used += int64(n)
				}
				s := budget.Stats()
				if s.Used != used || s.Used > tt.total {
					t.Errorf("%d bytes used, the buffers took %d, total is %d", s.Used, used, tt.total)
				}
				tt.check(t, sizes, s)
			})
		})
	}
}

// Somebody who drains gets room again, up to what is free by then, and the
// frozen ones do not keep a running stream from running.
func TestRoomComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const max = 16 * blockSize
		budget, a, b := join(t, BudgetConfig{Total: 24 * blockSize, Max: max, Floor: 2 * blockSize})
		c, d, ok := budget.Join()
		if !ok {
			t.Fatal("refused")
		}
		t.Cleanup(func() {
			for _, buf := range []*Buffer{a, b, c, d} {
				buf.Leave()
			}
			checkEmpty(t, budget)
		})
		// 16 blocks are above the floors, 4 are left to newcomers: of 12 a takes half, b half of the rest.
		if n := fill(t, a); n != (2+6)*blockSize {
			t.Fatalf("a holds %d blocks, want 8", n/blockSize)
		}
		if n := fill(t, b); n != (2+3)*blockSize {
			t.Fatalf("b holds %d blocks, want 5", n/blockSize)
		}
		// a drains without another producer's help: its own is asked again for
		// each block, and gets less than before because b holds some now.
		drain(t, a, 6*blockSize)
		synctest.Wait()
		if a.count >= 8 || a.count <= 5 {
			t.Errorf("a holds %d blocks after draining, want fewer than before and more than b", a.count)
		}
		// A stream that is drained runs through, however little is left.
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 100 {
				put(t, c, make([]byte, blockSize))
			}
		}()
		drain(t, c, 100*blockSize)
		<-done
		// When b is gone its memory is everybody's.
		b.Leave()
		drain(t, a, 10*blockSize)
		synctest.Wait()
		if a.count <= 8 {
			t.Errorf("a holds %d blocks after b left, want more than ever", a.count)
		}
	})
}

// Full buffers of streams that move do not keep new streams out: they shrink
// to their floors first, and only then is a stream refused.
func TestBusyStreamsMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams = 25
		budget, err := NewBudget(BudgetConfig{Total: streams * 5 * blockSize, Floor: 2 * blockSize, Overhead: blockSize})
		if err != nil {
			t.Fatal(err)
		}
		var all []*Buffer
		t.Cleanup(func() {
			for _, b := range all {
				b.Leave()
			}
			checkEmpty(t, budget)
		})
		for refusals := 0; len(all) < 2*streams; {
			up, down, ok := budget.Join()
			if ok {
				all = append(all, up, down)
				fill(t, up)
				fill(t, down)
				continue
			}
			if refusals++; refusals > 1000 {
				t.Fatalf("refused at %d of %d streams: %+v", len(all)/2, streams, budget.Stats())
			}
			for _, b := range all {
				drain(t, b, blockSize)
			}
			synctest.Wait()
		}
		if _, _, ok := budget.Join(); ok {
			t.Error("a stream more than the floors allow")
		}
		for _, b := range all {
			drain(t, b, 40*blockSize)
			synctest.Wait()
			if b.count != 2 {
				t.Errorf("%d blocks, want the floor", b.count)
			}
		}
	})
}
