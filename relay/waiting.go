package relay

import (
	"container/list"
	"sync"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// waiting holds the streams whose OPEN has not been read. Until then nobody
// knows whether their device may come, so they share a small part of the
// memory, and a new one pushes the oldest out: a device sends OPEN with its
// stream, so what has waited long is a stranger's.
type waiting struct {
	most int

	mu     sync.Mutex
	oldest list.List // of transport.Stream, the oldest in front
}

// waitingShare is the part of the buffer memory that waiting streams have, one
// in so many.
const waitingShare = 16

// newWaiting returns room for waiting streams out of bufferMemory bytes, and
// how many bytes that takes. A waiting stream holds one receive window.
func newWaiting(bufferMemory int64) (w *waiting, bytes int64) {
	each := windowMemory()
	w = &waiting{most: int(max(1, bufferMemory/waitingShare/each))}
	return w, int64(w.most) * each
}

// enter adds a stream. The caller passes what it returns to leave.
func (w *waiting) enter(st transport.Stream) *list.Element {
	w.mu.Lock()
	e := w.oldest.PushBack(st)
	var pushed transport.Stream
	if w.oldest.Len() > w.most {
		pushed = w.oldest.Remove(w.oldest.Front()).(transport.Stream)
	}
	w.mu.Unlock()
	if pushed != nil {
		pushed.Reset(wire.CodeMemory)
	}
	return e
}

// leave takes a stream out again, unless it was pushed out.
func (w *waiting) leave(e *list.Element) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.oldest.Remove(e)
}
