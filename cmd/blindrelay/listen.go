package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"syscall"

	"github.com/blindrelay/blindrelay/relay"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// tcpAddress returns where to listen on TCP, "" for nowhere.
func (c *serveCmd) tcpAddress(udpPort int) string {
	if c.ListenTCP != nil {
		return *c.ListenTCP
	}
	host, _, _ := net.SplitHostPort(c.Listen) // it is listened on by now
	return net.JoinHostPort(host, strconv.Itoa(udpPort))
}

// listenTCP listens at address and returns the port as well. Where nobody has
// asked for a port, neither for UDP nor for TCP, it takes another one if that of
// UDP is in use.
func (c *serveCmd) listenTCP(address string, id *identity, handshakes *transport.Handshakes, failed func(wire.Code), log *slog.Logger) (*transport.TCPListener, int, error) {
	socket, err := net.Listen("tcp", address)
	if _, port, _ := net.SplitHostPort(c.Listen); errors.Is(err, syscall.EADDRINUSE) && c.ListenTCP == nil && port == "0" {
		host, _, _ := net.SplitHostPort(address)
		socket, err = net.Listen("tcp", net.JoinHostPort(host, "0"))
	}
	if err != nil {
		return nil, 0, fmt.Errorf("listen for --listen-tcp: %w: choose another address, or --listen-tcp \"\" for none", err)
	}
	tcp := socket.(*net.TCPListener)
	if err := transport.BBR(tcp); err != nil {
		log.Warn("TCP connections do without BBR and slow down where packets are lost: load tcp_bbr and allow it in net.ipv4.tcp_allowed_congestion_control", "err", err)
	}
	ln := transport.ListenTCP(transport.TCPListenConfig{Socket: tcp, Certificate: id.certificate, Handshakes: handshakes, Failed: failed})
	return ln, tcp.Addr().(*net.TCPAddr).Port, nil
}

// listener is one that a relay serves and that can be stopped.
type listener interface {
	relay.Listener
	Stop() error
}

// serveAll serves all listeners until ctx ends or one of them fails.
func serveAll(ctx context.Context, r *relay.Relay, listeners []listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(listeners))
	var wait sync.WaitGroup
	for i, l := range listeners {
		wait.Go(func() {
			defer cancel()
			errs[i] = r.Serve(ctx, l)
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}
