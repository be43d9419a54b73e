package endpoint

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff spaces out attempts: each pause is drawn from between half and all of
// a bound that doubles, so that endpoints that lost the same relay do not come
// back in step.
type backoff struct {
	first, most time.Duration
	bound       time.Duration // of the latest pause; 0 after a success
}

// next returns the pause before the next attempt.
func (b *backoff) next() time.Duration {
	b.bound = min(max(b.first, 2*b.bound), b.most)
	return b.bound/2 + rand.N(b.bound/2+1)
}

func (b *backoff) reset() { b.bound = 0 }

// pause waits for d, or until ctx ends or wake, which may be nil, is closed. It
// reports whether ctx is still good.
func pause(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-wake:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
