package relay

import (
	"context"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blindrelay/blindrelay/relay/admit"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/quic-go/quic-go/testutils/simnet"
)

// town is many households at a relay, whose people do everything that may
// happen, by chance.
type town struct {
	*world
	routes []tls.Certificate // of the agents; the first stays
	number map[wire.Route]int
	begin  time.Time
	places atomic.Uint32 // households so far

	mu   sync.Mutex
	rand *rand.Rand // guarded by mu
}

// townLimits are met now and then.
var townLimits = Limits{
	MaxSessionsPerAddress: 4, RouteDevices: 3, RouteStreams: 4,
	RouteRate: 2e6, DeviceRate: 1e6, Egress: 1e6,
}

// tokens are what devices show. An agent lists some of them.
var tokens = []wire.Token{{1}, {2}, {3}, {4}, {5}, {6}}

func newTown(w *world, seed uint64) *town {
	c := &town{world: w, number: make(map[wire.Route]int), begin: time.Now(), rand: rand.New(rand.NewPCG(seed, 0))}
	for i := range 12 {
		c.routes = append(c.routes, transporttest.Certificate(w.t))
		c.number[c.route(i)] = i
	}
	return c
}

func (c *town) route(i int) wire.Route {
	return wire.RouteOf(c.routes[i].Leaf.RawSubjectPublicKeyInfo)
}

// chance returns chances for one goroutine.
func (c *town) chance() *rand.Rand {
	c.mu.Lock()
	defer c.mu.Unlock()
	return rand.New(rand.NewPCG(c.rand.Uint64(), c.rand.Uint64()))
}

func (c *town) exponential(mean time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Duration(c.rand.ExpFloat64() * float64(mean))
}

// between returns a time from a to b.
func between(r *rand.Rand, a, b time.Duration) time.Duration { return a + rand.N(b-a) }

// Admit is the relay's policy: routes have different grants. Some get a volume
// that grows, some are asked about again and again until their time is over.
func (c *town) Admit(_ context.Context, r admit.Request) (admit.Grant, error) {
	switch c.number[r.Route] % 5 {
	case 0:
		return admit.Grant{Volume: 64 << 10 * int64(1+time.Since(c.begin)/(20*time.Minute))}, nil
	case 1:
		return admit.Grant{Sessions: 1, Weight: 3}, nil
	case 2:
		return admit.Grant{Rate: 2e6}, nil
	case 3:
		if c.exponential(time.Second) > time.Second {
			return admit.Grant{}, &admit.Refusal{Code: wire.CodeTicketExpired, Text: "it is over"}
		}
		return admit.Grant{Until: time.Now().Add(2 * time.Second)}, nil
	}
	return admit.Grant{}, nil
}

// operate changes the limits, and who is admitted, until ctx ends.
func (c *town) operate(ctx context.Context, r *rand.Rand) {
	for wait(ctx, between(r, 100*time.Second, 400*time.Second)) {
		switch r.IntN(5) {
		case 0, 4:
			c.relay.SetLimits(Limits{MaxSessionsPerAddress: 2, RouteDevices: 1, RouteRate: 1e6, MaxStreams: 2})
		case 1:
			c.relay.SetLimits(Limits{RouteVolume: 1 << 20, Egress: 1e6})
		case 2:
			c.relay.SetPolicy(ctx, admit.Allow{})
			wait(ctx, 20*time.Second)
			c.relay.SetPolicy(ctx, c)
			continue
		case 3:
			if c.tcp != nil { // over QUIC each household has its own way to vanish
				c.tcp.Cut(true)
				wait(ctx, 40*time.Second)
				c.tcp.Cut(false)
			}
			continue
		}
		wait(ctx, 100*time.Second)
		c.relay.SetLimits(townLimits)
	}
}

// wait reports whether ctx goes on for so long.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// household is one host, with an agent or with devices.
type household struct {
	*town
	dial   func(cert *tls.Certificate) (transport.Session, error)
	vanish func() // without a word
	close  func()
}

// way is a household's to the network.
type way struct {
	*simnet.PerfectRouter
	gone atomic.Bool
}

func (w *way) SendPacket(p simnet.Packet) error {
	if w.gone.Load() {
		return nil
	}
	return w.PerfectRouter.SendPacket(p)
}

func (c *town) household() household {
	n := c.places.Add(1)
	addr := &net.UDPAddr{IP: net.IPv4(10, 1+byte(n>>16), byte(n>>8), byte(n)).To4(), Port: 4433}
	out := &way{PerfectRouter: c.sim.Router.(*simnet.PerfectRouter)}
	link := &simnet.Simnet{Router: out}
	conn := link.NewEndpoint(addr, simnet.NodeBiDiLinkSettings{Latency: oneWay})
	if err := link.Start(); err != nil {
		panic(err)
	}
	d, err := transport.DialerConfig{Socket: conn, DialTCP: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return c.tcp.Dial(ctx, addr)
	}}.NewDialer()
	if err != nil {
		panic(err)
	}
	vanish := func() {
		out.gone.Store(true)
		out.RemoveNode(addr)
	}
	return household{
		town:   c,
		vanish: vanish,
		close:  func() { d.Close(); time.Sleep(2 * oneWay); vanish(); conn.Close(); link.Close() },
		dial: func(cert *tls.Certificate) (transport.Session, error) {
			dial := d.DialQUIC
			if c.tcp != nil {
				dial = d.DialTCP
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			return dial(ctx, wire.Relay{Addr: c.addr, Pin: c.pin}, cert)
		},
	}
}

// keep runs an agent that stays, and moves now and then, until ctx ends.
func (c *town) keep(ctx context.Context, r *rand.Rand) {
	for ctx.Err() == nil {
		h := c.household()
		h.agent(ctx, r, c.routes[0], between(r, 500*time.Second, 5000*time.Second))
		if r.IntN(2) == 0 {
			h.vanish() // so that the next one replaces it
		}
		h.close()
		wait(ctx, time.Second)
	}
}

// round returns a visit of an agent and of some devices.
func (c *town) round(r *rand.Rand) func() {
	return func() {
		var wait sync.WaitGroup
		at := r.IntN(len(c.routes))
		if at > 0 {
			chance := c.chance()
			wait.Go(func() {
				h := c.household()
				defer h.close()
				h.agent(context.Background(), chance, c.routes[at], between(chance, time.Second, 12*time.Second))
				if chance.IntN(2) == 0 {
					h.vanish()
				}
			})
			time.Sleep(between(r, 0, time.Second))
		}
		for range 1 + r.IntN(2) {
			h, chance := c.household(), c.chance()
			wait.Go(func() {
				defer h.close()
				var devices sync.WaitGroup
				for range 1 + chance.IntN(4) {
					d := c.chance()
					devices.Go(func() { h.device(d, c.route(at)) })
				}
				if chance.IntN(3) == 0 {
					time.Sleep(between(chance, 0, 4*time.Second))
					h.vanish()
				}
				devices.Wait()
			})
		}
		time.Sleep(time.Second)
		c.wantConsistent()
		wait.Wait()
		c.wantConsistent()
	}
}

// some returns some of the tokens, as an agent lists them.
func some(r *rand.Rand) (hashes []wire.TokenHash) {
	for _, t := range tokens {
		if r.IntN(3) > 0 {
			hashes = append(hashes, t.Hash())
		}
	}
	return hashes
}

// agent registers over some connections, serves streams for so long, and says
// other tokens or measures meanwhile.
func (h household) agent(ctx context.Context, r *rand.Rand, cert tls.Certificate, stay time.Duration) {
	instance := wire.Instance{byte(r.Uint32()), byte(r.Uint32())}
	connections := 1 + r.IntN(2)
	if r.IntN(4) == 0 {
		connections = wire.MaxConnections + 1
	}
	var serve sync.WaitGroup
	defer serve.Wait()
	var all []*hop.Registration
	defer func() {
		for _, a := range all {
			a.Close(wire.CodeNone, "")
		}
	}()
	receipt := ""
	ctx, cancel := context.WithTimeout(ctx, stay)
	defer cancel()
	for range connections {
		s, err := h.dial(&cert)
		if err != nil {
			return
		}
		a, err := hop.Register(ctx, s, wire.Register{Instance: instance, Tokens: some(r), Receipt: receipt})
		if err != nil {
			return
		}
		all = append(all, a)
		serve.Go(func() { h.accept(a) })
		receipt = a.Receipt()
	}
	a := all[0]
	for {
		again := between(r, time.Second, min(stay, time.Minute)+2*time.Second)
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return
		case <-a.Leaving():
			return
		}
		if r.IntN(8) == 0 {
			a.Measure(ctx, r.IntN(2) == 0, 1+r.IntN(wire.MaxMeasure/16))
		}
		if a.Update(ctx, some(r), "") != nil {
			return
		}
	}
}

// accept serves the streams of one connection until it is over.
func (h household) accept(a *hop.Registration) {
	var streams sync.WaitGroup
	defer streams.Wait()
	for {
		st, err := a.Accept(context.Background())
		if err != nil {
			return
		}
		r := h.chance()
		streams.Go(func() {
			if _, err := hop.ReadIncoming(st); err == nil {
				use(r, st, wire.CodeRefused)
			}
		})
	}
}

// device opens some streams to a route and does something with each.
func (h household) device(r *rand.Rand, route wire.Route) {
	s, err := h.dial(nil)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	d, err := hop.Attach(ctx, s, wire.Open{Route: route, Token: tokens[r.IntN(len(tokens))]})
	if err != nil {
		return
	}
	defer d.Close(wire.CodeNone, "")
	if r.IntN(10) == 0 {
		d.Measure(ctx, r.IntN(2) == 0, 1+r.IntN(wire.MaxMeasure/16))
	}
	var streams sync.WaitGroup
	defer streams.Wait()
	for range 1 + r.IntN(5) {
		chance := h.chance()
		if chance.IntN(15) == 0 {
			st, err := s.OpenStream(ctx) // without an OPEN
			if err == nil {
				st.Write(wire.Open{}.Append(nil)[:2])
			}
			continue
		}
		st, err := d.OpenUrgent(ctx, wire.Urgency(chance.IntN(int(wire.Bulk)+1)))
		if err != nil {
			return
		}
		streams.Go(func() { use(chance, st, wire.CodeCancelled) })
		time.Sleep(between(r, 0, 300*time.Millisecond))
	}
	if r.IntN(3) == 0 { // it leaves while its streams run
		time.Sleep(between(r, 0, 2*time.Second))
		d.Close(wire.CodeNone, "")
	}
}

// use does what either end of a stream may do.
func use(r *rand.Rand, st transport.Stream, code wire.Code) {
	defer st.Reset(code)
	st.SetDeadline(time.Now().Add(between(r, time.Second, 10*time.Second)))
	size := r.IntN(20_000)
	if r.IntN(10) == 0 {
		size = 600_000
	}
	send := func() { st.Write(make([]byte, size)) }
	switch r.IntN(8) {
	case 0: // a request and an answer
		send()
		st.CloseWrite()
		io.Copy(io.Discard, st)
	case 1: // an answer to a request
		io.Copy(io.Discard, st)
		send()
		st.CloseWrite()
	case 2:
		io.Copy(st, st)
		st.CloseWrite()
	case 3: // reads no more
		st.StopRead()
		send()
		st.CloseWrite()
		time.Sleep(time.Second)
	case 4: // resets at once
	case 5: // sends and breaks off
		send()
	case 6: // is frozen
		send()
		time.Sleep(between(r, time.Second, 15*time.Second))
	case 7: // watches
		io.Copy(io.Discard, st)
	}
}
