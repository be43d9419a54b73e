package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/quic-go/quic-go"
)

// resolve looks up the relay's host, unless that has been done. It prefers what
// the resolver lists first.
func resolve(ctx context.Context, relay wire.Relay) (*net.UDPAddr, error) {
	hostport := relay.Addr
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	n, err := net.DefaultResolver.LookupPort(ctx, "udp", port)
	if err != nil {
		return nil, fmt.Errorf("relay %s: %w", hostport, err)
	}
	if relay.IP.IsValid() {
		return net.UDPAddrFromAddrPort(netip.AddrPortFrom(relay.IP, uint16(n))), nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, uint16(n))), nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("relay %s: the name does not resolve (is it spelled right, is this machine online?): %w", hostport, err)
	}
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(ips[0].Unmap(), uint16(n))), nil
}

// TLS alerts as QUIC carries them (RFC 9001, section 4.8).
const alertNoApplicationProtocol = 0x178

func dialError(relay wire.Relay, err error) error {
	if errors.Is(err, ErrWrongRelay) {
		return fmt.Errorf("relay %s: %w", relay.Addr, ErrWrongRelay)
	}
	if te, ok := errors.AsType[*quic.TransportError](err); ok {
		switch {
		case te.ErrorCode == alertNoApplicationProtocol:
			return fmt.Errorf("relay %s: what answers there does not speak %s (another service on this port, or a relay of another major version)", relay.Addr, wire.ALPN)
		case te.ErrorCode == quic.ConnectionRefused:
			// A relay that stops says the same, and what is said here is true of it.
			return fmt.Errorf("relay %s refuses connections now, it limits how many come at a time or is about to stop: %w", relay.Addr,
				&wire.ClosedError{Code: wire.CodeHandshakeLimit, Remote: true})
		case te.ErrorCode.IsCryptoError() && !te.Remote && !relay.Pinned():
			return fmt.Errorf("relay %s: its certificate is not publicly trusted for this name; use the address line with #PIN that `blindrelay serve` prints: %v", relay.Addr, err)
		}
	}
	silent := errors.Is(err, context.DeadlineExceeded)
	if _, ok := errors.AsType[*quic.IdleTimeoutError](err); ok {
		silent = true
	}
	if _, ok := errors.AsType[*quic.HandshakeTimeoutError](err); ok {
		silent = true
	}
	if silent {
		return fmt.Errorf("relay %s does not answer: is it running, is UDP on this port open in its firewall and in this network? %w", relay.Addr, quicError(err))
	}
	return fmt.Errorf("relay %s: %w", relay.Addr, quicError(err))
}
