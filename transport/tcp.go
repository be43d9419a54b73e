package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// DialTCP opens a session to a relay by TLS on TCP alone. Otherwise it is as
// Dial. It fails with errors.ErrUnsupported if the dialer has no way to dial TCP.
func (d *Dialer) DialTCP(ctx context.Context, relay wire.Relay, cert *tls.Certificate) (Session, error) {
	if d.dialTCP == nil {
		return nil, fmt.Errorf("relay %s over TCP: %w", relay.Addr, errors.ErrUnsupported)
	}
	tlsConf, err := clientTLS(relay, cert)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, HandshakeTimeout)
	defer cancel()
	defer context.AfterFunc(d.closing, cancel)()
	raw, err := d.dialTCP(ctx, "tcp", tcpAddr(relay))
	if err != nil {
		return nil, tcpDialError(relay, err)
	}
	tune(raw)
	conn := tls.Client(raw, tlsConf)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, tcpDialError(relay, err)
	}
	if conn.ConnectionState().NegotiatedProtocol != wire.ALPN {
		raw.Close()
		return nil, tcpDialError(relay, errOtherService)
	}
	windows := endpointWindows()
	if cert == nil {
		windows.Streams = 0 // as on QUIC: nobody would accept them
	}
	s := newTCPSession(conn, raw, true, windows)
	d.sessions.serve(s)
	return s, nil
}

// tcpAddr is where to dial a relay, at the address that was chosen for it if
// there is one.
func tcpAddr(relay wire.Relay) string {
	addr := relay.TCPAddr()
	if !relay.IP.IsValid() {
		return addr
	}
	_, port, _ := net.SplitHostPort(addr)
	return net.JoinHostPort(relay.IP.String(), port)
}

var errOtherService = errors.New("no common protocol")

// tcpDialError says what is wrong in the user's terms.
func tcpDialError(relay wire.Relay, err error) error {
	addr := relay.TCPAddr()
	var dns *net.DNSError
	var name *tls.CertificateVerificationError
	var timeout net.Error
	switch {
	case errors.Is(err, ErrWrongRelay):
		return fmt.Errorf("relay %s over TCP: %w", addr, ErrWrongRelay)
	case errors.Is(err, errOtherService), strings.Contains(err.Error(), "no application protocol"):
		return fmt.Errorf("relay %s over TCP: what answers there does not speak %s (another service on this port, or a relay of another major version)", addr, wire.ALPN)
	case errors.As(err, &name):
		return fmt.Errorf("relay %s over TCP: its certificate is not publicly trusted for this name; use the address line with #PIN that `blindrelay serve` prints: %v", addr, err)
	case errors.As(err, &dns):
		return fmt.Errorf("relay %s over TCP: the name does not resolve (is it spelled right, is this machine online?): %w", addr, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("relay %s does not listen on TCP there (--listen-tcp), or a firewall refuses it", addr)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("relay %s over TCP: %w", addr, context.Canceled)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("relay %s does not answer over TCP: %w", addr, context.DeadlineExceeded)
	}
	if lost := lostTCP(err); !lost.Reset {
		return fmt.Errorf("relay %s over TCP: %w", addr, lost)
	}
	return fmt.Errorf("relay %s cut the TCP connection before the handshake was done: it limits how many come at a time, is about to stop, or is no relay", addr)
}

// tcpSessions are the sessions of a dialer or a listener, which end with it.
type tcpSessions struct {
	mu      sync.Mutex
	live    map[*tcpSession]struct{}
	closed  bool
	running sync.WaitGroup
}

// serve runs s until it is over, or ends it at once if all are to end.
func (t *tcpSessions) serve(s *tcpSession) {
	t.mu.Lock()
	if !t.closed {
		if t.live == nil {
			t.live = make(map[*tcpSession]struct{})
		}
		t.live[s] = struct{}{}
	}
	t.mu.Unlock()
	if !t.run(func() {
		s.run()
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.live, s)
	}) {
		s.finish(errStops, false)
	}
}

// run runs f in a goroutine that close waits for, unless it was called.
func (t *tcpSessions) run(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.running.Go(f)
	}
	return !t.closed
}

// close ends every session without a word. Those that were closed before have
// their linger to say theirs.
func (t *tcpSessions) close() {
	t.mu.Lock()
	t.closed = true
	for s := range t.live {
		s.finish(errStops, false)
	}
	t.mu.Unlock()
	t.running.Wait()
}

// netDial dials the network of this machine.
func netDial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: HandshakeTimeout, KeepAliveConfig: net.KeepAliveConfig{Enable: false}}
	return d.DialContext(ctx, network, addr)
}
