package share

import "time"

// bucket is a token bucket that may go into debt: it lets bytes through while
// it holds any, and then waits until what they cost beyond that has come in.
// The zero bucket has no limit.
type bucket struct {
	rate   float64 // bytes per second; 0: no limit
	most   float64 // bytes that it holds at most
	tokens float64 // bytes; negative: debt
	at     time.Time
	// It has let nothing through from time to time from began until held, and
	// reached is the latest held that was leastHeld behind its began.
	began, held, reached time.Time
}

// Depths of buckets, in time at their rate.
const (
	// burstOfLine bounds how much a line that was idle puts on the network at
	// once.
	burstOfLine = 10 * time.Millisecond
	// burstOfPart lets a page or the start of a film through at once where it is
	// a rate for the day that is bounded, not a network.
	burstOfPart = 250 * time.Millisecond
	// leastBurst is the depth of slow buckets, and what each begins with, in bytes.
	leastBurst = 64 << 10
	// step is what a bucket that was empty gathers, in time at its rate, before
	// it lets bytes through again: without it a fast line would be woken for
	// each block.
	step = 2 * time.Millisecond
	// pauseOfHeld is a time without waiting that ends what reached tells of, and
	// leastHeld how long it lasts at least: a burst that had to wait for a moment
	// is nothing to tell of.
	pauseOfHeld = 250 * time.Millisecond
	leastHeld   = time.Second
)

// set changes the rate, in bit/s. A bucket that had no limit starts with
// leastBurst: who makes a part anew gains no more than that.
func (b *bucket) set(rate int64, burst time.Duration, now time.Time) {
	if rate <= 0 {
		*b = bucket{}
		return
	}
	fresh := b.rate == 0
	b.fill(now)
	b.rate = float64(rate) / 8
	b.most = max(leastBurst, b.rate*burst.Seconds())
	if fresh {
		b.tokens, b.at = leastBurst, now
	}
}

func (b *bucket) limited() bool { return b.rate > 0 }

func (b *bucket) fill(now time.Time) {
	b.tokens = min(b.most, b.tokens+b.rate*now.Sub(b.at).Seconds())
	b.at = now
}

// wait returns how long nothing may pass; 0: bytes may now.
func (b *bucket) wait(now time.Time) time.Duration {
	if b.rate == 0 {
		return 0
	}
	b.fill(now)
	if b.tokens > 0 {
		return 0
	}
	wait := time.Duration(-b.tokens/b.rate*float64(time.Second)) + step
	if now.Sub(b.held) > pauseOfHeld {
		b.began = now
	}
	b.held = now.Add(wait)
	if b.held.Sub(b.began) >= leastHeld {
		b.reached = b.held
	}
	return wait
}

// pay takes n bytes out, more than there are too.
func (b *bucket) pay(n int) {
	if b.rate > 0 {
		b.tokens -= float64(n)
	}
}
