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
	// Failed is called for each connection attempt that came to nothing, with
	// wire.CodeVersion if the client speaks another protocol (ALPN) and
	// wire.CodeSilent otherwise. It may be nil and must not block.
	Failed func(wire.Code)
}

// Listener accepts sessions on all sockets of a relay.
type Listener struct {
	*shown
	transports []*quic.Transport
	listeners  []*quic.Listener
	// sessions: sent to by the accept goroutines, one for each socket; closed
	// by nobody, emptied by Stop. Its room outlasts quic-go's own queue of 32
	// handshakes, which refuses what comes when it is full.
	sessions chan Session
	attempts atomic.Int64  // handshakes under way
	done     chan struct{} // closed by Close
	closing  sync.Once
	wait     sync.WaitGroup
}

const acceptQueue = 1024

// calmHandshakes is how many handshakes may be under way before further clients
// must show first that they receive at the address that they send from (Retry,
// RFC 9000, section 8.1.2), which costs them a round trip and the relay nothing.
// A handshake costs some 70 KiB for up to 5 s, and who forges addresses could
// begin any number of them.
const calmHandshakes = 128

// attempt is a connection from its first packet on.
type attempt struct {
	code     atomic.Uint32 // why it fails, if it does
	accepted func() bool   // stops the failure report
}

type attemptKey struct{}

// Listen starts to accept connections. The listener does not own the sockets.
func Listen(cfg ListenConfig) (*Listener, error) {
	l := &Listener{shown: show(cfg.Certificate), sessions: make(chan Session, acceptQueue), done: make(chan struct{})}
	conf := RelayWindows().config()
	conf.MaxIdleTimeout = RelayIdle
	tlsConf := serverTLS(l.shown)
	for _, s := range cfg.Sockets {
		tr := &quic.Transport{
			Conn:                  s.Conn,
			ConnectionIDLength:    connIDLen,
			ConnectionIDGenerator: s.IDs,
			StatelessResetKey:     (*quic.StatelessResetKey)(&cfg.ResetKey),
			TokenGeneratorKey:     (*quic.TokenGeneratorKey)(&cfg.TokenKey),
			VerifySourceAddress:   func(net.Addr) bool { return l.attempts.Load() >= calmHandshakes },
			ConnContext:           l.watchAttempts(cfg.Failed),
		}
		l.transports = append(l.transports, tr)
		ln, err := tr.Listen(tlsConf, conf)
		if err != nil {
			l.Close()
			return nil, err
		}
		l.listeners = append(l.listeners, ln)
		l.wait.Add(1)
		go l.accept(ln)
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

func (l *Listener) watchAttempts(failed func(wire.Code)) func(context.Context, *quic.ClientInfo) (context.Context, error) {
	return func(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
		a := &attempt{}
		a.code.Store(uint32(wire.CodeSilent))
		l.attempts.Add(1)
		a.accepted = context.AfterFunc(ctx, func() {
			l.attempts.Add(-1)
			if failed != nil {
				failed(wire.Code(a.code.Load()))
			}
		})
		return context.WithValue(ctx, attemptKey{}, a), nil
	}
}

func (l *Listener) accept(ln *quic.Listener) {
	defer l.wait.Done()
	for {
		conn, err := ln.Accept(context.Background())
		if err != nil {
			return
		}
		if a, ok := conn.Context().Value(attemptKey{}).(*attempt); ok && a.accepted() {
			l.attempts.Add(-1)
		}
		s := quicSession{conn: conn, heard: newHeard(conn, KeepAlive)}
		select {
		case <-l.done:
			l.refuse(s)
			continue // until quic-go's queue is empty
		default:
		}
		select {
		case l.sessions <- s:
		case <-l.done:
			l.refuse(s)
		}
	}
}

// refuse ends a session that came too late.
func (l *Listener) refuse(s Session) { s.Close(wire.CodeShutdown, "the relay is going down") }

// Accept returns the next session, net.ErrClosed after Stop.
func (l *Listener) Accept(ctx context.Context) (Session, error) {
	select {
	case s := <-l.sessions:
		return s, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Stop accepts no further session; those that Accept returned go on, all
// others are closed with wire.CodeShutdown.
func (l *Listener) Stop() error {
	l.closing.Do(func() { close(l.done) })
	var errs []error
	for _, ln := range l.listeners {
		errs = append(errs, ln.Close())
	}
	l.wait.Wait()
	for {
		select {
		case s := <-l.sessions:
			l.refuse(s)
		default:
			return errors.Join(errs...)
		}
	}
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
