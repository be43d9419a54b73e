package cinema

import (
	"context"
	"io"
	"time"
)

// The built-in clip is small enough to arrive in an instant, which would leave
// the relay with nothing to show while it plays. So it is sent like a live
// stream: clipBurst bytes at once, the rest at clipRate, about twice as fast as
// the clip plays.
const (
	clipBurst = 48 << 10 // bytes
	clipRate  = 80_000   // bytes per second
)

// pacedFile is a file whose reads take the time that rate asks for. The reads
// of one response come from one goroutine.
type pacedFile struct {
	io.ReadSeeker
	ctx   context.Context // of the request: a client that leaves ends the wait
	rate  int             // bytes per second
	start time.Time       // of the first read
	read  int64           // bytes
}

// Read reads at most 8 KiB, after the wait that the bytes before it asked for.
func (f *pacedFile) Read(p []byte) (int, error) {
	if f.start.IsZero() {
		f.start = time.Now()
	}
	due := time.Duration(f.read-clipBurst) * time.Second / time.Duration(f.rate)
	if wait := time.Until(f.start.Add(due)); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-f.ctx.Done():
			return 0, f.ctx.Err()
		}
	}
	n, err := f.ReadSeeker.Read(p[:min(len(p), 8<<10)])
	f.read += int64(n)
	return n, err
}
