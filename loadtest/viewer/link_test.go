package viewer

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/blindrelay/blindrelay/loadtest/origin"
	"github.com/blindrelay/blindrelay/loadtest/result"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// link is a path to a handler that carries content at a rate in virtual time.
// Playlists and initialization sections take no time, so that a test's sums
// come out even.
type link struct {
	handler http.Handler
	steps   []step // ascending
	start   time.Time

	handlers sync.WaitGroup
	bodies   atomic.Int64 // not closed

	mu   sync.Mutex
	free time.Time // when everything that was sent has arrived
}

// step is the rate from a time since the link's start on.
type step struct {
	at   time.Duration
	rate float64 // bytes/s; 0: an outage
}

// How many bytes a link hands over at once.
const (
	carryMost    = 250 // of files and tracks, which count as they arrive
	carrySegment = 1000
)

// carry returns when n more bytes will have arrived.
func (l *link) carry(n int) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); l.free.Before(now) {
		l.free = now
	}
	left := float64(n)
	for i, s := range l.steps {
		until := l.start.Add(forever)
		if i+1 < len(l.steps) {
			until = l.start.Add(l.steps[i+1].at)
		}
		if !l.free.Before(until) {
			continue
		}
		if room := s.rate * until.Sub(l.free).Seconds(); room < left {
			left -= room
			l.free = until
			continue
		}
		l.free = l.free.Add(time.Duration(left / s.rate * 1e9))
		break
	}
	return l.free
}

func (l *link) RoundTrip(req *http.Request) (*http.Response, error) {
	r, w := io.Pipe()
	a := &answer{header: make(http.Header), begun: make(chan struct{}), body: w}
	l.handlers.Go(func() {
		l.handler.ServeHTTP(a, req)
		a.WriteHeader(http.StatusOK)
		w.Close()
	})
	select {
	case <-a.begun:
	case <-req.Context().Done():
		r.CloseWithError(req.Context().Err())
		return nil, req.Context().Err()
	}
	l.bodies.Add(1)
	most := 0
	switch path := req.URL.Path; {
	case len(l.steps) == 0 || strings.HasSuffix(path, ".m3u8"):
	case strings.HasSuffix(path, ".m4s"):
		most = carrySegment
	case strings.HasPrefix(path, "/film/"), strings.HasPrefix(path, "/music/"):
		most = carryMost
	}
	length, err := strconv.ParseInt(a.header.Get("Content-Length"), 10, 64)
	if err != nil {
		length = -1
	}
	return &http.Response{
		StatusCode: a.status, Header: a.header, Request: req, ContentLength: length,
		Body: &linkBody{PipeReader: r, link: l, req: req, most: most},
	}, nil
}

// answer is the handler's end of a response.
type answer struct {
	header http.Header
	status int
	begun  chan struct{} // closed by the handler with its header
	once   sync.Once
	body   *io.PipeWriter
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	a.once.Do(func() {
		a.status = status
		close(a.begun)
	})
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

// linkBody is the viewer's end.
type linkBody struct {
	*io.PipeReader
	link   *link
	req    *http.Request
	most   int // bytes of one Read; 0: as they come, without taking time
	closed bool
}

func (b *linkBody) Read(p []byte) (int, error) {
	if b.most > 0 {
		p = p[:min(len(p), b.most)]
	}
	n, err := b.PipeReader.Read(p)
	if n > 0 && b.most > 0 {
		t := time.NewTimer(time.Until(b.link.carry(n)))
		defer t.Stop()
		select {
		case <-t.C:
		case <-b.req.Context().Done():
		}
	}
	if b.req.Context().Err() != nil {
		return 0, b.req.Context().Err()
	}
	return n, err
}

func (b *linkBody) Close() error {
	if !b.closed {
		b.closed = true
		b.link.bodies.Add(-1)
	}
	return b.PipeReader.Close()
}

// rung is the bitrate of most tests: 25 kB/s.
const rungRate = 200_000

// view is a viewer with its path in a bubble.
type view struct {
	origin origin.Config // without Bitrates: one rung of rungRate and equal segments
	viewer Config        // without what can be derived
	steps  []step        // of the path; none: as fast as it goes
	wrap   func(http.Handler) http.Handler
	during time.Duration
	each   func(v *Viewer) // called each second
}

// run watches and returns what was recorded. It fails the test if a response
// was left open.
func (w view) run(t *testing.T) *result.Result {
	t.Helper()
	if w.origin.Bitrates == nil {
		w.origin.Bitrates = []int64{rungRate}
		w.origin.Spread = -1
	}
	o, err := origin.New(w.origin)
	if err != nil {
		t.Fatal(err)
	}
	l := &link{handler: o, steps: w.steps, start: time.Now()}
	if w.wrap != nil {
		l.handler = w.wrap(o)
	}
	rec := result.NewRecorder()
	cfg := w.viewer
	if cfg.URL == "" {
		cfg.URL = "http://home" + cfg.Kind.Path(rungRate)
		cfg.Verify = o
	}
	if cfg.Kind == Progressive {
		cfg.Bitrate = rungRate
	}
	if cfg.Client == nil {
		cfg.Client = &http.Client{Transport: l}
	}
	cfg.Recorder = rec
	v, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := contextFor(w.during)
	defer cancel()
	done := make(chan struct{}) // closed when Run has returned
	go func() {
		defer close(done)
		v.Run(ctx)
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(time.Second):
			if w.each != nil {
				w.each(v)
			}
		}
	}
	l.handlers.Wait()
	if n := l.bodies.Load(); n != 0 {
		t.Errorf("%d responses were not closed", n)
	}
	if s := v.State(); s.Phase != Over {
		t.Errorf("after Run the phase is %d", s.Phase)
	}
	return rec.Result()
}

// times returns a path with the given multiple of the bitrate.
func times(factor float64) []step { return []step{{0, factor * rungRate / 8}} }

// bubble runs f in virtual time, half a second after a live segment is complete.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(500 * time.Millisecond)
		f(t)
	})
}

func mustOrigin(t testing.TB, seed uint64) *origin.Origin {
	t.Helper()
	o, err := origin.New(origin.Config{Seed: seed, Bitrates: []int64{rungRate}, Spread: -1})
	if err != nil {
		t.Fatal(err)
	}
	return o
}
