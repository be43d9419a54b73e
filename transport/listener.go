package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/quic-go/quic-go"
)

// Socket is one of a relay's UDP sockets.
type Socket struct {
	Conn net.PacketConn
	// IDs makes connection IDs that the kernel steers to this socket; nil if
	// there is no other socket.
	IDs quic.ConnectionIDGenerator
}

// ListenConfig is what a relay listens with.
type ListenConfig struct {
	Sockets     []Socket
	Certificate tls.Certificate // SetCertificate replaces it
	// ResetKey signs stateless resets, TokenKey address validation tokens.
	// Both must be the same after a restart.
	ResetKey, TokenKey [32]byte
	// Handshakes bounds handshakes. All listeners of a relay share one. Nil: this
	// listener has its own, with the defaults.
	Handshakes *Handshakes
	// Failed is called for each connection attempt that came to nothing, with
	// wire.CodeVersion if the client speaks another protocol (ALPN),
	// wire.CodeHandshakeLimit if Handshakes did not let it begin, and
	// wire.CodeSilent otherwise. It may be nil and must not block.
	Failed func(wire.Code)
}

// Listener accepts sessions on all sockets of a relay.
type Listener struct {
	*shown
	*queue
	transports []*quic.Transport
	listeners  []*quic.Listener
	handshakes *Handshakes
	failed     func(wire.Code)
	wait       sync.WaitGroup // goroutines that accept
}

// attempt is a connection from its first packet on.
type attempt struct {
	code      atomic.Uint32 // why it fails, if it does
	handshake *handshake
	accepted  func() bool // stops the report of a failure
}

func newAttempt(h *handshake) *attempt {
	a := &attempt{handshake: h}
	a.code.Store(uint32(wire.CodeSilent))
	return a
}

type attemptKey struct{}

// Listen starts to accept connections. The listener does not own the sockets.
func Listen(cfg ListenConfig) (*Listener, error) {
	l := &Listener{
		shown: show(cfg.Certificate), queue: newQueue(acceptQueue),
		handshakes: cfg.Handshakes, failed: cfg.Failed,
	}
	if l.handshakes == nil {
		l.handshakes = NewHandshakes(HandshakeLimits{})
	}
	if l.failed == nil {
		l.failed = func(wire.Code) {}
	}
	conf := RelayWindows().config()
	conf.MaxIdleTimeout = RelayIdle
	conf.GetConfigForClient = func(*quic.ClientInfo) (*quic.Config, error) {
		c := *conf
		c.HandshakeIdleTimeout = l.handshakes.patience() / 2 // as in config
		return &c, nil
	}
	tlsConf := serverTLS(l.shown)
	for _, s := range cfg.Sockets {
		d := newDoor()
		tr := &quic.Transport{
			Conn:                  s.Conn,
			ConnectionIDLength:    connIDLen,
			ConnectionIDGenerator: s.IDs,
			StatelessResetKey:     (*quic.StatelessResetKey)(&cfg.ResetKey),
			TokenGeneratorKey:     (*quic.TokenGeneratorKey)(&cfg.TokenKey),
			VerifySourceAddress:   l.handshakes.doubts,
			ConnContext: func(ctx context.Context, c *quic.ClientInfo) (context.Context, error) {
				return l.begin(ctx, c, d)
			},
		}
		l.transports = append(l.transports, tr)
		ln, err := tr.Listen(tlsConf, conf)
		if err != nil {
			l.Close()
			return nil, err
		}
		l.listeners = append(l.listeners, ln)
		d.ln = ln
		first := d.again()
		l.wait.Go(func() { l.accept(first, d) })
		close(d.opened)
	}
	return l, nil
}

// shown is the certificate of handshakes.
type shown struct {
	now atomic.Pointer[tls.Certificate]
}

func show(cert tls.Certificate) *shown {
	s := &shown{}
	s.now.Store(&cert)
	return s
}

// SetCertificate replaces the certificate for the handshakes that begin from
// now on. Sessions go on.
func (s *shown) SetCertificate(cert tls.Certificate) { s.now.Store(&cert) }

func (s *shown) get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.now.Load(), nil }

// serverTLS asks for the client's certificate and takes any, or none: an
// agent's route is the hash of its key, and TLS has shown that it holds it.
func serverTLS(cert *shown) *tls.Config {
	c := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{wire.ALPN},
		GetCertificate:         cert.get,
		ClientAuth:             tls.RequestClientCert,
		SessionTicketsDisabled: true,
	}
	c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if a, ok := h.Context().Value(attemptKey{}).(*attempt); ok && !slices.Contains(h.SupportedProtos, wire.ALPN) {
			a.code.Store(uint32(wire.CodeVersion))
		}
		return nil, nil
	}
	return c
}

// errTooMany refuses a connection: quic-go keeps nothing of it and answers with
// CONNECTION_REFUSED, or not at all when it has many to answer.
var errTooMany = errors.New("no more handshakes now")

// begin is called for each new connection before anything is kept of it.
func (l *Listener) begin(ctx context.Context, c *quic.ClientInfo, d *door) (context.Context, error) {
	if !l.take() {
		l.failed(wire.CodeHandshakeLimit)
		return nil, errTooMany
	}
	h, ok := l.handshakes.begin(c.RemoteAddr, c.AddrVerified)
	if !ok {
		l.give()
		l.failed(wire.CodeHandshakeLimit)
		return nil, errTooMany
	}
	if further := d.began(); further != nil {
		l.wait.Go(func() { l.accept(further, d) })
	}
	a := newAttempt(h)
	a.accepted = context.AfterFunc(ctx, func() {
		d.ended()
		h.end(false)
		l.give()
		l.failed(wire.Code(a.code.Load()))
	})
	return context.WithValue(ctx, attemptKey{}, a), nil
}

// accept puts the connections that come in at a door into the queue.
func (l *Listener) accept(ctx context.Context, d *door) {
	for ; ctx != nil; ctx = d.again() {
		conn, err := d.accept(ctx)
		if err != nil {
			return
		}
		if a := conn.Context().Value(attemptKey{}).(*attempt); a.accepted() {
			d.ended()
			a.handshake.end(true)
			l.put(quicSession{conn: conn, heard: newHeard(conn, KeepAlive)})
		}
	}
}

// Stop accepts no further session; those that Accept returned go on, all
// others are closed with wire.CodeShutdown.
func (l *Listener) Stop() error {
	l.stop()
	var errs []error
	for _, ln := range l.listeners {
		errs = append(errs, ln.Close())
	}
	l.wait.Wait()
	l.empty()
	return errors.Join(errs...)
}

// Close stops accepting and ends every session without a word: who wants to
// say goodbye closes the sessions first.
func (l *Listener) Close() error {
	errs := []error{l.Stop()}
	for _, tr := range l.transports {
		errs = append(errs, tr.Close())
	}
	return errors.Join(errs...)
}
