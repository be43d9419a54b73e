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

// network joins a relay's socket and an endpoint's. Nothing passes while it
// is cut.
type network struct {
	simnet.PerfectRouter
	relay, endpoint *simnet.SimConn
	cut             atomic.Bool
}

func (n *network) SendPacket(p simnet.Packet) error {
	if n.cut.Load() {
		return nil
	}
	return n.PerfectRouter.SendPacket(p)
}

// world is a relay's listener and an endpoint's dialer in virtual time.
type world struct {
	t      *testing.T
	net    *network
	cfg    ListenConfig
	relay  wire.Relay
	ln     *Listener
	dialer *Dialer
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
		if w.dialer, err = NewDialer(w.net.endpoint); err != nil {
			t.Fatal(err)
		}
		defer func() {
			w.dialer.Close()
			w.ln.Close()
			w.net.relay.Close()
			sim.Close()
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
}

// dial returns both ends of a new session.
func (w *world) dial(cert *tls.Certificate) (endpoint, relay Session) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	endpoint, err := w.dialer.Dial(ctx, w.relay, cert)
	if err != nil {
		w.t.Fatal(err)
	}
	relay, err = w.ln.Accept(ctx)
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
