package viewer

import (
	"context"
	"time"
)

// Times between jumps, of picture.
const (
	jumpLeast = 4 * time.Second
	jumpMost  = 12 * time.Second
)

// behave pauses and jumps until ctx ends. It runs beside the loop that
// fetches, since a viewer does not wait for a request before pressing a key.
func (v *Viewer) behave(ctx context.Context) {
	jumps, pauses := v.cfg.Kind == Seek, v.cfg.PauseEvery > 0 && v.cfg.Kind != Bulk
	if !jumps && !pauses {
		return
	}
	// Both are points of the picture's own time, which stands still in stalls.
	jumpAt, pauseAt := forever, forever
	if jumps {
		jumpAt = v.jumpAfter()
	}
	if pauses {
		pauseAt = v.exponential(v.cfg.PauseEvery)
	}
	for v.picture(ctx, min(jumpAt, pauseAt)) {
		if pauseAt <= jumpAt {
			if v.pause(ctx) {
				pauseAt += v.exponential(v.cfg.PauseEvery)
			}
			continue
		}
		v.jump()
		jumpAt += v.jumpAfter()
	}
}

// picture waits until the picture has moved for a time in all and moves, and
// returns false when ctx has ended.
func (v *Viewer) picture(ctx context.Context, watched time.Duration) bool {
	for ctx.Err() == nil {
		v.mu.Lock()
		v.player.advance(time.Now())
		phase, left := v.player.phase, watched-v.player.watched
		v.mu.Unlock()
		if phase == Playing && left <= 0 {
			return true
		}
		if phase != Playing {
			left = forever // until the picture moves
		}
		doze(ctx, left, v.moves)
	}
	return false
}

// pause stops the picture for a while, and returns false if a stall came first.
func (v *Viewer) pause(ctx context.Context) bool {
	v.mu.Lock()
	paused := v.player.pause(time.Now())
	v.mu.Unlock()
	if !paused {
		return false
	}
	doze(ctx, v.exponential(v.cfg.PauseFor), nil)
	v.mu.Lock()
	v.player.play(time.Now())
	v.mu.Unlock()
	nudge(v.wake)
	return true
}

// jump goes to the beginning of any segment and aborts what is on its way, as
// players do.
func (v *Viewer) jump() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.player.jump(time.Now())
	v.next = v.rand.IntN(max(v.total, 1))
	if v.abort != nil {
		v.abort()
	}
	nudge(v.wake)
}

func (v *Viewer) jumpAfter() time.Duration {
	return jumpLeast + time.Duration(v.rand.Int64N(int64(jumpMost-jumpLeast)))
}

// exponential returns a random time with a mean, at most ten times the mean.
func (v *Viewer) exponential(mean time.Duration) time.Duration {
	return time.Duration(min(v.rand.ExpFloat64(), 10) * float64(mean))
}

// doze waits for a time, until something is sent to wake, or until ctx ends.
func doze(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	var after <-chan time.Time
	if d != forever {
		t := time.NewTimer(d)
		defer t.Stop()
		after = t.C
	}
	select {
	case <-after:
	case <-wake:
	case <-ctx.Done():
	}
}

// room waits until at most goal is ahead, and returns false when ctx has ended.
func (v *Viewer) room(ctx context.Context, goal time.Duration) bool {
	for ctx.Err() == nil {
		v.mu.Lock()
		now := time.Now()
		v.player.advance(now)
		wait := v.player.room(goal)
		v.mu.Unlock()
		if wait == 0 {
			return true
		}
		if now.Sub(v.flushAt) >= time.Second {
			v.flush(now)
		}
		doze(ctx, wait, v.wake)
	}
	return false
}
