package jitter

import (
	"errors"
	"io"
	"sync"
)

var errLeft = errors.New("jitter: buffer was left")

// Buffer holds the bytes of one direction of a forwarded stream, in order. It
// has one producer (Reserve, Commit, CloseWrite) and one consumer (Next,
// Release), each a single goroutine; Abort may be called by anyone.
//
// Memory comes in blocks of 16 KiB, and a buffer without bytes and without a
// slice at its producer holds none.
type Buffer struct {
	budget *Budget
	stream *stream

	mu      sync.Mutex
	bytes   sync.Cond // the consumer waits here for bytes, the end, or an error
	room    sync.Cond // the producer waits here for a released block or an error
	ring    []*block  // count blocks in order, from ring[first] on, wrapping round
	first   int
	count   int
	r       int   // offset of the next byte to consume, in the first block
	w       int   // offset of the next byte to fill, in the last block
	lent    int   // length of the slice at the producer; 0: it has none
	taken   int   // length of the slice at the consumer; 0: it has none
	ended   bool  // CloseWrite was called
	err     error // of Abort or Leave; the first stays
	hasLeft bool
}

// Invariants under mu: count == 0 implies r == w == 0; with one block r <= w;
// with more than one, every block but the last is full. A producer waits only
// when the last block is full and the buffer at its limit, which is at or
// above the floor: so there are bytes to consume, and as soon as the consumer
// has released a block the producer asks again. Below the floor it always gets
// one, whatever other streams hold: no stream waits for another.

func newBuffer(b *Budget, s *stream) *Buffer {
	buf := &Buffer{budget: b, stream: s, ring: make([]*block, b.max/blockSize)}
	buf.bytes.L, buf.room.L = &buf.mu, &buf.mu
	return buf
}

func (b *Buffer) at(i int) **block {
	if i += b.first; i >= len(b.ring) {
		i -= len(b.ring)
	}
	return &b.ring[i]
}

// Reserve returns room for the producer to fill: at least 1 byte, at most a
// block. It blocks while the buffer is at its limit. The slice is the
// producer's until Commit. The error is that of Abort.
func (b *Buffer) Reserve() ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		switch {
		case b.err != nil:
			return nil, b.err
		case b.ended:
			return nil, io.ErrClosedPipe
		}
		if b.count == 0 || b.w == blockSize {
			blk := b.budget.takeBlock(b.count * blockSize)
			if blk == nil {
				b.room.Wait()
				continue
			}
			*b.at(b.count) = blk
			b.count++
			b.w = 0
		}
		p := (*b.at(b.count - 1))[b.w:]
		b.lent = len(p)
		return p, nil
	}
}

// Commit says that the first n bytes of the slice of the latest Reserve are
// filled and returns the slice; n may be 0. It panics if n is more than the
// slice holds. After Abort the bytes are lost.
func (b *Buffer) Commit(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n < 0 || n > b.lent {
		panic("jitter: Commit of more than was reserved")
	}
	b.lent = 0
	if b.hasLeft {
		return
	}
	b.w += n
	if n > 0 {
		b.bytes.Signal()
	} else {
		b.dropEmpty()
	}
}

// CloseWrite says that no byte follows: once everything is consumed, Next
// returns io.EOF. It may be called again.
func (b *Buffer) CloseWrite() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	b.bytes.Signal()
}

// Next returns the next bytes, at least 1 and at most a block, and blocks
// until there are some. The slice is the consumer's until Release. The error
// is io.EOF after CloseWrite and the last byte, or that of Abort, which does
// not wait for the bytes before it.
func (b *Buffer) Next() ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		if b.err != nil {
			return nil, b.err
		}
		if b.count > 0 {
			end := blockSize
			if b.count == 1 {
				end = b.w
			}
			if b.r < end {
				b.taken = end - b.r
				return (*b.at(0))[b.r:end:end], nil
			}
		}
		if b.ended {
			return nil, io.EOF
		}
		b.bytes.Wait()
	}
}

// Release says that the first n bytes of the slice of the latest Next are
// consumed, and gives the slice back; what is left of it comes again. It
// panics if n is more than the slice holds.
func (b *Buffer) Release(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n < 0 || n > b.taken {
		panic("jitter: Release of more than was taken")
	}
	b.taken = 0
	if b.hasLeft {
		return
	}
	b.r += n
	if b.r == blockSize {
		b.drop(*b.at(0))
		b.room.Signal()
	}
	b.dropEmpty() // the block after a full one may have got no byte
}

// dropEmpty gives back the last block if it holds no byte and nobody has a
// slice of it.
func (b *Buffer) dropEmpty() {
	if b.count == 1 && b.r == b.w && b.lent == 0 {
		b.drop(*b.at(0))
	}
}

// drop takes the first block out of the buffer. blk is that block, or nil if
// somebody may still have a slice of it.
func (b *Buffer) drop(blk *block) {
	b.budget.giveBlock(blk, b.count*blockSize)
	*b.at(0) = nil
	b.count--
	b.r = 0
	if b.first++; b.first == len(b.ring) {
		b.first = 0
	}
	if b.count == 0 {
		b.w = 0
	}
}

// Abort ends both sides with err, at once: running and later calls of Reserve
// and Next return it, and bytes that were not consumed stay so. The first
// error stays. err must not be nil.
func (b *Buffer) Abort(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.abort(err)
}

func (b *Buffer) abort(err error) {
	if b.err == nil {
		b.err = err
	}
	b.bytes.Signal()
	b.room.Signal()
}

// Leave gives back the memory of the buffer and all that was reserved for it.
// Call it when producer and consumer have ended; it may be called again. A
// block of which one of them still has a slice is not used again.
func (b *Buffer) Leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.hasLeft {
		return
	}
	b.hasLeft = true
	b.abort(errLeft)
	for taken := b.taken > 0; b.count > 0; taken = false {
		blk := *b.at(0)
		if taken || (b.lent > 0 && b.count == 1) {
			blk = nil
		}
		b.drop(blk)
	}
	b.budget.leave(b.stream)
}
