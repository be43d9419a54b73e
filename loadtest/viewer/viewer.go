// Package viewer is a player without a screen: it fetches playlists and
// segments over any path that ends in HTTP, keeps a buffer, plays it in real
// time, and counts what a person in front of it would have seen.
//
//	v, err := viewer.New(viewer.Config{Kind: viewer.VOD, URL: "http://home/vod/master.m3u8",
//		Bitrate: 8_000_000, Verify: origin, Client: client, Recorder: rec})
//	go v.Run(ctx)
//	...
//	s := v.State()
//
// A request that fails is counted and made again after a second. What the
// viewer saw is counted whatever happens: a stall that lasts when it leaves, a
// first picture that never came, a film that it gave up on.
package viewer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/origin"
	"github.com/blindrelay/blindrelay/loadtest/result"
)

// Kind is what a viewer watches and how.
type Kind string

// Kinds. Where a buffer is named, the next request is made as soon as no more
// than that is ahead of the picture.
const (
	VOD         Kind = "vod"         // an HLS film, with 30 s of buffer
	Live        Kind = "live"        // an HLS channel, three segments behind its newest
	Progressive Kind = "progressive" // one long response, read at the bitrate, with 10 s of buffer
	Seek        Kind = "seek"        // as VOD, with a jump after each 4 to 12 s of picture, which aborts what is on its way; the wait that follows counts as a start-up
	Bulk        Kind = "bulk"        // one long response as fast as it goes, without a player
	Music       Kind = "music"       // a playlist of whole tracks; the next is fetched when 30 s are left
)

// plan is how a kind's player behaves.
type plan struct {
	start  time.Duration // content ahead when the picture first moves, and after a jump
	resume time.Duration // content ahead when it moves again after a stall
	goal   time.Duration // content ahead at which nothing is requested; live has what there is
	smooth bool          // content counts as it arrives, not when its segment is whole
}

// plans holds the kinds. The thresholds of HLS are the long-time defaults of
// ExoPlayer (2.5 s and 5 s), those of live fit its shorter buffer.
func plans(k Kind) (plan, bool) {
	switch k {
	case VOD, Seek:
		return plan{start: 2500 * time.Millisecond, resume: 5 * time.Second, goal: 30 * time.Second}, true
	case Live:
		return plan{start: 2 * time.Second, resume: 4 * time.Second, goal: forever}, true
	case Progressive:
		return plan{start: 2500 * time.Millisecond, resume: 5 * time.Second, goal: 10 * time.Second, smooth: true}, true
	case Music:
		return plan{start: time.Second, resume: 2 * time.Second, goal: 30 * time.Second, smooth: true}, true
	case Bulk:
		return plan{}, true
	}
	return plan{}, false
}

// Path returns where an [origin.Origin] keeps what the kind watches; bitrate
// is one of its rungs, in bit/s.
func (k Kind) Path(bitrate int64) string {
	switch k {
	case Live:
		return origin.Live
	case Progressive, Bulk:
		return origin.FilmPath(bitrate)
	case Music:
		return origin.Album
	}
	return origin.VOD
}

// Config says who watches what.
type Config struct {
	Kind Kind

	// URL of a master or media playlist, or of the file in Progressive and
	// Bulk. Playlists and redirects may only name resources of the same host:
	// load goes where it was told to go and nowhere else.
	URL string

	// Bitrate chooses the rung of VOD, Live and Seek: the highest whose average
	// is not above it; 0: the highest. In Progressive it is the film's, in
	// bit/s, and must be given.
	Bitrate  int64
	Adaptive bool // choose the rung by throughput instead, beginning with the lowest

	// Buffer replaces the kind's own: the next request is made as soon as no
	// more than this is ahead of the picture. Live and Bulk have none. It is at
	// least what ends a stall, 5 s for a film; 0: the kind's.
	Buffer time.Duration

	// Verify is the origin whose bytes are expected, by the path of each
	// request; nil: nothing is verified.
	Verify *origin.Origin

	// Client carries the requests. It must have no Timeout, which would end
	// long responses. The viewer closes every response and leaves idle
	// connections to the Client's owner.
	Client   *http.Client
	Recorder *result.Recorder
	Log      *slog.Logger // of failed requests, at level debug; nil: not logged

	Due        time.Time     // when the viewer should have arrived, from which start-up counts; zero: when Run is called
	Repeat     bool          // watch again when the film is over; false: Run returns then
	PauseEvery time.Duration // mean of picture between pauses, exponentially distributed; 0: no pauses
	PauseFor   time.Duration // mean of a pause; 0: 10 s
	LeaveAfter time.Duration // mean of a visit, exponentially distributed; 0: stays
	Seed       uint64        // of the random choices
	Retries    int           // requests for the same piece after the first, before the viewer gives up; 0: 30
}

// Viewer watches once.
type Viewer struct {
	// set at construction
	cfg  Config
	plan plan
	base *url.URL
	rand *rand.Rand // Run's until it starts behave, then behave's

	// owned by Run
	buf     []byte
	path    throughput
	flushed result.Viewers // what the recorder already has of the viewer's doing
	flushAt time.Time

	wake  chan struct{} // sent to by whoever changes the player from outside the fetching loop; one is enough to look again
	moves chan struct{} // sent to when the picture begins to move; one is enough to look again

	bytes  atomic.Int64
	counts counts // of Run

	mu sync.Mutex
	// guarded by mu
	player player
	next   int                // in VOD, Seek and Music: index of the segment to fetch
	total  int                // of segments; 0 before the playlist is known
	abort  context.CancelFunc // ends the running request; nil: there is none
}

// counts is what Run counts apart from the player.
type counts struct {
	verified, corrupt, requests, switches int64
}

// New returns a Viewer, or an error that names what in cfg cannot be.
func New(cfg Config) (*Viewer, error) {
	p, ok := plans(cfg.Kind)
	if !ok {
		return nil, fmt.Errorf("viewer: no kind is called %q; there are vod, live, progressive, seek, bulk and music", cfg.Kind)
	}
	base, err := url.Parse(cfg.URL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("viewer: %w", err)
	case base.Scheme != "http" && base.Scheme != "https" || base.Host == "":
		return nil, fmt.Errorf("viewer: %q is no http:// or https:// address", cfg.URL)
	case cfg.Client == nil || cfg.Recorder == nil:
		return nil, errors.New("viewer: a client and a recorder are needed")
	case cfg.Client.Timeout != 0:
		return nil, errors.New("viewer: the client's timeout would end long responses")
	case cfg.Kind == Progressive && cfg.Bitrate == 0:
		return nil, errors.New("viewer: progressive needs the film's bitrate")
	case cfg.Buffer != 0 && (cfg.Kind == Live || cfg.Kind == Bulk):
		return nil, fmt.Errorf("viewer: %s has no buffer of a length", cfg.Kind)
	case cfg.Buffer != 0 && cfg.Buffer < p.resume:
		return nil, fmt.Errorf("viewer: a buffer of %v, but a stall ends at %v", cfg.Buffer, p.resume)
	case cfg.Bitrate < 0 || cfg.PauseEvery < 0 || cfg.PauseFor < 0 || cfg.LeaveAfter < 0 || cfg.Retries < 0:
		return nil, errors.New("viewer: a time or number is negative")
	}
	if cfg.Buffer > 0 {
		p.goal = cfg.Buffer
	}
	if cfg.PauseFor == 0 {
		cfg.PauseFor = 10 * time.Second
	}
	if cfg.Retries == 0 {
		cfg.Retries = 30
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Viewer{
		cfg: cfg, plan: p, base: base,
		rand:  rand.New(rand.NewPCG(cfg.Seed, 0)),
		path:  newThroughput(),
		wake:  make(chan struct{}, 1),
		moves: make(chan struct{}, 1),
	}, nil
}

// State is what a viewer sees at one moment.
type State struct {
	Phase  Phase
	Ahead  time.Duration // content in the buffer
	Bytes  int64         // of content received so far
	Stalls int64         // begun so far
}

// State may be called at any time, from any goroutine. Before Run and after it
// the Phase is Over.
func (v *Viewer) State() State {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := State{Phase: Over, Bytes: v.bytes.Load(), Stalls: v.player.stalls}
	if v.player.now.IsZero() || v.player.phase == Over {
		return s
	}
	v.player.advance(time.Now())
	s.Phase, s.Ahead, s.Stalls = v.player.phase, v.player.ahead, v.player.stalls
	if v.cfg.Kind == Bulk && s.Bytes > 0 {
		s.Phase = Playing
	}
	return s
}

// Run watches until the film is over, the viewer leaves, or ctx ends. It is
// called once. One that gave up stays before its dark screen, and the stall
// counts, until it would have left.
func (v *Viewer) Run(ctx context.Context) {
	now := time.Now()
	due := v.cfg.Due
	if due.IsZero() {
		due = now
	}
	v.buf = make([]byte, chunk)
	v.mu.Lock()
	v.player = player{startAt: v.plan.start, resumeAt: v.plan.resume, now: now, since: due, picture: v.onPicture, stall: v.onStall}
	v.mu.Unlock()
	v.cfg.Recorder.Add(func(r *result.Viewers) { r.Arrived++ })

	stay := ctx
	if v.cfg.LeaveAfter > 0 {
		var cancel context.CancelFunc
		stay, cancel = context.WithTimeout(ctx, v.exponential(v.cfg.LeaveAfter))
		defer cancel()
	}
	watching, stop := context.WithCancel(stay)
	var behaves sync.WaitGroup
	behaves.Go(func() { v.behave(watching) })

	err := v.watch(watching)
	gaveUp := err != nil && watching.Err() == nil
	stop()
	behaves.Wait()
	if gaveUp {
		v.cfg.Log.Debug("viewer gave up", "kind", string(v.cfg.Kind), "err", err)
		v.flush(time.Now())
		<-stay.Done()
	}
	v.finish(stay.Err() != nil && ctx.Err() == nil)
}

// watch returns nil when the film is over.
func (v *Viewer) watch(ctx context.Context) error {
	if v.cfg.Kind == Progressive || v.cfg.Kind == Bulk {
		return v.watchFile(ctx)
	}
	l, err := v.openLadder(ctx)
	switch {
	case err != nil:
		return err
	case v.cfg.Kind == Live:
		return v.watchLive(ctx, l)
	}
	return v.watchSegments(ctx, l)
}

// finish counts what is not counted yet.
func (v *Viewer) finish(left bool) {
	v.mu.Lock()
	waits := v.player.phase == Starting && v.cfg.Kind != Bulk
	since := v.player.since
	now := time.Now()
	v.player.finish(now)
	v.mu.Unlock()
	// Who waited long and saw nothing must not be missing among the start-up
	// times. Who came just before the end says nothing about them.
	if wait := now.Sub(since); waits && wait >= quiet {
		v.cfg.Recorder.Hist(result.HistStart).Record(wait)
	}
	v.flush(now)
	if left {
		v.cfg.Recorder.Add(func(r *result.Viewers) { r.Left++ })
	}
}

// onPicture is the player's, with mu held.
func (v *Viewer) onPicture(wait time.Duration) {
	v.cfg.Recorder.Hist(result.HistStart).Record(wait)
	nudge(v.moves)
}

// onStall is the player's, with mu held.
func (v *Viewer) onStall(length time.Duration) {
	v.cfg.Recorder.Hist(result.HistStall).Record(length)
}

// nudge sends to a channel of capacity one unless something waits there.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// flush adds what the viewer has seen since the last time to the recorder.
func (v *Viewer) flush(now time.Time) {
	v.mu.Lock()
	v.player.advance(now)
	p := &v.player
	is := result.Viewers{
		Watched: p.watched, Stalls: p.stalls, Stalled: p.stalled, Longest: p.longest,
		Bytes: v.bytes.Load(), Verified: v.counts.verified, Corrupt: v.counts.corrupt,
		Requests: v.counts.requests, Switches: v.counts.switches,
	}
	if p.started || v.cfg.Kind == Bulk && is.Bytes > 0 {
		is.Started = 1
	}
	v.mu.Unlock()
	was := v.flushed
	v.flushed, v.flushAt = is, now
	v.cfg.Recorder.Add(func(r *result.Viewers) {
		r.Started += is.Started - was.Started
		r.Watched += is.Watched - was.Watched
		r.Stalls += is.Stalls - was.Stalls
		r.Stalled += is.Stalled - was.Stalled
		r.Longest = max(r.Longest, is.Longest)
		r.Bytes += is.Bytes - was.Bytes
		r.Verified += is.Verified - was.Verified
		r.Corrupt += is.Corrupt - was.Corrupt
		r.Requests += is.Requests - was.Requests
		r.Switches += is.Switches - was.Switches
	})
}
