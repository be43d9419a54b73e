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
	// Failed is called as that of ListenConfig.
	Failed func(wire.Code)
}

// tcpHandshakes is how many TLS handshakes may be under way. A new one pushes
// out the oldest: an endpoint's takes two round trips, so what has waited long
// is a stranger's.
const tcpHandshakes = 256

// TCPListener accepts sessions over TLS on TCP.
type TCPListener struct {
	*shown
	cfg     TCPListenConfig
	tlsConf *tls.Config
	// sent to by the handshakes' goroutines, closed by nobody, emptied by Stop
	accepted chan Session
	done     chan struct{} // closed by Stop
	stopping sync.Once
	stopErr  error
	wait     sync.WaitGroup // accept and the handshakes
	sessions tcpSessions

	mu     sync.Mutex
	oldest list.List // of net.Conn in a handshake, the oldest in front
}

// ListenTCP starts to accept connections.
func ListenTCP(cfg TCPListenConfig) *TCPListener {
	l := &TCPListener{
		shown: show(cfg.Certificate), cfg: cfg,
		accepted: make(chan Session, acceptQueue), done: make(chan struct{}),
	}
	l.tlsConf = serverTLS(l.shown)
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
			l.wait.Go(func() { l.greet(conn) })
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

// greet makes a session of a connection, or ends it.
func (l *TCPListener) greet(raw net.Conn) {
	place, ok := l.enter(raw)
	if !ok {
		raw.Close()
		return
	}
	tune(raw)
	a := &attempt{}
	a.code.Store(uint32(wire.CodeSilent))
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), attemptKey{}, a), HandshakeTimeout)
	defer cancel()
	conn := tls.Server(raw, l.tlsConf)
	err := conn.HandshakeContext(ctx)
	l.leave(place)
	if err == nil && conn.ConnectionState().NegotiatedProtocol != wire.ALPN {
		err = errOtherService // it asked for no protocol at all
	}
	if err != nil {
		raw.Close()
		l.cfg.Failed(wire.Code(a.code.Load()))
		return
	}
	s := newTCPSession(conn, raw, false, RelayWindows())
	l.sessions.serve(s)
	select {
	case <-l.done:
		l.refuse(s)
		return
	default:
	}
	select {
	case l.accepted <- s:
	case <-l.done:
		l.refuse(s)
	}
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

// refuse ends a session that came too late.
func (l *TCPListener) refuse(s Session) { s.Close(wire.CodeShutdown, "the relay is going down") }

// Accept returns the next session, net.ErrClosed after Stop.
func (l *TCPListener) Accept(ctx context.Context) (Session, error) {
	select {
	case s := <-l.accepted:
		return s, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Stop is that of Listener: it ends handshakes and sessions that nobody accepted.
func (l *TCPListener) Stop() error {
	l.stopping.Do(func() {
		close(l.done)
		l.stopErr = l.cfg.Socket.Close()
		l.mu.Lock()
		for e := l.oldest.Front(); e != nil; e = e.Next() {
			e.Value.(net.Conn).Close()
		}
		l.mu.Unlock()
	})
	l.wait.Wait()
	for {
		select {
		case s := <-l.accepted:
			l.refuse(s)
		default:
			return l.stopErr
		}
	}
}

// Close stops accepting and ends every session without a word. Sessions that
// were closed before have a second at most for their last words to arrive.
func (l *TCPListener) Close() error {
	err := l.Stop()
	l.sessions.close()
	return err
}
