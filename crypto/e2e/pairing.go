package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// PairingConn is a TLS connection between a device and an agent on which
// nothing but pairing is spoken. Both know each other's key; the agent has not
// decided yet whether it wants the device. Its deadlines are the caller's.
type PairingConn struct {
	net.Conn   // tls
	tls        *tls.Conn
	st         Stream
	self, peer Pin
	binding    []byte
}

func newPairingConn(st Stream, t *tls.Conn, cs tls.ConnectionState, server, device Pin) (*PairingConn, error) {
	binding, err := export(cs, exporterBinding, server, device)
	if err != nil {
		return nil, err
	}
	return &PairingConn{Conn: t, tls: t, st: st, binding: binding}, nil
}

// ConnectPairing begins a pairing conversation on st and owns st from the call
// on, also if it fails. It takes at most 10 s, less if ctx ends; ctx has no
// meaning for the returned connection. ClientConfig.Open and Log are not used.
func ConnectPairing(ctx context.Context, st Stream, cfg ClientConfig) (*PairingConn, error) {
	t, cs, err := dial(ctx, st, cfg, alpnPairing)
	if err != nil {
		return nil, fmt.Errorf("connect to the server to pair: %w", err)
	}
	c, err := newPairingConn(st, t, cs, cfg.Server, cfg.Identity.Pin())
	if err != nil {
		st.Reset(wire.CodeCancelled)
		return nil, fmt.Errorf("connect to the server to pair: %w", err)
	}
	c.self, c.peer = cfg.Identity.Pin(), cfg.Server
	return c, nil
}

// Peer returns the pin of the other endpoint.
func (c *PairingConn) Peer() Pin { return c.peer }

// LocalAddr returns this endpoint's pin as an address.
func (c *PairingConn) LocalAddr() net.Addr { return addr(c.self) }

// RemoteAddr returns the other endpoint's pin as an address.
func (c *PairingConn) RemoteAddr() net.Addr { return addr(c.peer) }

// Binding returns 32 bytes that only the two endpoints of this conversation
// can know and that both compute alike.
func (c *PairingConn) Binding() []byte { return append([]byte(nil), c.binding...) }

// Close ends the conversation in order. It takes at most a second.
func (c *PairingConn) Close() error { return farewell(c.st, c.tls.CloseWrite) }
