package viewer

import (
	"context"
	"errors"
	"time"
)

// behind is how many segments from the newest a live viewer begins (RFC 8216,
// section 6.3.3).
const behind = 3

// channel is what a live viewer knows of its channel. The requests of a live
// viewer are due at times that do not depend on how fast earlier ones were
// answered: the playlist has to be asked for the next segment as long after
// edgeAt as the newest segment lasts. A segment is timed from when it was due,
// also when it had to wait behind others, so that a slow path cannot hide its
// delay by getting fewer requests.
type channel struct {
	ladder *ladder
	next   int64     // number of the segment to fetch
	entry  int64     // number of the newest segment when the viewer came
	edge   int64     // number of the newest segment known
	edgeAt time.Time // when the viewer learned of the edge, or would have, had it not been late
	loaded time.Time // when the playlist was asked for last
}

func (c *channel) list() *playlist { return c.ladder.rungs[c.ladder.at].list }

// watchLive stays at a channel until ctx or the channel ends.
func (v *Viewer) watchLive(ctx context.Context, l *ladder) error {
	c := &channel{ladder: l}
	if err := v.reload(ctx, c); err != nil {
		return err
	}
	c.enter()
	for ctx.Err() == nil {
		if v.paused(ctx) {
			// Back to the present.
			if err := v.reload(ctx, c); err != nil {
				return err
			}
			v.mu.Lock()
			v.player.jump(time.Now())
			v.mu.Unlock()
			c.enter()
			continue
		}
		switch list := c.list(); {
		case c.next <= c.edge:
			if err := v.liveSegment(ctx, c); err != nil {
				return err
			}
		case list.ended:
			v.mu.Lock()
			v.player.end(time.Now())
			v.mu.Unlock()
			v.room(ctx, 0)
			return nil
		default:
			due := c.edgeAt.Add(list.pace())
			if wait := time.Until(due); wait > 0 {
				doze(ctx, wait, v.wake)
				continue
			}
			if err := v.reload(ctx, c); err != nil {
				return err
			}
			if !v.follow(c) {
				// The server is later than its segments are long: look again
				// after half of that (RFC 8216, section 6.3.4), and expect it
				// then from now on.
				c.edgeAt = c.edgeAt.Add(list.pace() / 2)
			}
		}
	}
	return nil
}

// paused waits while the viewer pauses, and reports whether it did.
func (v *Viewer) paused(ctx context.Context) bool {
	was := false
	for ctx.Err() == nil {
		v.mu.Lock()
		is := v.player.phase == Paused
		v.mu.Unlock()
		if !is {
			return was
		}
		was = true
		doze(ctx, forever, v.wake)
	}
	return was
}

// reload fetches the playlist.
func (v *Viewer) reload(ctx context.Context, c *channel) error {
	return v.retry(ctx, func() (bool, error) {
		c.loaded = time.Now()
		return false, v.loadLive(ctx, c)
	})
}

func (v *Viewer) loadLive(ctx context.Context, c *channel) error {
	first := c.edgeAt.IsZero()
	if err := v.load(ctx, c.ladder); err != nil {
		return err
	}
	if first && c.list().ended {
		return playlistError{errors.New("it has an end: this is no live channel")}
	}
	return nil
}

// enter begins at the third segment from the newest.
func (c *channel) enter() {
	list := c.list()
	c.edge = list.last()
	c.entry = c.edge
	c.next = max(list.sequence, c.edge-behind+1)
	c.edgeAt = c.loaded
}

// follow takes note of what a playlist that was asked for again brought, and
// reports whether there is a new segment.
func (v *Viewer) follow(c *channel) bool {
	list := c.list()
	last := list.last()
	switch {
	case last < c.edge-behind || last-c.edge > maxSegments:
		v.failed("playlist_reset", errors.New("the media sequence numbers began anew"))
		c.enter()
		return true
	case last < c.edge:
		// Another bitrate's playlist may be a little behind.
		c.edgeAt = c.edgeAt.Add(-list.length(last, c.edge))
		c.edge = last
		return false
	case last == c.edge:
		return false
	}
	c.edgeAt = c.edgeAt.Add(list.length(c.edge, last))
	c.edge = last
	if c.next < list.sequence {
		v.failed("behind_window", errors.New("live segments left the playlist before they were fetched"))
		c.next = max(list.sequence, last-behind+1)
	}
	return true
}

// due returns when a segment had to be asked for; zero for those that were
// there when the viewer came, which are due when their turn comes.
func (c *channel) due(number int64) time.Time {
	if number <= c.entry {
		return time.Time{}
	}
	at := c.edgeAt.Add(-c.list().length(number, c.edge))
	if c.loaded.Before(at) {
		return c.loaded // the server was early
	}
	return at
}

// leastPace keeps a playlist of tiny segments from being asked for all the time.
const leastPace = 500 * time.Millisecond

// pace returns how long after the newest segment another one is expected.
func (l *playlist) pace() time.Duration {
	return max(l.segments[len(l.segments)-1].length, leastPace)
}

// last returns the number of the newest segment.
func (l *playlist) last() int64 { return l.sequence + int64(len(l.segments)) - 1 }

// length returns how long the segments after from up to to are together.
// Segments that the playlist does not list count like the nearest that it does.
func (l *playlist) length(from, to int64) (sum time.Duration) {
	for n := from + 1; n <= to; n++ {
		sum += l.segments[min(max(n, l.sequence), l.last())-l.sequence].length
	}
	return sum
}

// liveSegment fetches the next segment. After a failure, the playlist is
// looked at again, since the segment may have left it.
func (v *Viewer) liveSegment(ctx context.Context, c *channel) error {
	failed := false
	return v.retry(ctx, func() (bool, error) {
		if failed || v.adapt(c.ladder, c.list().segments[0].length) {
			failed = true // until the playlist is known
			c.loaded = time.Now()
			if err := v.loadLive(ctx, c); err != nil {
				return false, err
			}
			v.follow(c)
			if c.next > c.edge {
				return false, nil
			}
		}
		s := c.list().segments[c.next-c.list().sequence]
		err := v.segment(ctx, c.ladder, s, c.due(c.next), func(int, int64) error { return nil })
		if failed = err != nil; failed {
			return false, err
		}
		v.mu.Lock()
		v.player.arrive(time.Now(), s.length)
		v.mu.Unlock()
		c.next++
		return false, nil
	})
}
