package loadtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/crowd"
	"github.com/blindrelay/blindrelay/loadtest/probe"
	"github.com/blindrelay/blindrelay/loadtest/result"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// AgentsConfig says how many agents do what at a relay.
type AgentsConfig struct {
	Relay  wire.Relay
	Ticket func(wire.Route) (string, error) // as Target has it
	Agents int
	AtOnce int         // attempts at the same time; 0: 64
	Probe  probe.Probe // of the relay; nil: it is not looked at
	// Settle is how long the relay is let be before it is looked at, so that it
	// forgets what has ended and gives memory back; 0: not at all.
	Settle time.Duration
}

func (c *AgentsConfig) check() error {
	if c.AtOnce == 0 {
		c.AtOnce = 64
	}
	if c.Agents < 1 || c.Agents > 100_000 || c.AtOnce < 1 {
		return fmt.Errorf("%d agents, %d at once: from 1 to 100,000 agents, at least one at once", c.Agents, c.AtOnce)
	}
	return nil
}

func (c *AgentsConfig) usage(ctx context.Context) (self, relay result.Usage, err error) {
	if self, err = (probe.Self{}).Usage(ctx); err != nil || c.Probe == nil {
		return self, relay, err
	}
	relay, err = c.Probe.Usage(ctx)
	return self, relay, err
}

// Idle is what agents cost that do nothing.
type Idle struct {
	Agents         int           `json:"agents"` // registered
	Failed         int           `json:"failed"`
	Took           time.Duration `json:"took_ns"`         // to register all
	RelayPerAgent  int64         `json:"relay_per_agent"` // resident bytes; 0 if not looked at
	LoadPerAgent   int64         `json:"load_per_agent"`  // of blindload
	RelayCPUSecond float64       `json:"relay_cpu_share"` // of one core, while nothing happens
	Stayed         int           `json:"stayed"`          // still registered at the end
}

// MeasureIdle registers agents, lets them be for as long as cfg.Settle, and
// says what they cost.
func MeasureIdle(ctx context.Context, cfg AgentsConfig) (*Idle, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	c := crowd.New(cfg.Relay, cfg.Ticket, result.NewRecorder())
	defer c.Close()
	if err := c.Prepare(cfg.Agents); err != nil {
		return nil, err
	}
	selfBefore, relayBefore, err := cfg.usage(ctx)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	failed, err := c.Join(ctx, cfg.Agents, cfg.AtOnce)
	if failed == cfg.Agents || ctx.Err() != nil {
		return nil, err
	}
	r := &Idle{Agents: cfg.Agents - failed, Failed: failed, Took: time.Since(begin)}
	half := cfg.Settle / 2
	// What registering left behind is given back in the first half; the second
	// is the idle CPU.
	if !sleepUntil(ctx, time.Now().Add(half)) {
		return nil, ctx.Err()
	}
	_, relayMiddle, err := cfg.usage(ctx)
	if err != nil {
		return nil, err
	}
	if !sleepUntil(ctx, time.Now().Add(half)) {
		return nil, ctx.Err()
	}
	selfAfter, relayAfter, err := cfg.usage(ctx)
	if err != nil {
		return nil, err
	}
	n := int64(r.Agents)
	r.LoadPerAgent = (selfAfter.Memory - selfBefore.Memory) / n
	if cfg.Probe != nil {
		r.RelayPerAgent = (relayAfter.Memory - relayBefore.Memory) / n
		r.RelayCPUSecond = (relayAfter.CPU - relayMiddle.CPU).Seconds() / max(half, time.Millisecond).Seconds()
	}
	r.Stayed = c.Size()
	return r, nil
}

// Storm is how a relay takes all its agents coming at once.
type Storm struct {
	Agents    int           `json:"agents"`
	Failed    int           `json:"failed"`
	All       time.Duration `json:"all_ns"` // until the last was registered
	P50       time.Duration `json:"p50_ns"` // of the agents' own times
	P99       time.Duration `json:"p99_ns"`
	PerSecond float64       `json:"per_second"`
	RelayCPU  time.Duration `json:"relay_cpu_ns"` // for all of it; 0 if not looked at
}

// MeasureStorm registers agents, ends all their sessions at the same moment,
// and lets all of them come back at once, without a pause between attempts that
// real agents would make.
func MeasureStorm(ctx context.Context, cfg AgentsConfig) (*Storm, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	rec := result.NewRecorder()
	c := crowd.New(cfg.Relay, cfg.Ticket, rec)
	defer c.Close()
	if failed, err := c.Join(ctx, cfg.Agents, cfg.AtOnce); failed > 0 || err != nil {
		return nil, fmt.Errorf("%d of %d agents could not register before the storm: %w", failed, cfg.Agents, err)
	}
	c.Leave()
	_, before, err := cfg.usage(ctx)
	if err != nil {
		return nil, err
	}
	storm := result.NewRecorder()
	c.Record(storm)
	begin := time.Now()
	failed, err := c.Join(ctx, cfg.Agents, cfg.Agents)
	if ctx.Err() != nil {
		return nil, err
	}
	s := &Storm{Agents: cfg.Agents, Failed: failed, All: time.Since(begin)}
	_, after, err := cfg.usage(ctx)
	if err != nil {
		return nil, err
	}
	h := storm.Hist(result.HistConnect)
	s.P50, s.P99 = h.Quantile(0.5), h.Quantile(0.99)
	s.PerSecond = float64(cfg.Agents-failed) / s.All.Seconds()
	s.RelayCPU = after.CPU - before.CPU
	return s, nil
}

// Churn is what is left at a relay after agents came and went.
type Churn struct {
	Rounds int          `json:"rounds"`
	Joined int          `json:"joined"`
	Failed int          `json:"failed"`
	Before result.Usage `json:"before"` // of the relay, after a first round and a pause
	After  result.Usage `json:"after"`  // of the relay, after the last and a pause
}

// MeasureChurn lets a random part of the agents come and go, round after
// round, for as long as d.
func MeasureChurn(ctx context.Context, cfg AgentsConfig, d time.Duration) (*Churn, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Probe == nil {
		return nil, errors.New("churn looks at the relay before and after: give its ops address or process number")
	}
	c := crowd.New(cfg.Relay, cfg.Ticket, result.NewRecorder())
	defer c.Close()
	round := func(n int) (int, error) {
		failed, err := c.Join(ctx, n, cfg.AtOnce)
		c.Leave()
		if ctx.Err() != nil {
			return failed, err
		}
		return failed, nil
	}
	settled := func() (result.Usage, error) {
		if !sleepUntil(ctx, time.Now().Add(cfg.Settle)) {
			return result.Usage{}, ctx.Err()
		}
		_, relay, err := cfg.usage(ctx)
		return relay, err
	}
	if _, err := round(cfg.Agents); err != nil {
		return nil, err
	}
	r := &Churn{}
	var err error
	if r.Before, err = settled(); err != nil {
		return nil, err
	}
	chance := rand.New(rand.NewPCG(1, 1))
	for end := time.Now().Add(d); time.Now().Before(end); r.Rounds++ {
		n := 1 + chance.IntN(cfg.Agents)
		failed, err := round(n)
		if err != nil {
			return nil, err
		}
		r.Joined += n - failed
		r.Failed += failed
	}
	r.After, err = settled()
	return r, err
}
