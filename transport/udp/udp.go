// Package udp opens the UDP sockets of a relay: on Linux one per core on the
// same port, such that every packet of a QUIC connection reaches the same
// socket even when the client's address or port changes.
//
//	g, err := udp.Listen(udp.Config{Addr: ":4433"})
//	...
//	for i, conn := range g.Conns() {
//		tr := &quic.Transport{Conn: conn, ConnectionIDGenerator: g.ConnectionIDGenerator(i)}
//		ln, err := tr.Listen(tlsConf, quicConf)
//		...
//	}
//	for _, w := range g.Warnings() {
//		log.Warn(w)
//	}
//
// The kernel chooses the socket by the first byte of the destination
// connection ID, modulo the number of sockets. A new client's first packets
// carry a random ID and land anywhere; the server answers with an ID of the
// socket they landed on. Elsewhere than on Linux there is one socket.
package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"syscall"

	"github.com/quic-go/quic-go"
)

// Config says which sockets to open.
type Config struct {
	// Addr is HOST:PORT. An empty host is every address of the machine, IPv4
	// and IPv6; 0.0.0.0 is all of IPv4 only, [::] all of IPv6 only. Port 0
	// takes a free one.
	Addr string
	// Sockets is how many sockets share the port, at most 64. Default
	// GOMAXPROCS. Elsewhere than on Linux it is always 1.
	Sockets int
	// Buffer is how many bytes are wanted for the receive buffer of each
	// socket and as many for its send buffer. Default 7 MiB, which is what
	// quic-go asks for.
	Buffer int
}

const (
	defaultBuffer = 7 << 20
	// maxSockets leaves each socket at least 4 values of an ID's first byte.
	maxSockets = 64
)

// Group is a set of sockets on one address and port.
type Group struct {
	conns    []*net.UDPConn
	warnings []string
}

// Listen opens the sockets. While they are open no second Listen and no other
// program gets the port by accident: the first socket takes it exclusively,
// and only then is the port opened to further sockets of this call. The error
// names the address and says what to do.
func Listen(cfg Config) (*Group, error) {
	if cfg.Sockets == 0 {
		cfg.Sockets = min(runtime.GOMAXPROCS(0), maxSockets)
	}
	if cfg.Buffer == 0 {
		cfg.Buffer = defaultBuffer
	}
	if cfg.Sockets < 0 || cfg.Sockets > maxSockets {
		return nil, fmt.Errorf("listen on UDP %s: %d sockets: set 1 to %d", cfg.Addr, cfg.Sockets, maxSockets)
	}
	if cfg.Buffer < 0 {
		return nil, fmt.Errorf("listen on UDP %s: socket buffers of %d bytes: set 1 or more", cfg.Addr, cfg.Buffer)
	}
	network, err := networkOf(cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen on UDP %s: %w", cfg.Addr, err)
	}
	g := &Group{}
	if err := g.open(network, cfg); err != nil {
		g.Close()
		return nil, fmt.Errorf("listen on UDP %s: %w%s", cfg.Addr, err, hint(err))
	}
	return g, nil
}

// networkOf returns the network that listens on addr and on nothing else: for
// "udp", package net turns 0.0.0.0 into a socket for IPv6 as well.
func networkOf(addr string) (string, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("%w: write HOST:PORT or :PORT", err)
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return "udp", nil
	case ip.Is4():
		return "udp4", nil
	default:
		return "udp6", nil
	}
}

func hint(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return ": another program or another relay has this port; stop it or choose another port (`ss -ulpn` lists who has which)"
	case errors.Is(err, syscall.EACCES):
		return ": ports below 1024 need CAP_NET_BIND_SERVICE; grant it or choose a higher port"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return ": this machine does not have that address; use one it has, or an empty host for all"
	}
	return ""
}

func listenOne(network, addr string, control func(network, address string, c syscall.RawConn) error) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: control}
	pc, err := lc.ListenPacket(context.Background(), network, addr)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok {
			err = op.Err // Listen names operation and address
		}
		return nil, err
	}
	return pc.(*net.UDPConn), nil
}

// Conns returns the sockets, at least one, all with the same local address; the one at index i must use the connection IDs of
// ConnectionIDGenerator(i). They belong to the group: closing one alone would
// renumber the others in the kernel.
func (g *Group) Conns() []*net.UDPConn { return append([]*net.UDPConn(nil), g.conns...) }

// ConnectionIDGenerator returns the source of connection IDs, 8 bytes long,
// whose packets the kernel hands to the socket at index i. It may be used by
// any goroutine.
func (g *Group) ConnectionIDGenerator(i int) quic.ConnectionIDGenerator {
	return newGenerator(i, len(g.conns))
}

// Warnings returns what the kernel refused and what that costs, one sentence
// each with what to set. It is empty if everything was granted.
func (g *Group) Warnings() []string { return g.warnings }

// Close closes all sockets. A QUIC transport that uses one must be closed
// before.
func (g *Group) Close() error {
	var errs []error
	for _, c := range g.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
