package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/quic-go/quic-go"
)

// Times of the hop. The keep-alive bounds how long a restarted relay goes
// unnoticed: what follows it draws a stateless reset (see bait.go). It is also
// what Silent waits for: a relay that is gone is suspected after KeepAlive and
// Patience, which is 1.5 s for a device and 2.5 s for an agent with a round trip
// of up to 167 ms. An agent can wait, as a rule it is at a second relay too; but
// a film is not to stop. Nothing is cut before EndpointIdle.
//
// A keep-alive is sent when nothing was received for so long. An idle agent's
// costs half a PING, a bait and an answer per second, 93 bytes per second with
// IPv4 headers, and 65 µs of CPU per second, both ends together; an idle device's
// twice that; who receives a stream sends none.
const (
	KeepAlive        = 2 * time.Second // an agent's
	DeviceKeepAlive  = time.Second
	EndpointIdle     = 10 * time.Second // an endpoint gives a relay up that answers nothing for so long
	RelayIdle        = 30 * time.Second // the smaller of both sides' values rules
	HandshakeTimeout = 10 * time.Second
)

// Windows bounds what one side receives and has not read yet. QUIC's receive
// windows are memory that the sender decides to fill, so they are set on
// purpose.
type Windows struct {
	// Stream is the window of one half of a stream, in bytes. It is memory.
	Stream uint64
	// Streams is how many streams the other end may have open.
	Streams int64
}

// RelayWindows returns what a relay gives each connection. A stream's window
// covers the path between a home and the relay (512 KiB are 100 Mbit/s at
// 40 ms); the jitter buffer behind it absorbs the rest.
func RelayWindows() Windows { return Windows{Stream: 512 << 10, Streams: 256} }

// endpointWindows returns what an endpoint gives its relay: it has few streams
// and memory of its own, and may be 150 ms away.
func endpointWindows() Windows { return Windows{Stream: 2 << 20, Streams: 256} }

// config turns windows into QUIC's terms. A stream's window starts at its
// maximum, so quic-go never enlarges it. The connection's window is credit and
// not memory, and must never be what stops a sender: a few stalled streams
// would then stop all others of the connection. It is the sum of all streams'
// windows, once for the streams that each side opened, and that twice, because
// quic-go renews credit only after a quarter of the window was read.
func (w Windows) config() *quic.Config {
	conn := 4 * w.Stream * uint64(w.Streams)
	return &quic.Config{
		InitialStreamReceiveWindow:     w.Stream,
		MaxStreamReceiveWindow:         w.Stream,
		InitialConnectionReceiveWindow: conn,
		MaxConnectionReceiveWindow:     conn,
		MaxIncomingStreams:             w.Streams,
		MaxIncomingUniStreams:          -1,
		HandshakeIdleTimeout:           HandshakeTimeout / 2, // quic-go allows a handshake twice this
	}
}

// ErrNoStream says that the other end allows no further stream now.
var ErrNoStream = errors.New("the other end allows no further stream now")

type quicSession struct {
	conn  *quic.Conn
	heard *heard
	paths *paths // nil at the relay: the other end is the client
}

func (s quicSession) OpenStream(ctx context.Context) (Stream, error) {
	st, err := s.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, quicError(err)
	}
	return quicStream{st}, nil
}

func (s quicSession) TryOpenStream() (Stream, error) {
	st, err := s.conn.OpenStream()
	if _, full := errors.AsType[*quic.StreamLimitReachedError](err); full {
		return nil, ErrNoStream
	}
	if err != nil {
		return nil, quicError(err)
	}
	return quicStream{st}, nil
}

func (s quicSession) AcceptStream(ctx context.Context) (Stream, error) {
	st, err := s.conn.AcceptStream(ctx)
	if err != nil {
		return nil, quicError(err)
	}
	return quicStream{st}, nil
}

func (s quicSession) Close(code wire.Code, text string) {
	if len(text) > wire.MaxGoodbyeText { // the close must fit into one packet
		text = strings.ToValidUTF8(text[:wire.MaxGoodbyeText], "")
	}
	s.conn.CloseWithError(quic.ApplicationErrorCode(code), text)
}

func (s quicSession) Done() <-chan struct{} { return s.conn.Context().Done() }

func (s quicSession) Err() error {
	if s.conn.Context().Err() == nil {
		return nil
	}
	return quicError(context.Cause(s.conn.Context()))
}

func (s quicSession) ClientKey() []byte {
	if s.paths != nil {
		return nil
	}
	certs := s.conn.ConnectionState().TLS.PeerCertificates
	if len(certs) == 0 {
		return nil
	}
	return certs[0].RawSubjectPublicKeyInfo
}

func (s quicSession) RemoteAddr() net.Addr { return s.conn.RemoteAddr() }
func (s quicSession) RTT() time.Duration   { return s.conn.ConnectionStats().SmoothedRTT }

// Protocol returns "QUIC".
func (s quicSession) Protocol() string { return "QUIC" }

func (s quicSession) Packets() (sent, received uint64) {
	stats := s.conn.ConnectionStats()
	return stats.PacketsSent, stats.PacketsReceived
}

type quicStream struct{ *quic.Stream }

func (s quicStream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	if err != nil {
		err = quicError(err)
	}
	return n, err
}

func (s quicStream) Write(p []byte) (int, error) {
	n, err := s.Stream.Write(p)
	if err != nil {
		err = quicError(err)
	}
	return n, err
}

func (s quicStream) CloseWrite() error {
	if s.Stream.Close() == nil {
		return nil
	}
	return quicError(context.Cause(s.Context())) // the half was reset before
}

func (s quicStream) StopRead() { s.CancelRead(quic.StreamErrorCode(wire.CodeNone)) }

func (s quicStream) Reset(code wire.Code) {
	s.CancelRead(quic.StreamErrorCode(code))
	s.CancelWrite(quic.StreamErrorCode(code))
}

func (s quicStream) OnStop(f func(error)) (stop func() bool) {
	ctx := s.Context() // of the write half
	return context.AfterFunc(ctx, func() {
		if err := quicError(context.Cause(ctx)); err != net.ErrClosed {
			f(err)
		}
	})
}

// quicError turns quic-go's errors into this package's. Ends of file, deadlines
// and contexts pass. What is left ended the connection.
func quicError(err error) error {
	switch e := err.(type) {
	case *quic.StreamError:
		if !e.Remote {
			return net.ErrClosed
		}
		return &wire.ResetError{Code: wire.FromQUIC(uint64(e.ErrorCode))}
	case *quic.ApplicationError:
		return &wire.ClosedError{Code: wire.FromQUIC(uint64(e.ErrorCode)), Text: e.ErrorMessage, Remote: e.Remote}
	case *quic.StatelessResetError:
		return &LostError{Reset: true}
	}
	switch {
	case errors.Is(err, quic.ErrStreamClosed):
		return net.ErrClosed
	case err == io.EOF, errors.Is(err, os.ErrDeadlineExceeded),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return &LostError{reason: err.Error()}
}

// DialQUIC opens a session to a relay by QUIC alone. Otherwise it is as Dial.
func (d *Dialer) DialQUIC(ctx context.Context, relay wire.Relay, cert *tls.Certificate) (Session, error) {
	addr, err := resolve(ctx, relay)
	if err != nil {
		return nil, err
	}
	tlsConf, err := clientTLS(relay, cert)
	if err != nil {
		return nil, err
	}
	conf := endpointWindows().config()
	conf.KeepAlivePeriod = KeepAlive
	conf.MaxIdleTimeout = EndpointIdle
	conf.InitialPacketSize, conf.DisablePathMTUDiscovery = d.packet, d.packet > 0
	if cert == nil {
		conf.KeepAlivePeriod = DeviceKeepAlive
		conf.MaxIncomingStreams = -1 // none: nobody would accept a stream and empty its window
	}
	conn, err := d.tr.Dial(ctx, addr, tlsConf, conf)
	if err != nil {
		return nil, dialError(relay, err)
	}
	d.blocked.Store(false)
	return quicSession{conn: conn, heard: newHeard(conn, conf.KeepAlivePeriod), paths: newPaths(d, conn)}, nil
}
