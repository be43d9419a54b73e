package loadtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/crypto/endpoint"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/loadtest/origin"
	"github.com/blindrelay/blindrelay/loadtest/probe"
	"github.com/blindrelay/blindrelay/loadtest/result"
	"github.com/blindrelay/blindrelay/loadtest/rig"
	"github.com/blindrelay/blindrelay/loadtest/slo"
	"github.com/blindrelay/blindrelay/loadtest/viewer"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// Target is what a scenario is run against.
type Target struct {
	Relay *wire.Relay // agents and devices are made here; or
	// Ticket makes what Relay is shown for each agent's route; nil: it admits
	// every agent.
	Ticket func(wire.Route) (string, error)
	Invite *pair.Invite // of a server that somebody shares: all viewers are one device; or
	URL    string       // any HTTP path that ends at a synthetic origin or a media server
	Path   string       // with Invite and URL: what viewers ask for, like /movie/master.m3u8; empty: what a synthetic origin has
	// Probe reads what the relay takes; nil: it is not looked at.
	Probe probe.Probe
	// RelayAt names the relay where several machines load it, so that their
	// results count it once; empty: nobody else does.
	RelayAt string
	Log     *slog.Logger // of the endpoints; nil: nothing is logged
	// Live is called once with a function that tells how the run is going; it
	// runs beside the run and returns when its context ends. Nil: nobody looks.
	Live func(ctx context.Context, snapshot func() Snapshot)
}

// connectors is how many devices are paired at the same time.
const connectors = 8

// run is a scenario in progress.
type run struct {
	scenario   Scenario
	target     Target
	origin     *origin.Origin // what the bytes must be; nil: nobody knows
	rig        *rig.Rig
	rec        *result.Recorder
	objectives slo.Objectives

	mu      sync.Mutex
	began   time.Time
	viewers []*viewer.Viewer
	latest  result.Sample
	arrived sync.WaitGroup
}

// Run runs a scenario. If ctx ends early the result is of what was seen until
// then. An error means that there is no result.
func Run(ctx context.Context, s Scenario, t Target) (*result.Result, error) {
	return runWith(ctx, s, t, originConfig(s))
}

// runWith runs a scenario whose viewers watch what the origin has.
func runWith(ctx context.Context, s Scenario, t Target, films origin.Config) (*result.Result, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	r := &run{scenario: s, target: t, rec: result.NewRecorder()}
	var err error
	if s.SLO != "" {
		if r.objectives, err = slo.Parse(s.SLO); err != nil {
			return nil, err
		}
	}
	if t.Path == "" {
		if r.origin, err = origin.New(films); err != nil {
			return nil, err
		}
	}
	r.rig, err = rig.New(rig.Config{
		Relay: t.Relay, Ticket: t.Ticket, Invite: t.Invite, URL: t.URL, ViewersPerHome: s.ViewersPerHome,
		DeviceLink: s.Link, HomeLink: s.HomeLink, Seed: s.Seed, Origin: r.origin, Log: t.Log,
	})
	if err != nil {
		return nil, err
	}
	defer r.rig.Close()
	if s.Arrivals > 0 {
		return r.open(ctx)
	}
	return r.closed(ctx)
}

// originConfig has every bitrate that the scenario names as a rung.
func originConfig(s Scenario) origin.Config {
	cfg := origin.Config{Seed: s.Seed}
	for _, g := range s.Groups {
		if g.Adaptive {
			cfg.Bitrates = append(cfg.Bitrates, 1_000_000, 2_500_000, 5_000_000, 8_000_000, 16_000_000)
		}
		if g.Bitrate > 0 {
			cfg.Bitrates = append(cfg.Bitrates, int64(g.Bitrate))
		}
	}
	slices.Sort(cfg.Bitrates)
	cfg.Bitrates = slices.Compact(cfg.Bitrates)
	return cfg
}

// closed connects every viewer first and then lets them arrive over the ramp.
func (r *run) closed(ctx context.Context) (*result.Result, error) {
	groups := r.shuffled()
	accesses := make([]*rig.Access, len(groups))
	defer func() {
		for _, a := range accesses {
			if a != nil {
				a.Close()
			}
		}
	}()
	if err := each(len(groups), connectors, func(i int) (err error) {
		accesses[i], err = r.connect(ctx, i)
		return err
	}); err != nil {
		return nil, err
	}
	return r.measure(ctx, r.scenario.Ramp+r.scenario.Duration, func(ctx context.Context) {
		for i, g := range groups {
			due := r.began.Add(r.scenario.Ramp * time.Duration(i) / time.Duration(len(groups)))
			if !sleepUntil(ctx, due) {
				return
			}
			r.watch(ctx, i, g, accesses[i], due)
		}
	})
}

// open lets viewers arrive by chance. Each connects when it arrives, and its
// start-up counts from when it was due, so that a path which holds arrivals up
// cannot hide it.
func (r *run) open(ctx context.Context) (*result.Result, error) {
	groups := r.shuffled()
	chance := rand.New(rand.NewPCG(r.scenario.Seed, 2))
	return r.measure(ctx, r.scenario.Duration, func(ctx context.Context) {
		due := r.began
		for i := range maxViewers {
			due = due.Add(time.Duration(chance.ExpFloat64() / r.scenario.Arrivals * float64(time.Second)))
			if !sleepUntil(ctx, due) {
				return
			}
			due := due // of this viewer
			r.arrived.Go(func() {
				a, err := r.connect(ctx, i)
				if err != nil {
					if ctx.Err() == nil {
						r.rec.Error("connect")
						r.rec.Add(func(v *result.Viewers) { v.Arrived++ })
					}
					return
				}
				defer a.Close()
				g := groups[i%len(groups)]
				r.viewer(i, g, a, due).Run(urgent(ctx, g))
			})
		}
	})
}

func (r *run) connect(ctx context.Context, i int) (*rig.Access, error) {
	a, err := r.rig.Access(ctx, i)
	if err == nil && a.Connect > 0 {
		r.rec.Hist(result.HistConnect).Record(a.Connect)
		r.rec.Add(func(v *result.Viewers) { v.Connects++ })
	}
	return a, err
}

// watch lets one viewer watch in a goroutine that measure waits for.
func (r *run) watch(ctx context.Context, i int, g Group, a *rig.Access, due time.Time) {
	v := r.viewer(i, g, a, due)
	r.arrived.Go(func() { v.Run(urgent(ctx, g)) })
}

// urgent returns the context of a group's viewers, whose connections say to the
// relay what they are for.
func urgent(ctx context.Context, g Group) context.Context {
	if g.Kind == viewer.Bulk {
		return endpoint.WithUrgency(ctx, wire.Bulk)
	}
	return ctx
}

func (r *run) viewer(i int, g Group, a *rig.Access, due time.Time) *viewer.Viewer {
	path := r.target.Path
	if path == "" {
		path = g.Kind.Path(int64(g.Bitrate))
	}
	v, err := viewer.New(viewer.Config{
		Kind: g.Kind, URL: a.Base + path, Bitrate: int64(g.Bitrate), Adaptive: g.Adaptive,
		Verify: r.origin, Client: a.Client, Recorder: r.rec, Log: r.target.Log,
		Due: due, Repeat: true, PauseEvery: g.PauseEvery, LeaveAfter: g.LeaveAfter,
		Seed: r.scenario.Seed + uint64(i),
	})
	if err != nil {
		panic(fmt.Sprintf("a viewer of a checked scenario: %v", err))
	}
	r.mu.Lock()
	r.viewers = append(r.viewers, v)
	r.mu.Unlock()
	return v
}

// shuffled returns the group of each viewer, mixed by the seed, so that no home
// has all of a kind.
func (r *run) shuffled() []Group {
	var all []Group
	for _, g := range r.scenario.Groups {
		for range g.Viewers {
			all = append(all, g)
		}
	}
	rand.New(rand.NewPCG(r.scenario.Seed, 1)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// measure runs arrive for at most d, with the sampler and the live view beside
// it, and makes the result.
func (r *run) measure(ctx context.Context, d time.Duration, arrive func(context.Context)) (*result.Result, error) {
	r.began = time.Now()
	watching, stop := context.WithTimeout(ctx, d)
	defer stop()
	observing, leave := context.WithCancel(context.Background())
	defer leave()
	var observers sync.WaitGroup
	sampler := newSampler(r)
	observers.Go(func() { sampler.run(observing) })
	observers.Go(func() { recordLateness(observing, r.rec.Hist(result.HistDelay)) })
	if r.target.Live != nil {
		observers.Go(func() { r.target.Live(observing, r.snapshot) })
	}
	arrive(watching)
	<-watching.Done()
	r.arrived.Wait()
	took := time.Since(r.began)
	leave()
	observers.Wait()

	res := r.rec.Result()
	res.Schema, res.Started, res.Took = result.Schema, r.began, took
	res.Title, res.Scenario, res.Machine = r.scenario.Title, r.scenario, machine()
	sampler.totals(res)
	res.SLO = r.objectives.Evaluate(res)
	res.RelayAt = r.target.RelayAt
	return res, nil
}

// each calls f for 0 to n-1, some at a time, and returns the errors.
func each(n, atOnce int, f func(i int) error) error {
	var wait sync.WaitGroup
	room := make(chan struct{}, atOnce) // a value for each call that runs
	errs := make([]error, n)
	for i := range n {
		room <- struct{}{}
		wait.Go(func() {
			defer func() { <-room }()
			errs[i] = f(i)
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// sleepUntil reports whether ctx was still good at t.
func sleepUntil(ctx context.Context, t time.Time) bool {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
