// Package jitter holds the bytes of forwarded streams while they wait for the
// slower side, and bounds what all streams of the process may hold.
//
//	budget, err := jitter.NewBudget(jitter.BudgetConfig{Total: 1 << 30})
//	...
//	up, down, ok := budget.Join() // !ok: refuse the stream with wire.CodeMemory
//	defer up.Leave()
//	defer down.Leave()
//	go fill(up, device) // Reserve, read into it, Commit; at the end CloseWrite
//	drain(up, agent)    // Next, write it, Release
//
// No byte is ever dropped: a full [Buffer] blocks its producer, which stops
// reading, and the flow control of the stream stops the sender.
//
// How much one buffer may hold is the dynamic threshold of shared-memory
// switches (Choudhury and Hahne, "Dynamic queue length thresholds for
// shared-memory packet switches", 1998): its floor always, and above the floor
// at most as much as is still free for all, up to a maximum. Buffers that run
// full together so get equal shares, the more there are the smaller, and who
// drains gets room again. A sixteenth of the total, or one stream's reservation
// if that is more, is left to newcomers, so that the full buffers of busy
// streams shrink down to their floors before a new stream is refused. The total
// is a hard bound.
//
// The buffer of a reader that stalls keeps what it holds, because nothing may
// be dropped. So with many of those a stream can be refused although the floors
// of all streams would fit: the memory it needs was filled when there was
// plenty.
package jitter

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// blockSize is the unit of memory, in bytes. It is also the longest slice that
// Reserve and Next return, and what a stream holds while its producer waits
// for the first byte. Twice as much gains nothing measurable between two QUIC
// streams.
const blockSize = 16 << 10

type block [blockSize]byte

// BudgetConfig bounds the memory of forwarded streams. All sizes are in bytes.
type BudgetConfig struct {
	// Total is the hard bound of everything that streams hold or reserve. It
	// must be given.
	Total int64
	// Max bounds one direction of one stream. Default 1 MiB; rounded down to a
	// multiple of 16 KiB.
	Max int
	// Floor is what one direction of a stream can always hold. Default 64 KiB;
	// rounded up to a multiple of 16 KiB. At most Max.
	Floor int
	// Overhead is what a stream may hold outside its buffers: the receive
	// windows of its two QUIC streams. It is reserved for as long as the
	// stream lives, and never used here. Default 0.
	Overhead int64
}

const (
	defaultMax   = 1 << 20
	defaultFloor = 64 << 10
	// limitMax keeps the table of blocks of a buffer small and sizes in range.
	limitMax = 1 << 30
)

// Budget is the memory that the streams of one process share. Its methods may
// be called from any goroutine.
type Budget struct {
	total       int64
	max         int   // bytes, multiple of blockSize
	floor       int   // bytes, multiple of blockSize
	reservation int64 // bytes of one direction: floor and half of the overhead
	headroom    int64 // bytes of free that only Join takes

	// free is total less all reservations less all blocks above a floor. Every
	// change is an addition of what was taken or a compare-and-swap that keeps
	// it at 0 or more; that alone makes total a hard bound.
	free     atomic.Int64
	reserved atomic.Int64 // bytes
	used     atomic.Int64 // bytes in blocks, below and above the floors
	streams  atomic.Int64
	refused  atomic.Uint64

	blocks sync.Pool // of *block
}

// NewBudget returns a budget from which nothing is taken yet. The error names
// the setting that cannot work.
func NewBudget(cfg BudgetConfig) (*Budget, error) {
	if cfg.Max == 0 {
		cfg.Max = defaultMax
	}
	if cfg.Floor == 0 {
		cfg.Floor = min(defaultFloor, cfg.Max)
	}
	switch {
	case cfg.Max < blockSize || cfg.Max > limitMax:
		return nil, fmt.Errorf("jitter: at most %d bytes per direction: set %d to %d", cfg.Max, blockSize, limitMax)
	case cfg.Floor < 0 || cfg.Overhead < 0:
		return nil, fmt.Errorf("jitter: floor of %d bytes and overhead of %d bytes: neither can be negative", cfg.Floor, cfg.Overhead)
	case cfg.Floor > cfg.Max:
		return nil, fmt.Errorf("jitter: floor of %d bytes is above the maximum of %d bytes per direction", cfg.Floor, cfg.Max)
	}
	b := &Budget{total: cfg.Total}
	b.max = cfg.Max / blockSize * blockSize
	b.floor = min((cfg.Floor+blockSize-1)/blockSize*blockSize, b.max)
	b.reservation = int64(b.floor) + cfg.Overhead/2 + cfg.Overhead%2
	if b.reservation < 0 || cfg.Total/2 < b.reservation {
		return nil, fmt.Errorf("jitter: buffer memory of %d bytes cannot hold one stream, which needs twice %d bytes: raise the total or lower floor and windows", cfg.Total, b.reservation)
	}
	b.headroom = max(2*b.reservation, b.total/16)
	b.free.Store(b.total)
	b.blocks.New = func() any { return new(block) }
	return b, nil
}

// Join reserves memory for one forwarded stream and returns the buffers of its
// two directions, each of which the caller must Leave. ok is false when the
// memory is promised out: the stream must be refused.
func (b *Budget) Join() (up, down *Buffer, ok bool) {
	if !b.take(2*b.reservation, 2*b.reservation) {
		b.refused.Add(1)
		return nil, nil, false
	}
	b.reserved.Add(2 * b.reservation)
	b.streams.Add(1)
	s := &stream{}
	s.open.Store(2)
	return newBuffer(b, s), newBuffer(b, s), true
}

// take takes n bytes out of free if at least want bytes are free; n <= want.
func (b *Budget) take(n, want int64) bool {
	for {
		free := b.free.Load()
		if free < want {
			return false
		}
		if b.free.CompareAndSwap(free, free-n) {
			return true
		}
	}
}

// takeBlock returns a block for a buffer that holds held bytes of blocks, or
// nil if it is at its limit. Below the floor it never is.
func (b *Budget) takeBlock(held int) *block {
	if above := held + blockSize - b.floor; above > 0 {
		if held+blockSize > b.max || !b.take(blockSize, int64(above)+b.headroom) {
			return nil
		}
	}
	b.used.Add(blockSize)
	return b.blocks.Get().(*block)
}

// giveBlock takes back a block of a buffer that held held bytes with it. blk
// is nil if someone may still touch its memory, which then is not used again.
func (b *Budget) giveBlock(blk *block, held int) {
	if blk != nil {
		b.blocks.Put(blk)
	}
	b.used.Add(-blockSize)
	if held > b.floor {
		b.free.Add(blockSize)
	}
}

// leave gives back what one direction reserved.
func (b *Budget) leave(s *stream) {
	b.reserved.Add(-b.reservation)
	b.free.Add(b.reservation)
	if s.open.Add(-1) == 0 {
		b.streams.Add(-1)
	}
}

// stream counts the directions of a stream that have not left.
type stream struct{ open atomic.Int32 }

// Stats are the figures of a [Budget] at one moment. They are read one by one
// while streams run, so that sums may be off by what moved in between.
type Stats struct {
	Total    int64  // bytes, as configured
	Reserved int64  // bytes promised: floors and overhead of all streams
	Used     int64  // bytes of memory in the blocks of all buffers, below and above the floors
	Share    int64  // bytes that one direction may hold now, from Floor to Max
	Streams  int64  // streams of which at least one direction has not left
	Refused  uint64 // streams refused since the start
}

// Stats returns the figures of this moment.
func (b *Budget) Stats() Stats {
	above := min(max(b.free.Load()-b.headroom, 0), int64(b.max-b.floor))
	return Stats{
		Total:    b.total,
		Reserved: b.reserved.Load(),
		Used:     b.used.Load(),
		Share:    int64(b.floor) + above/blockSize*blockSize,
		Streams:  b.streams.Load(),
		Refused:  b.refused.Load(),
	}
}
