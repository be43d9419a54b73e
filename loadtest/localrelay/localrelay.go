// Package localrelay runs a relay inside a program, on loopback, for a demo or
// a load test: the real one, with a fresh identity.
//
//	r, err := localrelay.Start(localrelay.Config{BufferMemory: 1 << 30})
//	fmt.Println(r.At) // 127.0.0.1:45678#PIN
//	err = r.Close()
package localrelay

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/relay"
	"github.com/blindrelay/blindrelay/relay/admit"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/udp"
	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/prometheus/client_golang/prometheus"
)

// Config says how the relay runs.
type Config struct {
	BufferMemory int64        // as relay.Config has it; required
	JitterBuffer int          // as relay.Config has it
	Admit        admit.Policy // nil: every agent is admitted
	TCP          bool         // take TLS on TCP too, at a port of its own
	// Tap stands between the relay and its listener and may look at whatever
	// passes. Nil: nothing does.
	Tap func(relay.Listener) relay.Listener
	Log *slog.Logger // nil: nothing is logged
}

// Relay is a running relay. It must be closed.
type Relay struct {
	At wire.Relay // its address and pin

	relay   *relay.Relay
	sockets *udp.Group
	ln      *transport.Listener
	tcp     *transport.TCPListener // nil: none
	served  chan error             // Serve's one result for each listener
}

// closeWithin bounds Close.
const closeWithin = 5 * time.Second

// Start starts a relay on a free UDP port of 127.0.0.1.
func Start(cfg Config) (*Relay, error) {
	if cfg.Admit == nil {
		cfg.Admit = admit.Open{}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	id, err := e2e.NewIdentity(key) // a certificate without a name: who dials has its pin
	if err != nil {
		return nil, err
	}
	r := &Relay{served: make(chan error, 2)} // two listeners at most
	r.relay, err = relay.New(relay.Config{
		Admit:        cfg.Admit,
		BufferMemory: cfg.BufferMemory,
		JitterBuffer: cfg.JitterBuffer,
		Log:          cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	if r.sockets, err = udp.Listen(udp.Config{Addr: "127.0.0.1:0"}); err != nil {
		return nil, err
	}
	listen := transport.ListenConfig{Certificate: id.Certificate(), Failed: r.relay.HandshakeFailed}
	rand.Read(listen.ResetKey[:])
	rand.Read(listen.TokenKey[:])
	for i, conn := range r.sockets.Conns() {
		listen.Sockets = append(listen.Sockets, transport.Socket{Conn: conn, IDs: r.sockets.ConnectionIDGenerator(i)})
	}
	if r.ln, err = transport.Listen(listen); err != nil {
		return nil, errors.Join(err, r.sockets.Close())
	}
	r.At = wire.Relay{Addr: r.sockets.Conns()[0].LocalAddr().String(), Pin: wire.KeyPin(id.Pin())}
	if cfg.TCP {
		socket, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, errors.Join(err, r.ln.Close(), r.sockets.Close())
		}
		r.tcp = transport.ListenTCP(transport.TCPListenConfig{Socket: socket, Certificate: listen.Certificate, Failed: listen.Failed})
		r.At.TCPPort = uint16(socket.Addr().(*net.TCPAddr).Port)
		r.serve(r.tcp, cfg.Tap)
	}
	r.serve(r.ln, cfg.Tap)
	return r, nil
}

func (r *Relay) serve(ln relay.Listener, tap func(relay.Listener) relay.Listener) {
	if tap != nil {
		ln = tap(ln)
	}
	go func() { r.served <- r.relay.Serve(context.Background(), ln) }()
}

// Collectors returns the relay's metrics.
func (r *Relay) Collectors() []prometheus.Collector { return r.relay.Collectors() }

// Close says goodbye to every endpoint and ends the relay, within 5 s.
func (r *Relay) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	var errs []error
	if r.tcp != nil {
		errs = append(errs, r.tcp.Stop())
	}
	errs = append(errs, r.ln.Stop(), r.relay.Shutdown(ctx), <-r.served)
	if r.tcp != nil {
		errs = append(errs, <-r.served, r.tcp.Close())
	}
	return errors.Join(append(errs, r.ln.Close(), r.sockets.Close())...)
}
