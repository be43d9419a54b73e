package e2e

// Bounds of what a reader keeps.
const (
	// readAhead is how many bytes that nobody has read yet make a carrier wait.
	readAhead = 256 << 10
	// maxAhead is how many bytes may have arrived before a record that is
	// missing: what an honest writer's log can hold, and the differences in
	// how both sides count.
	maxAhead = 2 * streamLog
	// sessionAhead is that of all streams of a session.
	sessionAhead = 2 * sessionLog
)

// chunk is the content of one record.
type chunk struct {
	buf *chunkBuf // what b is in; nil: b is empty
	b   []byte
	seq uint64
	end bool // END
}

// cost is what a chunk counts for in the bounds.
func (ch *chunk) cost() int {
	if ch.buf == nil {
		return blockCost
	}
	return len(ch.buf.room) + blockCost
}

// inbox is a read half: verified content that nobody has read yet. Conn.mu
// guards it.
type inbox struct {
	queue  fifo[chunk]      // in order, without gaps
	queued int              // what queue costs
	next   uint64           // number of the record that follows the queue
	last   uint64           // one more than the number of END; 0 before
	early  map[uint64]chunk // arrived before next did
	ahead  int              // bytes of early
	empty  int              // empty DATA records in a row

	held    bool // the reader is in the middle of record reading
	reading uint64
	stopped bool   // nobody will read
	told    uint64 // what the latest acknowledgment said
	unsaid  int    // bytes read since then
	dirty   bool   // an acknowledgment is due
	urgent  bool   // at once
	fresh   bool   // bytes have come over one of several carriers, and the writer was not told
}

// wanted is the number of the first record that was not read as a whole, or
// that after END once all is here. It is what acknowledgments say.
func (in *inbox) wanted() uint64 {
	switch {
	case in.stopped:
		return stopped
	case in.ended():
		return in.last
	case in.held:
		return in.reading
	case in.queue.len() > 0:
		return in.queue.all()[0].seq
	}
	return in.next
}

// ended reports whether all has been put into the queue.
func (in *inbox) ended() bool { return in.last > 0 && in.next == in.last }

// put takes a verified record. The caller has checked that it is not here yet.
func (in *inbox) put(ch chunk) error {
	if in.last > 0 && ch.seq >= in.last || ch.end && len(in.early) > 0 && in.highest() > ch.seq {
		return ErrTrailing
	}
	if ch.end {
		in.last = ch.seq + 1
	}
	if ch.seq != in.next {
		if in.early == nil {
			in.early = make(map[uint64]chunk)
		}
		in.early[ch.seq] = ch
		in.ahead += ch.cost()
		return nil
	}
	for ok := true; ok; ch, ok = in.pop() {
		in.next++
		if len(ch.b) > 0 {
			in.empty = 0
			in.queue.push(ch)
			in.queued += ch.cost()
		} else if in.empty++; in.empty > maxEmpty && !ch.end {
			return errEmptyRecords
		}
	}
	return nil
}

// pop takes record next out of those that came early.
func (in *inbox) pop() (chunk, bool) {
	ch, ok := in.early[in.next]
	if ok {
		delete(in.early, in.next)
		in.ahead -= ch.cost()
	}
	return ch, ok
}

func (in *inbox) highest() uint64 {
	var high uint64
	for seq := range in.early {
		high = max(high, seq)
	}
	return high
}

// here reports whether a record has arrived before.
func (in *inbox) here(seq uint64) bool {
	_, early := in.early[seq]
	return seq < in.next || early
}

// shift takes the first chunk of the queue.
func (in *inbox) shift() chunk {
	ch := in.queue.pop()
	in.queued -= ch.cost()
	return ch
}
