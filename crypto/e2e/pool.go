package e2e

import "sync"

// Sizes of buffers. The largest block has two full records with a preface
// before them, the largest chunk what one record opens to.
const (
	bufferLen = 33 << 10
	chunkLen  = maxContent + 1 + maxPadding
)

// Smaller blocks and chunks are of these sizes.
var sizes = [...]int{512, 2 << 10, 9 << 10}

// classOf returns the index of the smallest size that n fits in.
func classOf(n int) int {
	for i, size := range sizes {
		if n <= size {
			return i
		}
	}
	return len(sizes)
}

type (
	buffer   [bufferLen]byte
	chunkBuf struct{ room []byte }
)

// bufferPool lends memory: blocks to a write half while its records are in the
// log, record buffers to a carrier while it reads, chunks to a read half while
// content waits.
type bufferPool struct {
	records        sync.Pool
	blocks, chunks [len(sizes) + 1]sync.Pool
}

func newBufferPool() *bufferPool {
	p := &bufferPool{records: sync.Pool{New: func() any { return new(buffer) }}}
	for i := range p.blocks {
		block, chunk := bufferLen, chunkLen
		if i < len(sizes) {
			block, chunk = sizes[i], sizes[i]
		}
		p.blocks[i].New = func() any { return newBlock(block) }
		p.chunks[i].New = func() any { return &chunkBuf{make([]byte, chunk)} }
	}
	return p
}

func newBlock(size int) *block { return &block{room: make([]byte, size)} }

func (p *bufferPool) get() *buffer  { return p.records.Get().(*buffer) }
func (p *bufferPool) put(b *buffer) { p.records.Put(b) }

// block returns an empty block with room for n bytes.
func (p *bufferPool) block(n int) *block {
	b := p.blocks[classOf(n)].Get().(*block)
	*b = block{room: b.room, data: b.room[:0]}
	return b
}

// free takes a block back that nobody uses any more.
func (p *bufferPool) free(b *block) { p.blocks[classOf(len(b.room))].Put(b) }

// chunk returns a chunk with room for n bytes.
func (p *bufferPool) chunk(n int) chunk {
	buf := p.chunks[classOf(n)].Get().(*chunkBuf)
	return chunk{buf: buf, b: buf.room[:n]}
}

func (p *bufferPool) done(ch *chunk) {
	if ch.buf != nil {
		p.chunks[classOf(len(ch.buf.room))].Put(ch.buf)
	}
	*ch = chunk{}
}
