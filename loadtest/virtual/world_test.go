package virtual

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/crypto/endpoint"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/relay"
	"github.com/blindrelay/blindrelay/relay/admit"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/quic-go/quic-go/testutils/simnet"
)

var (
	relayAddr  = &net.UDPAddr{IP: net.IPv4(10, 9, 0, 1).To4(), Port: 4433}
	agentAddr  = &net.UDPAddr{IP: net.IPv4(10, 9, 0, 2).To4(), Port: 9000}
	deviceAddr = &net.UDPAddr{IP: net.IPv4(10, 9, 0, 3).To4(), Port: 9000}
	pairAddr   = &net.UDPAddr{IP: net.IPv4(10, 9, 0, 3).To4(), Port: 9001}
)

// world is a simulated network with a relay, a home and a device's place on it.
type world struct {
	t            *testing.T
	net          *simnet.Simnet
	relaySocket  net.PacketConn
	agentSocket  net.PacketConn
	deviceSocket net.PacketConn
	pairSocket   net.PacketConn // of the device, while it pairs
	cert         tls.Certificate
	at           wire.Relay
	more         []wire.Relay // of the agent, beside at
	carriers     int          // as in endpoint.DialerConfig
	state        string       // the home's directory
	limits       relay.Limits
	receipts     *admit.Receipts
}

// newWorld makes a network on which the round trip is device between device
// and relay, and home between relay and agent. It runs in a synctest bubble.
func newWorld(t *testing.T, device, home time.Duration) *world {
	t.Helper()
	w := &world{t: t, net: &simnet.Simnet{Router: &simnet.PerfectRouter{}}}
	link := func(roundTrip time.Duration) simnet.NodeBiDiLinkSettings {
		return simnet.NodeBiDiLinkSettings{Latency: roundTrip / 2}
	}
	w.relaySocket = w.net.NewEndpoint(relayAddr, simnet.NodeBiDiLinkSettings{LatencyFunc: func(p simnet.Packet) time.Duration {
		if p.From.String() == agentAddr.String() {
			return home / 2
		}
		return device / 2
	}})
	w.agentSocket = w.net.NewEndpoint(agentAddr, link(home))
	w.deviceSocket = w.net.NewEndpoint(deviceAddr, link(device))
	w.pairSocket = w.net.NewEndpoint(pairAddr, link(device))
	if err := w.net.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.net.Close() })
	w.cert = transporttest.Certificate(t)
	pin := transport.PinOf(w.cert.Leaf)
	w.at = wire.Relay{Addr: relayAddr.String(), Pin: pin}
	return w
}

// socket returns a further socket on the network. The test closes what it
// returns beside it.
func (w *world) socket(addr *net.UDPAddr, roundTrip time.Duration) (net.PacketConn, func()) {
	w.t.Helper()
	own := &simnet.Simnet{Router: w.net.Router}
	conn := own.NewEndpoint(addr, simnet.NodeBiDiLinkSettings{Latency: roundTrip / 2})
	if err := own.Start(); err != nil {
		w.t.Fatal(err)
	}
	return conn, func() { own.Close() }
}

// startRelay runs a relay on the relay's socket until stop is called, which
// ends it without a word to anybody.
func (w *world) startRelay() (r *relay.Relay, stop func()) {
	w.t.Helper()
	return w.startRelayBehind(func(ln relay.Listener) relay.Listener { return ln })
}

// startRelayBehind is startRelay with something between the relay and its
// connections.
func (w *world) startRelayBehind(between func(relay.Listener) relay.Listener) (r *relay.Relay, stop func()) {
	w.t.Helper()
	ln, err := transport.Listen(transport.ListenConfig{
		Sockets:     []transport.Socket{{Conn: w.relaySocket}},
		Certificate: w.cert,
		ResetKey:    [32]byte{1},
		TokenKey:    [32]byte{2},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	r, err = relay.New(relay.Config{
		Admit:        admit.Open{},
		BufferMemory: 64 << 20,
		Limits:       w.limits,
		Receipts:     w.receipts,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Serve(context.Background(), between(ln)); err != nil {
			w.t.Error(err)
		}
	}()
	return r, func() {
		ln.Close()
		<-done
		if err := r.Shutdown(context.Background()); err != nil {
			w.t.Error(err)
		}
	}
}

// startAgent makes a home with one relay and runs its agent.
func (w *world) startAgent(log *slog.Logger) (*pair.Home, *endpoint.Agent) {
	w.t.Helper()
	w.state = w.t.TempDir() + "/home"
	return w.startAgentAt(w.agentSocket, log)
}

// startAgentAt runs the agent of the state directory at a socket.
func (w *world) startAgentAt(socket net.PacketConn, log *slog.Logger) (*pair.Home, *endpoint.Agent) {
	w.t.Helper()
	home, err := pair.OpenHome(w.state)
	if err != nil {
		w.t.Fatal(err)
	}
	agent, err := endpoint.NewAgent(endpoint.AgentConfig{Home: home, Relays: append([]wire.Relay{w.at}, w.more...), Socket: socket, Log: log})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := agent.Ready(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	return home, agent
}

// newDevice pairs a device and returns its dialer, which has not connected yet.
func (w *world) newDevice(home *pair.Home, agent *endpoint.Agent) *endpoint.Dialer {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	inv, err := home.NewInvite("tv", 0, false)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx := context.Background()
	if err := agent.Publish(ctx); err != nil {
		w.t.Fatal(err)
	}
	server, err := endpoint.Pair(ctx, endpoint.PairConfig{Identity: key, Invite: inv, Socket: w.pairSocket})
	if err != nil {
		w.t.Fatal(err)
	}
	d, err := endpoint.NewDialer(endpoint.DialerConfig{Identity: key, Server: server, Socket: w.deviceSocket, Carriers: w.carriers})
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}
