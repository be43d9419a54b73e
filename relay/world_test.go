package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/relay/admit"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/quic-go/quic-go/testutils/simnet"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// oneWay is the delay of the simulated network from anyone to anyone.
const oneWay = 20 * time.Millisecond

// world is a relay in virtual time and a network on which anyone can reach it.
type world struct {
	t *testing.T
	*site
	cert      tls.Certificate // of all relays
	pin       wire.KeyPin
	sim       *simnet.Simnet
	hosts     byte                      // how many there are
	instances byte                      // of agents, so far
	tcp       *transporttest.TCPNetwork // nil: everybody dials QUIC
	ends      []func()
}

// admitAll is the configuration of most tests.
var admitAll = Config{Admit: admit.Open{}, BufferMemory: 4 << 30}

// site is where a relay runs. Its socket outlives the relay.
type site struct {
	relay  *Relay
	conn   net.PacketConn
	addr   string
	ln     *transport.Listener
	tcp    *transport.TCPListener // nil: none
	served chan error             // Serve's one result for each listener
}

// start starts a relay on the site's socket.
func (w *world) start(s *site, cfg Config) {
	w.t.Helper()
	var err error
	if s.relay, err = New(cfg); err != nil {
		w.t.Fatal(err)
	}
	s.addr = s.conn.LocalAddr().String()
	s.ln, err = transport.Listen(transport.ListenConfig{
		Sockets: []transport.Socket{{Conn: s.conn}}, Certificate: w.cert,
		ResetKey: [32]byte{1}, TokenKey: [32]byte{2}, Failed: s.relay.HandshakeFailed,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	s.served = make(chan error, 2)
	go func() { s.served <- s.relay.Serve(context.Background(), s.ln) }()
	if w.tcp == nil || s != w.site {
		return
	}
	s.tcp = transport.ListenTCP(transport.TCPListenConfig{Socket: w.tcp, Certificate: w.cert, Failed: s.relay.HandshakeFailed})
	go func() { s.served <- s.relay.Serve(context.Background(), s.tcp) }()
}

// shutdown ends what the relay serves.
func (s *site) shutdown(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.relay.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// close ends the relay, which was shut down, and leaves the socket.
func (s *site) close(t *testing.T) {
	t.Helper()
	if err := s.ln.Close(); err != nil {
		t.Error(err)
	}
	if err := <-s.served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if s.tcp == nil {
		return
	}
	if err := s.tcp.Close(); err != nil {
		t.Error(err)
	}
	if err := <-s.served; err != nil {
		t.Errorf("Serve over TCP: %v", err)
	}
}

// simulate runs f in a bubble of virtual time with a relay: once where everybody
// dials QUIC, once where they dial TCP. When f returns, the relay is shut down,
// which must leave nothing behind.
func simulate(t *testing.T, cfg Config, f func(*world)) {
	t.Helper()
	t.Run("QUIC", func(t *testing.T) { simulateOver(t, false, cfg, f) })
	t.Run("TCP", func(t *testing.T) { simulateOver(t, true, cfg, f) })
}

func simulateOver(t *testing.T, tcp bool, cfg Config, f func(*world)) {
	t.Helper()
	cert := transporttest.Certificate(t)
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, cert: cert, pin: transport.PinOf(cert.Leaf), sim: &simnet.Simnet{Router: &simnet.PerfectRouter{}}}
		if tcp {
			w.tcp = transporttest.NewTCPNetwork(&net.UDPAddr{IP: net.IPv4(10, 0, 0, 1)}, oneWay)
		}
		w.site = &site{conn: w.host()}
		w.start(w.site, cfg)

		f(w)

		w.shutdown()
		for _, end := range w.ends {
			end()
		}
		w.close(t)
		w.sim.Close()
		time.Sleep(time.Minute) // quic-go forgets closed connections by timers
		w.wantNothingHeld()
	})
}

func (w *world) shutdown() {
	w.t.Helper()
	w.site.shutdown(w.t)
}

// wantNothingHeld checks that no stream or session holds anything.
func (w *world) wantNothingHeld() {
	w.t.Helper()
	m := w.relay.metrics
	if s := w.relay.budget.Stats(); s.Reserved != 0 || s.Used != 0 || s.Streams != 0 {
		w.t.Errorf("memory is still held: %+v", s)
	}
	for name, g := range map[string]prometheus.Collector{
		"agent sessions": m.sessions[roleAgent], "device sessions": m.sessions[roleDevice], "streams": m.streams,
	} {
		if n := testutil.ToFloat64(g); n != 0 {
			w.t.Errorf("%v %s are still counted", n, name)
		}
	}
	if n := w.relay.registry.size(); n != 0 {
		w.t.Errorf("%d agents are still registered", n)
	}
}

// host returns the socket of a new host, the first being the relay.
func (w *world) host() *simnet.SimConn {
	w.hosts++
	addr := &net.UDPAddr{IP: net.IPv4(10, 0, 0, w.hosts).To4(), Port: 4433}
	router := &simnet.Simnet{Router: w.sim.Router}
	conn := router.NewEndpoint(addr, simnet.NodeBiDiLinkSettings{Latency: oneWay})
	if err := router.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.ends = append(w.ends, func() { conn.Close(); router.Close() })
	return conn
}

// dial opens a session from a new host, an agent's if cert is not nil.
func (w *world) dial(cert *tls.Certificate) transport.Session {
	w.t.Helper()
	s, err := w.tryDial(cert)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// tryDial is dial for a session that may be refused.
func (w *world) tryDial(cert *tls.Certificate) (transport.Session, error) {
	return w.dialer()(w.addr, cert)
}

// dialer returns what dials relays from a new host: the world's first one over
// TCP if the world has that.
func (w *world) dialer() func(addr string, cert *tls.Certificate) (transport.Session, error) {
	w.t.Helper()
	conn := w.host()
	d, err := transport.DialerConfig{Socket: conn, DialTCP: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return w.tcp.Dial(ctx, conn.LocalAddr().(*net.UDPAddr))
	}}.NewDialer()
	if err != nil {
		w.t.Fatal(err)
	}
	last := len(w.ends) - 1
	closeHost := w.ends[last]
	w.ends[last] = func() { d.Close(); closeHost() }
	return func(addr string, cert *tls.Certificate) (transport.Session, error) {
		dial := d.DialQUIC
		if w.tcp != nil && addr == w.addr {
			dial = d.DialTCP
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return dial(ctx, wire.Relay{Addr: addr, Pin: w.pin}, cert)
	}
}

// ctx bounds what a test waits for, in virtual time.
func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	w.ends = append(w.ends, cancel)
	return ctx
}

// token is what the devices of the tests show.
var token = wire.Token{7}

// agent registers with a new key and the tokens, by default the token above.
func (w *world) agent(tokens ...wire.TokenHash) (*hop.Registration, wire.Route) {
	w.t.Helper()
	cert := transporttest.Certificate(w.t)
	return w.register(cert, tokens...), wire.RouteOf(cert.Leaf.RawSubjectPublicKeyInfo)
}

// register registers as a new instance.
func (w *world) register(cert tls.Certificate, tokens ...wire.TokenHash) *hop.Registration {
	w.t.Helper()
	w.instances++
	return w.join(cert, wire.Instance{w.instances}, tokens...)
}

// join registers one more connection of an instance.
func (w *world) join(cert tls.Certificate, instance wire.Instance, tokens ...wire.TokenHash) *hop.Registration {
	w.t.Helper()
	if len(tokens) == 0 {
		tokens = []wire.TokenHash{token.Hash()}
	}
	r, err := hop.Register(w.ctx(), w.dial(&cert), wire.Register{Instance: instance, Tokens: tokens})
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) device(to wire.Route) *hop.Attachment {
	w.t.Helper()
	a, err := hop.Attach(w.ctx(), w.dial(nil), wire.Open{Route: to, Token: token})
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// open opens a stream and returns both of its ends.
func (w *world) open(d *hop.Attachment, a *hop.Registration) (device, agent transport.Stream) {
	w.t.Helper()
	return w.openUrgent(d, a, wire.Playing)
}

// openUrgent is open with an urgency.
func (w *world) openUrgent(d *hop.Attachment, a *hop.Registration, u wire.Urgency) (device, agent transport.Stream) {
	w.t.Helper()
	device, err := d.OpenUrgent(w.ctx(), u)
	if err != nil {
		w.t.Fatal(err)
	}
	if agent, err = a.Accept(w.ctx()); err != nil {
		w.t.Fatal(err)
	}
	if _, err := hop.ReadIncoming(agent); err != nil {
		w.t.Fatal(err)
	}
	return device, agent
}

// ask opens a stream at the device alone.
func (w *world) ask(d *hop.Attachment) transport.Stream {
	w.t.Helper()
	st, err := d.Open(w.ctx())
	if err != nil {
		w.t.Fatal(err)
	}
	return st
}

// stream is a new agent, a new device and a stream between them.
type stream struct {
	home          *hop.Registration
	away          *hop.Attachment
	agent, device transport.Stream
}

func (w *world) stream() stream {
	w.t.Helper()
	a, route := w.agent()
	d := w.device(route)
	device, agent := w.open(d, a)
	return stream{a, d, agent, device}
}

// wantReset reads st until it fails, which must be a reset with the code.
func wantReset(t *testing.T, st transport.Stream, code wire.Code) {
	t.Helper()
	st.SetReadDeadline(time.Now().Add(time.Minute))
	_, err := io.Copy(io.Discard, st)
	if reset, ok := errors.AsType[*wire.ResetError](err); !ok || reset.Code != code {
		t.Errorf("the stream ended with %v, want a reset with code %v", err, code)
	}
}

// wantClosed waits until the session ends, which must be with the code.
func wantClosed(t *testing.T, s interface {
	Done() <-chan struct{}
	Err() error
}, code wire.Code) {
	t.Helper()
	select {
	case <-s.Done():
	case <-time.After(time.Minute):
		t.Errorf("the session goes on, want it closed with code %v", code)
		return
	}
	if closed, ok := errors.AsType[*wire.ClosedError](s.Err()); !ok || closed.Code != code || !closed.Remote {
		t.Errorf("the session ended with %v, want code %v from the relay", s.Err(), code)
	}
}

// wantCount checks a counter by code.
func wantCount(t *testing.T, name string, c counters, code wire.Code, want float64) {
	t.Helper()
	if got := testutil.ToFloat64(c.of(code)); got != want {
		t.Errorf("%s with code %v: %v counted, want %v", name, code, got, want)
	}
}
