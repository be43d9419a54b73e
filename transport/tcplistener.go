package transport

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// TCPListenConfig is what a relay listens with for endpoints whose network
// blocks UDP.
type TCPListenConfig struct {
	Socket      net.Listener    // owned by the listener from then on
	Certificate tls.Certificate // SetCertificate replaces it
	// Handshakes and Failed are those of ListenConfig.
	Handshakes *Handshakes
	Failed     func(wire.Code)
}

// tcpHandshakes is how many TLS handshakes may be under way. A new one pushes
// out the oldest: an endpoint's takes two round trips, so what has waited long
// is a stranger's.
const tcpHandshakes = 256

// TCPListener accepts sessions over TLS on TCP.
type TCPListener struct {
	*shown
	*queue
	cfg     TCPListenConfig
	tlsConf *tls.Config
	ending  sync.Once
	stopErr error
	wait    sync.WaitGroup // accept and the handshakes
	running tcpSessions

	mu     sync.Mutex
	oldest list.List // of net.Conn in a handshake, the oldest in front
}

// ListenTCP starts to accept connections.
func ListenTCP(cfg TCPListenConfig) *TCPListener {
	l := &TCPListener{shown: show(cfg.Certificate), queue: newQueue(acceptQueue), cfg: cfg}
	l.tlsConf = serverTLS(l.shown)
	if l.cfg.Handshakes == nil {
		l.cfg.Handshakes = NewHandshakes(HandshakeLimits{})
	}
	if l.cfg.Failed == nil {
		l.cfg.Failed = func(wire.Code) {}
	}
	l.wait.Go(l.accept)
	return l
}

// acceptPause is how long the listener waits after an error, as without a file
// descriptor to spare.
const acceptPause = 50 * time.Millisecond

func (l *TCPListener) accept() {
	for {
		conn, err := l.cfg.Socket.Accept()
		switch {
		case err == nil:
			if h, ok := l.begin(conn); ok {
				l.wait.Go(func() { l.greet(conn, h) })
			}
		case errors.Is(err, net.ErrClosed):
			return
		default:
			select {
			case <-time.After(acceptPause):
			case <-l.done:
				return
			}
		}
	}
}

// begin counts a handshake, or ends the connection of one too many.
func (l *TCPListener) begin(conn net.Conn) (_ *handshake, ok bool) {
	if l.take() {
		if h, ok := l.cfg.Handshakes.begin(conn.RemoteAddr(), true); ok {
			return h, true
		}
		l.give()
	}
	discard(conn)
	l.cfg.Failed(wire.CodeHandshakeLimit)
	return nil, false
}

// discard ends a connection at once and leaves nothing of it in the kernel.
func discard(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}

// greet makes a session of a connection, or ends it.
func (l *TCPListener) greet(raw net.Conn, h *handshake) {
	conn, ok := l.shake(raw, h)
	if !ok {
		l.give()
		raw.Close()
		return
	}
	s := newTCPSession(conn, raw, false, RelayWindows())
	l.running.serve(s)
	l.put(s)
}

// shake shakes hands, unless the listener has stopped.
func (l *TCPListener) shake(raw net.Conn, h *handshake) (_ *tls.Conn, ok bool) {
	defer h.end(true)
	place, ok := l.enter(raw)
	if !ok {
		return nil, false
	}
	defer l.leave(place)
	tune(raw)
	a := newAttempt(h)
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), attemptKey{}, a), h.patience)
	defer cancel()
	conn := tls.Server(raw, l.tlsConf)
	err := conn.HandshakeContext(ctx)
	if err == nil && conn.ConnectionState().NegotiatedProtocol != wire.ALPN {
		err = errOtherService // it asked for no protocol at all
	}
	if err != nil {
		l.cfg.Failed(wire.Code(a.code.Load()))
	}
	return conn, err == nil
}

// enter adds a handshake, unless the listener has stopped.
func (l *TCPListener) enter(raw net.Conn) (place *list.Element, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.done:
		return nil, false
	default:
	}
	if l.oldest.Len() == tcpHandshakes {
		l.oldest.Remove(l.oldest.Front()).(net.Conn).Close()
	}
	return l.oldest.PushBack(raw), true
}

// leave takes a handshake out again, unless it was pushed out.
func (l *TCPListener) leave(place *list.Element) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.oldest.Remove(place)
}

// Stop is that of Listener: it ends handshakes and sessions that nobody accepted.
func (l *TCPListener) Stop() error {
	l.ending.Do(func() {
		l.stop()
		l.stopErr = l.cfg.Socket.Close()
		l.mu.Lock()
		for e := l.oldest.Front(); e != nil; e = e.Next() {
			e.Value.(net.Conn).Close()
		}
		l.mu.Unlock()
	})
	l.wait.Wait()
	l.empty()
	return l.stopErr
}

// Close stops accepting and ends every session without a word. Sessions that
// were closed before have a second at most for their last words to arrive.
func (l *TCPListener) Close() error {
	err := l.Stop()
	l.running.close()
	return err
}
