package jitter

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
)

// Streams come and go, fast and slow, some are aborted, some never drained,
// all at once on little memory: no byte is lost, added or moved, the total
// holds at every moment, and everything comes back.
func TestManyStreamsOnLittleMemory(t *testing.T) {
	const streams, workers, total = 250, 12, 40 * blockSize
	budget, err := NewBudget(BudgetConfig{Total: total, Max: 8 * blockSize, Floor: blockSize, Overhead: 1000})
	if err != nil {
		t.Fatal(err)
	}
	next := make(chan uint64)
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for seed := range next {
				up, down, ok := budget.Join()
				for !ok { // others hold the memory; they end
					runtime.Gosched()
					up, down, ok = budget.Join()
				}
				var pair sync.WaitGroup
				pair.Go(func() { oneDirection(t, budget, up, seed) })
				oneDirection(t, budget, down, ^seed)
				pair.Wait()
			}
		})
	}
	for seed := range uint64(streams) {
		next <- seed
	}
	close(next)
	wait.Wait()
	checkEmpty(t, budget)
}

// pattern is the byte at offset i of a direction.
func pattern(seed uint64, i int) byte { return byte(uint64(i)*2654435761>>13 ^ seed) }

func oneDirection(t *testing.T, budget *Budget, b *Buffer, seed uint64) {
	in, out := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2))
	size := in.IntN(40 * blockSize)
	chunkIn, chunkOut := 1+in.IntN(blockSize), 1+in.IntN(blockSize)
	abortAt := -1
	switch in.IntN(4) {
	case 0:
		abortAt = in.IntN(size + 1)
	case 1:
		size = in.IntN(100)
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		for sent := 0; sent < size; {
			p, err := b.Reserve()
			if err != nil {
				if err != errCut {
					t.Errorf("Reserve: %v", err)
				}
				return
			}
			n := min(in.IntN(chunkIn), len(p), size-sent)
			for i := range n {
				p[i] = pattern(seed, sent+i)
			}
			b.Commit(n)
			sent += n
		}
		b.CloseWrite()
	})
	got := 0
	for {
		if abortAt >= 0 && got >= abortAt {
			b.Abort(errCut)
			break
		}
		p, err := b.Next()
		if err == io.EOF {
			if got != size {
				t.Errorf("%d bytes came out of %d", got, size)
			}
			break
		}
		if err != nil {
			t.Errorf("Next: %v", err)
			break
		}
		n := min(1+out.IntN(chunkOut), len(p))
		for i, c := range p[:n] {
			if c != pattern(seed, got+i) {
				t.Errorf("wrong byte at offset %d", got+i)
				b.Abort(errCut)
				break
			}
		}
		b.Release(n)
		got += n
		if s := budget.Stats(); s.Used > s.Total || budget.free.Load() < 0 {
			t.Errorf("over the total: %+v, free %d", s, budget.free.Load())
		}
	}
	wait.Wait()
	b.Leave()
}

// model is what a Buffer must hold: its bytes, and where they lie in blocks.
type model struct {
	buf        *Buffer
	data       []byte // committed and not consumed
	r, w       int    // offsets in the first and the last block
	blocks     int
	lent       []byte
	taken      []byte
	ended      bool
	err        error
	outOfReach bool // left
}

// FuzzOperations runs any sequence of calls on several streams against a model
// that computes on its own who holds which blocks and who would have to wait.
func FuzzOperations(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0, 0, 1, 255, 2, 255, 1, 255, 2, 255, 3, 0, 4, 255, 5, 0, 3, 0, 4, 255, 3, 0})
	f.Add([]byte{0, 0, 0, 0, 1, 0, 2, 200, 9, 0, 17, 0, 7, 0, 6, 0, 3, 0})
	f.Add([]byte{0, 0, 1, 0, 2, 255, 1, 0, 2, 0, 3, 0, 4, 255, 0, 0}) // a block after a full one, without a byte
	all := []byte{0, 0, 0, 0}
	for i := range 400 {
		all = append(all, byte(1+i%7+8*(i/9%4)), byte(i*37))
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, ops []byte) {
		const total = 15 * blockSize
		budget, err := NewBudget(BudgetConfig{Total: total, Max: 5 * blockSize, Floor: blockSize, Overhead: 10})
		if err != nil {
			t.Fatal(err)
		}
		var all []*model
		defer func() {
			for _, m := range all {
				m.buf.Leave()
			}
			checkEmpty(t, budget)
		}()
		for len(ops) >= 2 {
			op, arg := ops[0], int(ops[1])
			ops = ops[2:]
			free, held, living := int64(total), 0, 0
			for _, m := range all {
				if !m.outOfReach {
					free -= budget.reservation + int64(max(0, m.blocks-1))*blockSize
					held += m.blocks
					living++
				}
			}
			if got := budget.free.Load(); got != free {
				t.Fatalf("free is %d, want %d", got, free)
			}
			if s := budget.Stats(); s.Used != int64(held)*blockSize || s.Used > total || s.Reserved != int64(living)*budget.reservation {
				t.Fatalf("%+v with %d blocks in %d directions", s, held, living)
			}
			if op%8 == 0 && len(all) < 8 {
				up, down, ok := budget.Join()
				if want := free >= 2*budget.reservation; ok != want {
					t.Fatalf("Join = %v with %d free", ok, free)
				}
				if ok {
					all = append(all, &model{buf: up}, &model{buf: down})
				}
				continue
			}
			if len(all) > 0 {
				all[int(op/8)%len(all)].step(t, op%8, arg, free)
			}
		}
	})
}

func (m *model) step(t *testing.T, op byte, arg int, free int64) {
	switch op {
	case 1:
		m.reserve(t, free)
	case 2:
		n := len(m.lent) * arg / 255
		for i := range n {
			m.lent[i] = byte(i*7 + arg)
		}
		m.buf.Commit(n)
		if !m.outOfReach {
			m.data = append(m.data, m.lent[:n]...)
			m.w += n
		}
		m.lent = nil
		m.settle()
	case 3:
		m.next(t)
	case 4:
		n := len(m.taken) * arg / 255
		m.buf.Release(n)
		m.taken = nil
		if m.outOfReach {
			return
		}
		m.data = m.data[n:]
		if m.r += n; m.r == blockSize {
			m.r = 0
			m.blocks--
		}
		m.settle()
	case 5:
		m.buf.CloseWrite()
		m.ended = true
	case 6:
		m.buf.Abort(errCut)
		if m.err == nil {
			m.err = errCut
		}
	case 7:
		m.buf.Leave()
		if m.err == nil {
			m.err = errLeft
		}
		m.outOfReach = true
		m.blocks = 0
	}
}

// settle forgets the last block when nothing is in it and nobody has it.
func (m *model) settle() {
	if m.blocks == 1 && m.r == m.w && m.lent == nil {
		m.blocks = 0
	}
	if m.blocks == 0 {
		m.r, m.w = 0, 0
	}
}

func (m *model) reserve(t *testing.T, free int64) {
	if m.lent != nil {
		return // one slice at a time
	}
	want := m.err
	if want == nil && m.ended {
		want = io.ErrClosedPipe
	}
	grows := m.blocks == 0 || m.w == blockSize
	if want == nil && grows && m.blocks >= 1 && (m.blocks == 5 || int64(m.blocks)*blockSize+m.buf.budget.headroom > free) {
		if len(m.data) == 0 {
			t.Fatal("a producer would wait for a consumer that has nothing to consume")
		}
		if m.buf.budget.takeBlock(m.blocks*blockSize) != nil {
			t.Fatal("a block beyond the limit")
		}
		return // would wait
	}
	p, err := m.buf.Reserve()
	if !errors.Is(err, want) {
		t.Fatalf("Reserve: %v, want %v", err, want)
	}
	if err != nil {
		return
	}
	if grows {
		m.blocks++
		m.w = 0
	}
	if len(p) != blockSize-m.w {
		t.Fatalf("Reserve of %d bytes, want %d", len(p), blockSize-m.w)
	}
	m.lent = p
}

func (m *model) next(t *testing.T) {
	if m.err == nil && len(m.data) == 0 && !m.ended {
		return // would wait
	}
	want := m.err
	if want == nil && len(m.data) == 0 {
		want = io.EOF
	}
	p, err := m.buf.Next()
	if !errors.Is(err, want) {
		t.Fatalf("Next: %v, want %v", err, want)
	}
	if err != nil {
		return
	}
	if n := min(len(m.data), blockSize-m.r); len(p) != n || !bytes.Equal(p, m.data[:n]) {
		t.Fatalf("Next = %d bytes, want these %d", len(p), n)
	}
	m.taken = p
}
