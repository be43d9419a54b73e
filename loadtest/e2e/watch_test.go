//go:build e2e && linux

package e2e

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/origin"
	loadresult "github.com/blindrelay/blindrelay/loadtest/result"
	"github.com/blindrelay/blindrelay/loadtest/viewer"
)

// download is one response of an origin.Film that is read as fast as it comes.
type download struct {
	film     origin.Film
	connects *atomic.Int64 // that its client made
	done     chan struct{} // closed when the response has ended; err and sum are set before

	err error
	sum [sha256.Size]byte

	mu      sync.Mutex
	bytes   int64
	last    time.Time     // when bytes came last
	longest time.Duration // without a byte, since the last call of gap
}

// startDownload requests a film in the device's namespace.
func startDownload(t *testing.T, n *internet, url string, film origin.Film) *download {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d := &download{film: film, done: make(chan struct{}), last: time.Now()}
	var client *http.Client
	client, d.connects = n.client(t)
	go func() {
		defer close(d.done)
		d.err = d.read(ctx, client, url)
	}()
	t.Cleanup(func() { cancel(); <-d.done })
	return d
}

func (d *download) read(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK || res.ContentLength != d.film.Size {
		return fmt.Errorf("status %s with %d bytes, want 200 and %d", res.Status, res.ContentLength, d.film.Size)
	}
	h, b := sha256.New(), make([]byte, 64<<10)
	for at := int64(0); ; {
		n, err := res.Body.Read(b)
		d.arrived(n)
		if wrong := d.film.Verify(b[:n], at); wrong != nil {
			return wrong
		}
		h.Write(b[:n])
		at += int64(n)
		if err == io.EOF && at == d.film.Size {
			h.Sum(d.sum[:0])
			return nil
		}
		if err != nil {
			return fmt.Errorf("the stream broke after %d of %d bytes: %w", at, d.film.Size, err)
		}
	}
}

func (d *download) arrived(n int) {
	if n == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	d.longest = max(d.longest, now.Sub(d.last))
	d.last = now
	d.bytes += int64(n)
}

func (d *download) got() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bytes
}

// gap returns the longest time without a byte since the last call, one that
// still lasts included.
func (d *download) gap() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	longest := max(d.longest, time.Since(d.last))
	d.longest = 0
	return longest
}

// over returns nil while the response goes on, and then why it does not.
func (d *download) over() error {
	select {
	case <-d.done:
	default:
		return nil
	}
	if d.err != nil {
		return d.err
	}
	return errors.New("the download was over before the disturbance was: give it more bytes with -download")
}

// sumOf returns the SHA-256 of a film.
func sumOf(f origin.Film) (sum [sha256.Size]byte) {
	h := sha256.New()
	_, _ = io.Copy(h, io.NewSectionReader(f, 0, f.Size)) // neither can fail
	h.Sum(sum[:0])
	return sum
}

// The player has a buffer of 10 s: it requests the next segment of 4 s when no
// more than that is ahead.
const (
	playerRate   = 8_000_000 // bit/s
	playerBuffer = 10 * time.Second
	playerFull   = playerBuffer + 3*time.Second // ahead when a segment came a moment ago
)

// player is a viewer of an HLS film in the device's namespace.
type player struct {
	viewer *viewer.Viewer
	rec    *loadresult.Recorder

	mu    sync.Mutex
	full  bool          // it has had a full buffer
	least time.Duration // ahead since then
}

func startPlayer(t *testing.T, n *internet, base string, films *origin.Origin) *player {
	t.Helper()
	p := &player{rec: loadresult.NewRecorder()}
	client, _ := n.client(t)
	var err error
	p.viewer, err = viewer.New(viewer.Config{
		Kind: viewer.VOD, URL: base + origin.VOD[1:], Bitrate: playerRate, Buffer: playerBuffer,
		Verify: films, Client: client, Recorder: p.rec,
	})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { p.viewer.Run(ctx) })
	wait.Go(func() { p.look(ctx) })
	t.Cleanup(func() { cancel(); wait.Wait() })
	return p
}

// look follows the buffer until ctx ends.
func (p *player) look(ctx context.Context) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		ahead := p.viewer.State().Ahead
		p.mu.Lock()
		switch {
		case p.full:
			p.least = min(p.least, ahead)
		case ahead >= playerFull:
			p.full, p.least = true, ahead
		}
		p.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// ready reports whether the buffer is full now.
func (p *player) ready() bool { return p.viewer.State().Ahead >= playerFull }

// lowest returns the least that was ahead since the buffer was full first.
func (p *player) lowest() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.least
}

// check fails the test if a person in front of the player has seen anything.
func (p *player) check(t *testing.T) {
	t.Helper()
	if n := p.viewer.State().Stalls; n > 0 {
		t.Errorf("the film stalled %d times", n)
	}
	if errs := p.rec.Result().Errors; len(errs) > 0 {
		t.Errorf("the player's requests failed: %v", errs)
	}
}
