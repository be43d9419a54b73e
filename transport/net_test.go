package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/quic-go/quic-go/testutils/simnet"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// oneWay is the delay of the simulated network in each direction.
const oneWay = 20 * time.Millisecond

var (
	relayAddr    = &net.UDPAddr{IP: net.IPv4(1, 0, 0, 1).To4(), Port: 4433}
	endpointAddr = &net.UDPAddr{IP: net.IPv4(1, 0, 0, 2).To4(), Port: 5000}
)

// network joins a relay's socket and an endpoint's, which opens more to
// migrate to. Nothing passes while it is cut.
type network struct {
	simnet.PerfectRouter
	relay, endpoint *simnet.SimConn
	others          []*simnet.Simnet // of the endpoint's further sockets
	cut, noUDP      atomic.Bool
	// drop says which packets are lost; nil: none.
	drop atomic.Pointer[func(simnet.Packet) bool]
	// alias is where the endpoint's socket seems to be; nil: where it is.
	alias atomic.Pointer[net.UDPAddr]
}

func (n *network) SendPacket(p simnet.Packet) error {
	if n.cut.Load() || n.noUDP.Load() {
		return nil
	}
	if drop := n.drop.Load(); drop != nil && (*drop)(p) {
		return nil
	}
	if alias := n.alias.Load(); alias != nil {
		switch endpoint := endpointAddr.String(); {
		case p.From.String() == endpoint:
			p.From = alias
		case p.To.String() == endpoint:
			return nil
		case p.To.String() == alias.String():
			p.To = endpointAddr
		}
	}
	return n.PerfectRouter.SendPacket(p)
}

// lose has packets lost from here on.
func (n *network) lose(drop func(simnet.Packet) bool) { n.drop.Store(&drop) }

// open opens another socket of the endpoint.
func (n *network) open() (net.PacketConn, error) {
	sim := &simnet.Simnet{Router: n}
	addr := &net.UDPAddr{IP: net.IPv4(1, 0, 1, byte(len(n.others))).To4(), Port: 5000}
	c := sim.NewEndpoint(addr, simnet.NodeBiDiLinkSettings{Latency: oneWay})
	n.others = append(n.others, sim)
	return c, sim.Start()
}

// world is a relay's listener and an endpoint's dialer in virtual time.
type world struct {
	t      *testing.T
	net    *network
	cfg    ListenConfig
	relay  wire.Relay
	ln     *Listener
	dialer *Dialer

	tcp    bool // dial goes over TCP
	tcpNet *transporttest.TCPNetwork
	tcpLn  *TCPListener
}

// carriers runs f over QUIC and over TCP as simulate does.
func carriers(t *testing.T, f func(*world)) {
	t.Helper()
	for _, tcp := range []bool{false, true} {
		name := "QUIC"
		if tcp {
			name = "TCP"
		}
		t.Run(name, func(t *testing.T) {
			simulate(t, nil, func(w *world) {
				w.tcp = tcp
				f(w)
			})
		})
	}
}

// simulate runs f in a bubble of virtual time with a listener and a dialer on
// a simulated network. set may change how the relay listens.
func simulate(t *testing.T, set func(*ListenConfig), f func(*world)) {
	t.Helper()
	cert := transporttest.Certificate(t)
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: &network{}}
		sim := &simnet.Simnet{Router: w.net}
		link := simnet.NodeBiDiLinkSettings{Latency: oneWay}
		w.net.relay = sim.NewEndpoint(relayAddr, link)
		w.net.endpoint = sim.NewEndpoint(endpointAddr, link)
		sim.Start()
		pin := PinOf(cert.Leaf)
		w.relay = wire.Relay{Addr: relayAddr.String(), Pin: pin}
		w.cfg = ListenConfig{Sockets: []Socket{{Conn: w.net.relay}}, Certificate: cert, ResetKey: [32]byte{1}, TokenKey: [32]byte{2}}
		if set != nil {
			set(&w.cfg)
		}
		w.listen()
		var err error
		// A test of QUIC that dials TCP by mistake would find it.
		dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
			return w.tcpNet.Dial(ctx, endpointAddr)
		}
		if w.dialer, err = (DialerConfig{Socket: w.net.endpoint, DialTCP: dial}).NewDialer(); err != nil {
			t.Fatal(err)
		}
		w.dialer.open = w.net.open
		defer func() {
			w.dialer.Close()
			w.ln.Close()
			w.tcpLn.Close()
			w.net.relay.Close()
			for _, s := range append(w.net.others, sim) {
				s.Close()
			}
			time.Sleep(time.Minute) // quic-go forgets closed connections by timers
		}()
		f(w)
	})
}

func (w *world) listen() {
	w.t.Helper()
	ln, err := Listen(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.ln = ln
	w.tcpNet = transporttest.NewTCPNetwork(relayAddr, oneWay)
	w.tcpLn = ListenTCP(TCPListenConfig{Socket: w.tcpNet, Certificate: w.cfg.Certificate, Handshakes: w.cfg.Handshakes, Failed: w.cfg.Failed})
}

// connect dials over the world's carrier.
func (w *world) connect(ctx context.Context, cert *tls.Certificate) (Session, error) {
	if w.tcp {
		return w.dialer.DialTCP(ctx, w.relay, cert)
	}
	return w.dialer.DialQUIC(ctx, w.relay, cert)
}

// accept returns the next session of the world's carrier.
func (w *world) accept(ctx context.Context) (Session, error) {
	if w.tcp {
		return w.tcpLn.Accept(ctx)
	}
	return w.ln.Accept(ctx)
}

// cut lets nothing pass while it is set.
func (w *world) cut(cut bool) {
	w.net.cut.Store(cut)
	w.tcpNet.Cut(cut)
}

// stop stops accepting on both carriers.
func (w *world) stop() error { return errors.Join(w.ln.Stop(), w.tcpLn.Stop()) }

// dial returns both ends of a new session.
func (w *world) dial(cert *tls.Certificate) (endpoint, relay Session) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	endpoint, err := w.connect(ctx, cert)
	if err != nil {
		w.t.Fatal(err)
	}
	relay, err = w.accept(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	return endpoint, relay
}

// open returns both ends of a new stream on which b went from one to the other.
func open(t *testing.T, from, to Session) (a, b Stream) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	a, err := from.OpenStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte("!")); err != nil {
		t.Fatal(err)
	}
	b, err = to.AcceptStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(b, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// resetCode returns the code of a *wire.ResetError and fails on other errors.
func resetCode(t *testing.T, err error) wire.Code {
	t.Helper()
	reset, ok := errors.AsType[*wire.ResetError](err)
	if !ok {
		t.Fatalf("got %v, want a reset", err)
	}
	return reset.Code
}
