// Package transport carries streams between an endpoint and a relay. A
// [Session] is one connection; each [Stream] of it is an ordered, reliable,
// flow-controlled pair of halves. QUIC (RFC 9000) is the carrier in quic.go, TLS
// on TCP the one in tcp.go, for networks that block UDP; who holds a Session
// need not know which carrier it is.
//
//	d, err := transport.NewDialer(nil)
//	s, err := d.Dial(ctx, relay, nil)
//	st, err := s.OpenStream(ctx)
//
// What ends a session or a stream is a [wire.Code]. Errors that the other end
// caused are *wire.ResetError and *wire.ClosedError; a connection that went
// silent or was forgotten is a *[LostError].
package transport

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// Stream is one forwarded stream, or the control stream, of a session. Its
// two halves end on their own. One Read and one Write may run at the same time.
type Stream interface {
	// Read returns io.EOF only after the other end's FIN, *wire.ResetError
	// after its reset, net.ErrClosed after an own StopRead or Reset, and the
	// session's error if that is over.
	io.Reader
	// Write returns when all of p is handed to the carrier, which no longer
	// needs p. It fails with *wire.ResetError once the other end reads no more.
	io.Writer
	// CloseWrite ends the write half after what was written. No Write may run.
	// It fails, as a Write would, if the half was reset before.
	CloseWrite() error
	// StopRead says that nothing more will be read, which is not an error: the
	// other end's writes fail with wire.CodeNone, the write half goes on.
	StopRead()
	// Reset aborts both halves with a code that the other end can read.
	// Running Reads and Writes return.
	Reset(wire.Code)
	// OnStop has f called, in a goroutine of its own and once, as soon as the
	// other end reads no more or the session is over, with the error that a
	// Write would return. It is not called after CloseWrite or Reset here.
	// stop gives the call up and reports whether it will never come.
	OnStop(f func(error)) (stop func() bool)
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Session is one connection between an endpoint and a relay. Its methods may
// be called concurrently.
type Session interface {
	// OpenStream opens a stream and waits while the other end allows no more.
	OpenStream(context.Context) (Stream, error)
	// TryOpenStream opens a stream, or fails with ErrNoStream at once.
	TryOpenStream() (Stream, error)
	// AcceptStream returns the next stream that the other end opened.
	AcceptStream(context.Context) (Stream, error)
	// Close tells the other end a code and a sentence, of which it sends at
	// most wire.MaxGoodbyeText bytes, and ends every stream. What was written
	// and not yet sent is lost. A session that is over stays as it ended.
	Close(code wire.Code, text string)
	// Done is closed when the session is over; Err then says why.
	Done() <-chan struct{}
	// Err is nil before Done is closed; afterwards *wire.ClosedError or *LostError.
	Err() error
	// ClientKey is the public key, as DER SubjectPublicKeyInfo, that the
	// client proved to hold; nil if it showed none, and at the client itself.
	ClientKey() []byte
	// RemoteAddr is the other end's network address, for limits. Logs take no
	// more of it than its network.
	RemoteAddr() net.Addr
	// RTT is the smoothed round trip time; 0 before the first measurement.
	RTT() time.Duration
	// Protocol is what carries the session: "QUIC" or "TCP".
	Protocol() string
	// Packets counts the datagrams of the session so far, or the TCP segments
	// where the kernel tells, each way.
	Packets() (sent, received uint64)
	// Silent is how long nothing was heard of the other end, as long as that
	// is more than keep-alives explain: a keep-alive and Patience with its
	// answer. Otherwise, and at the first call, which starts to watch, it is 0.
	// It may be late by half a keep-alive, by less if it is asked for more
	// often. It is a suspicion, not an end: a gap of 1.5 s raises it, too, and
	// because an end that hears nothing sends ever more seldom, such a gap can
	// become a silence of 5 s; a Check then sends at once.
	Silent() time.Duration
	// Check makes the other end say something and returns nil once it has. The
	// context says for how long it may take; see Patience. It fails with the
	// session's error if that ends, and with errors.ErrUnsupported at a relay.
	Check(context.Context) error
	// Migrate moves the session to a socket of its own, and so to the network
	// that the system prefers now, without a pause and only if the other end
	// can be reached from there; an error leaves the session where it was.
	// errors.ErrUnsupported says that it cannot move, or not any more: open
	// another session then.
	Migrate(context.Context) error
}

// Patience is how long an answer from the other end may take after which its
// absence is a reason to look for another way: three round trips, and at least
// half a second.
func Patience(rtt time.Duration) time.Duration { return max(3*rtt, 500*time.Millisecond) }

// LostError says that a connection ended without a word from the other end.
// It is final and wraps nothing: errors.Is finds no net.ErrClosed in it, which
// is what this end closed itself.
type LostError struct {
	// Reset is true if the other end no longer knows the connection, as after
	// its restart; false if nothing was heard for too long, or the carrier
	// failed.
	Reset  bool
	reason string // the carrier's words; empty after a reset
}

func (e *LostError) Error() string {
	if e.Reset {
		return "connection lost: the other end has restarted"
	}
	return "connection lost: " + e.reason
}
