package viewer

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// breath is by how much the buffer of a progressive viewer sinks before it
// reads on: small, so that it reads at about the bitrate, and not so small
// that it wakes for each chunk.
const breath = 250 * time.Millisecond

// watchFile watches one long response, or only reads it.
func (v *Viewer) watchFile(ctx context.Context) error {
	for {
		f := &file{size: -1}
		err := v.retry(ctx, func() (bool, error) {
			from := f.at
			err := v.readFile(ctx, f)
			return f.at > from, err
		})
		if err != nil || ctx.Err() != nil {
			return err
		}
		if v.cfg.Repeat {
			continue
		}
		v.mu.Lock()
		v.player.end(time.Now())
		v.mu.Unlock()
		v.room(ctx, 0)
		return nil
	}
}

// file is how much of a file has been read.
type file struct {
	at, size int64 // bytes; size -1: unknown
}

// readFile requests the file from where it stopped and reads to its end.
func (v *Viewer) readFile(ctx context.Context, f *file) error {
	r, err := v.open(ctx, v.base, fmt.Sprintf("bytes=%d-", f.at))
	if err != nil {
		return err
	}
	defer r.close()
	if r.StatusCode == http.StatusOK {
		if f.at > 0 {
			return errRange
		}
		f.size = r.ContentLength
	} else if f.size, err = parseContentRange(r.Header.Get("Content-Range"), f.at); err != nil {
		return err
	}
	_, err = v.read(r, v.base, f.at, 0, func(n int) error {
		f.at += int64(n)
		return v.drink(ctx, r, f.at-int64(n), f.at)
	})
	if err == nil && (f.at < f.size || f.at == 0) {
		return errShort
	}
	return err
}

// drink gives the player what arrived between two offsets, and waits while
// its buffer is full, which holds the sender back.
func (v *Viewer) drink(ctx context.Context, r *response, from, to int64) error {
	now := time.Now()
	if now.Sub(v.flushAt) >= time.Second {
		v.flush(now)
	}
	if v.cfg.Kind == Bulk {
		return nil
	}
	v.mu.Lock()
	v.player.arrive(now, v.content(to)-v.content(from))
	full := v.player.ahead >= v.plan.goal
	v.mu.Unlock()
	if !full {
		return nil
	}
	r.timer.Stop() // the viewer is silent, not the path
	defer r.timer.Reset(quiet)
	if !v.room(ctx, v.plan.goal-breath) {
		return ctx.Err()
	}
	return nil
}

// content returns how long the first n bytes of the film play.
func (v *Viewer) content(n int64) time.Duration {
	return time.Duration(float64(n) * 8 / float64(v.cfg.Bitrate) * float64(time.Second))
}

// parseContentRange reads the answer to a request from an offset on (RFC 9110,
// section 14.4) and returns the size of the whole, -1 if it is unknown.
func parseContentRange(s string, from int64) (size int64, err error) {
	span, total, ok := strings.Cut(strings.TrimPrefix(s, "bytes "), "/")
	first, _, _ := strings.Cut(span, "-")
	if n, err := strconv.ParseInt(first, 10, 64); !ok || err != nil || n != from {
		return 0, fmt.Errorf("%w: asked from byte %d on, it answers %.60q", errRange, from, s)
	}
	if total == "*" {
		return -1, nil
	}
	size, err = strconv.ParseInt(total, 10, 64)
	if err != nil || size <= from {
		return 0, fmt.Errorf("%w: it answers %.60q", errRange, s)
	}
	return size, nil
}
