package cinema

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Direction says which way bytes pass through the relay.
type Direction uint8

// The two ways through the relay.
const (
	ToDevice Direction = iota // from the agent to the device: the film
	ToAgent                   // from the device to the agent: the requests
)

// sampleSize is how many of the last bytes of each direction a [Wire] keeps.
const sampleSize = 256

// Wire is what a relay sees of the streams that it forwards: how many there
// are, how many bytes pass each way, and the last few of them. The relay's side
// tells it, the page shows it. All methods are safe for concurrent use.
type Wire struct {
	start   time.Time
	streams atomic.Int64
	flows   [2]flow // by Direction
}

// flow is one direction.
type flow struct {
	bytes atomic.Uint64

	mu     sync.Mutex // guards the sample; Seen never waits for it
	last   [sampleSize]byte
	filled int // how many bytes at the end of last are set
}

// NewWire returns a Wire that has seen nothing. Its clock starts now.
func NewWire() *Wire { return &Wire{start: time.Now()} }

// StreamOpened says that the relay began to forward a stream.
func (w *Wire) StreamOpened() { w.streams.Add(1) }

// StreamClosed says that a stream ended, once for each [Wire.StreamOpened].
func (w *Wire) StreamClosed() { w.streams.Add(-1) }

// Seen says that p passed through the relay. It allocates nothing, does not
// keep p, and never waits: bytes are always counted, but while another call
// holds the sample p stays out of it.
func (w *Wire) Seen(d Direction, p []byte) {
	f := &w.flows[d]
	f.bytes.Add(uint64(len(p)))
	if !f.mu.TryLock() {
		return
	}
	if n := len(p); n < sampleSize {
		copy(f.last[:], f.last[n:])
		copy(f.last[sampleSize-n:], p)
	} else {
		copy(f.last[:], p[n-sampleSize:])
	}
	f.filled = min(f.filled+len(p), sampleSize)
	f.mu.Unlock()
}

// Snapshot is what a [Wire] has seen up to a moment.
type Snapshot struct {
	Elapsed  time.Duration // since NewWire
	Streams  int           // that are open
	ToDevice Flow
	ToAgent  Flow
}

// Flow is one direction of a [Snapshot].
type Flow struct {
	Bytes uint64 // all that passed
	Last  []byte // the last of them, oldest first, at most 256; the caller owns them
}

// Snapshot returns what w has seen. Counters and samples are each exact but not
// taken at one instant.
func (w *Wire) Snapshot() Snapshot {
	return Snapshot{
		Elapsed:  time.Since(w.start),
		Streams:  int(w.streams.Load()),
		ToDevice: w.flows[ToDevice].snapshot(),
		ToAgent:  w.flows[ToAgent].snapshot(),
	}
}

func (f *flow) snapshot() Flow {
	f.mu.Lock()
	last := slices.Clone(f.last[sampleSize-f.filled:])
	f.mu.Unlock()
	return Flow{Bytes: f.bytes.Load(), Last: last}
}
