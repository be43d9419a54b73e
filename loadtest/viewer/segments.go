package viewer

import (
	"context"
	"errors"
	"net/url"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/result"
)

// ladder is the choice of bitrates of one film or channel.
type ladder struct {
	variants []variant // ascending; one without figures if there is no master playlist
	rungs    []rung    // as variants
	at       int
}

// rung is one bitrate.
type rung struct {
	url  *url.URL  // of the playlist
	list *playlist // nil: not fetched yet
	init piece     // fetched last
}

// openLadder fetches what Config.URL names and chooses the first rung.
func (v *Viewer) openLadder(ctx context.Context) (*ladder, error) {
	l := &ladder{}
	err := v.retry(ctx, func() (bool, error) {
		list, base, err := v.playlist(ctx, v.base)
		if err != nil {
			return false, err
		}
		if len(list.variants) == 0 {
			l.variants, l.rungs = make([]variant, 1), []rung{{url: base, list: list}}
			return false, nil
		}
		l.variants, l.rungs = list.variants, make([]rung, len(list.variants))
		for i, o := range list.variants {
			if l.rungs[i].url, err = resolve(base, o.uri); err != nil {
				return false, err
			}
		}
		return false, nil
	})
	if err != nil {
		return nil, err
	}
	if v.cfg.Adaptive {
		l.at = v.path.choose(l.variants, 0, false)
	} else {
		l.at = fixed(l.variants, v.cfg.Bitrate)
	}
	return l, nil
}

// fixed returns the index of the highest variant whose average is not above
// bitrate, or of the lowest; with bitrate 0 of the highest.
func fixed(variants []variant, bitrate int64) int {
	best := 0
	for i, o := range variants {
		if bitrate == 0 || o.average <= bitrate {
			best = i
		}
	}
	return best
}

// adapt changes the rung if that is wanted and due, and reports whether it did.
func (v *Viewer) adapt(l *ladder, segment time.Duration) bool {
	if !v.cfg.Adaptive {
		return false
	}
	v.mu.Lock()
	v.player.advance(time.Now())
	low := v.player.started && v.player.ahead < segment
	v.mu.Unlock()
	to := v.path.choose(l.variants, l.at, low)
	if to == l.at {
		return false
	}
	l.at = to
	v.counts.switches++
	return true
}

// load fetches the playlist of the present rung.
func (v *Viewer) load(ctx context.Context, l *ladder) error {
	r := &l.rungs[l.at]
	list, base, err := v.playlist(ctx, r.url)
	switch {
	case err != nil:
		return err
	case len(list.variants) > 0:
		return playlistError{errors.New("a master playlist names another one")}
	case len(list.segments) == 0:
		return playlistError{errors.New("it has no segments")}
	}
	r.list, r.url = list, base
	return nil
}

// segment fetches a segment of the present rung, with its initialization
// section if that changed. A segment that was due at a time is timed from then
// on; with the zero time from its request.
func (v *Viewer) segment(ctx context.Context, l *ladder, s segment, due time.Time, took func(n int, size int64) error) error {
	r := &l.rungs[l.at]
	if s.init != nil && *s.init != r.init {
		if _, err := v.fetch(ctx, r.url, *s.init, func(int, int64) error { return nil }); err != nil {
			return err
		}
		r.init = *s.init
	}
	sent := time.Now()
	n, err := v.fetch(ctx, r.url, s.piece, took)
	if err != nil {
		return err
	}
	now := time.Now()
	v.path.add(n, now.Sub(sent))
	if due.IsZero() {
		due = sent
	}
	if !v.plan.smooth { // the time of a whole track would not compare
		v.cfg.Recorder.Hist(result.HistSegment).Record(now.Sub(due))
		if rate := l.variants[l.at].average; rate > 0 {
			v.cfg.Recorder.Bitrate(rate)
		}
	}
	if now.Sub(v.flushAt) >= time.Second {
		v.flush(now)
	}
	return nil
}

// watchSegments watches a film or an album from its first segment to its last.
func (v *Viewer) watchSegments(ctx context.Context, l *ladder) error {
	err := v.retry(ctx, func() (bool, error) {
		if err := v.loadFilm(ctx, l); err != nil {
			return false, err
		}
		return false, nil
	})
	if err != nil {
		return err
	}
	v.mu.Lock()
	v.total = len(l.rungs[l.at].list.segments)
	v.mu.Unlock()
	for v.room(ctx, v.plan.goal) {
		if v.atEnd() {
			if !v.room(ctx, 0) || v.State().Phase == Over {
				return nil
			}
			continue // a jump came
		}
		if err := v.turn(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// loadFilm fetches the present rung's playlist unless that is known.
func (v *Viewer) loadFilm(ctx context.Context, l *ladder) error {
	r := &l.rungs[l.at]
	if r.list == nil || len(r.list.segments) == 0 {
		if err := v.load(ctx, l); err != nil {
			return err
		}
	}
	if !r.list.ended {
		r.list = nil // it may be complete next time
		return playlistError{errors.New("it has no end: is this a live channel?")}
	}
	return nil
}

// atEnd reports whether all segments have arrived and none follows.
func (v *Viewer) atEnd() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.next < v.total {
		return false
	}
	if v.cfg.Repeat {
		v.next = 0
		return false
	}
	v.player.end(time.Now())
	return true
}

// turn fetches the next segment. A jump ends it early, which is no error.
func (v *Viewer) turn(ctx context.Context, l *ladder) error {
	turn, cancel := context.WithCancel(ctx)
	defer cancel()
	v.mu.Lock()
	i := v.next
	v.abort = cancel
	v.mu.Unlock()

	var s segment
	var has, counted time.Duration // of this segment: arrived in this request, and given to the player
	give := func() error {
		v.mu.Lock()
		defer v.mu.Unlock()
		// A jump and this cannot pass each other: both hold mu.
		if err := turn.Err(); err != nil {
			return err
		}
		if has > counted {
			v.player.arrive(time.Now(), has-counted)
			counted = has
		}
		return nil
	}
	err := v.retry(turn, func() (bool, error) {
		if err := v.loadFilm(turn, l); err != nil {
			return false, err
		}
		if i < len(l.rungs[l.at].list.segments) && v.adapt(l, l.rungs[l.at].list.segments[i].length) {
			if err := v.loadFilm(turn, l); err != nil {
				return false, err
			}
		}
		list := l.rungs[l.at].list
		if i >= len(list.segments) {
			return false, playlistError{errors.New("it has fewer segments than that of another bitrate")}
		}
		s, has = list.segments[i], 0
		var got int64
		return false, v.segment(turn, l, s, time.Time{}, func(n int, size int64) error {
			got += int64(n)
			if !v.plan.smooth || size <= 0 || got > size {
				return nil
			}
			has = time.Duration(float64(s.length) * float64(got) / float64(size))
			return give()
		})
	})
	if err == nil {
		has = s.length
		err = give()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.abort = nil
	switch {
	case turn.Err() != nil:
		return nil // by a jump, or the caller sees that ctx ended
	case err == nil:
		v.next++
	}
	return err
}
