package loadtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// viewer watches one film through one device.
type viewer struct {
	client *http.Client
	url    string
	film   Film
	rate   float64 // bytes/s
}

// chunk is how much a viewer reads at once, in bytes.
const chunk = 64 << 10

// watch plays the film until ctx ends, over again if it is short, and returns
// what the viewer saw. A request that fails counts as an error and is made
// again after a second, from where the film stopped.
func (v *viewer) watch(ctx context.Context) Seen {
	p := newPlayer(v.rate, time.Now())
	var seen Seen
	var pos int64
	for ctx.Err() == nil {
		n, err := v.request(ctx, p, pos)
		seen.Bytes += n
		pos = (pos + n) % v.film.Size
		if err == nil || ctx.Err() != nil {
			continue
		}
		if errors.Is(err, errCorrupt) {
			seen.Corrupt++
		}
		seen.Errors = append(seen.Errors, err.Error())
		if len(seen.Errors) == maxErrors {
			break
		}
		sleep(ctx, time.Second)
	}
	p.finish(time.Now())
	seen.Started, seen.StartUp = p.started, p.startup
	seen.Stalls, seen.Stalled, seen.LongestStall = p.stalls, p.stalled, p.longest
	seen.Watched = p.now.Sub(p.begun)
	return seen
}

// maxErrors ends a viewer that only ever fails.
const maxErrors = 100

var errCorrupt = errors.New("the bytes are not the film's")

// request reads the film from pos to its end, verifies it, and feeds the player.
func (v *viewer) request(ctx context.Context, p *player, pos int64) (read int64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.url, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-", pos))
	resp, err := v.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusPartialContent {
		return 0, fmt.Errorf("the origin answered %s", resp.Status)
	}
	buf, scratch := make([]byte, chunk), make([]byte, chunk)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			if err := v.film.Verify(buf[:n], pos+read, scratch); err != nil {
				return read, fmt.Errorf("%w: %w", errCorrupt, err)
			}
			read += int64(n)
			p.arrive(time.Now(), n)
		}
		switch {
		case err == io.EOF && pos+read == v.film.Size:
			return read, nil
		case err == io.EOF:
			return read, io.ErrUnexpectedEOF
		case err != nil:
			return read, err
		}
		if wait := p.full(); wait > 0 {
			sleep(ctx, wait)
			p.advance(time.Now())
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
