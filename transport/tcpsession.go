package transport

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

const (
	// linger is how long a session that was closed here has to get its last
	// words out and taken: a socket that is closed with unread bytes in it would
	// destroy them.
	linger = time.Second
	// pingEvery is how often a PING goes with what is sent anyway.
	pingEvery = time.Second
	// freeChunks bounds the chunks that a session keeps for the next bytes.
	freeChunks = 4
	maxStreams = 1<<30 - 1 // that one side can number
)

// errOver ends the reading of frames: the session has ended.
var errOver = errors.New("session over")

// tcpSession is a session over TLS on TCP. Two goroutines serve it: read takes
// frames, write sends what compose puts together. A stream's Write waits until
// its bytes are taken, which happens when the socket has room, so nothing is
// queued before the kernel's own buffer.
type tcpSession struct {
	conn    *tls.Conn
	raw     net.Conn // below conn
	client  bool     // this end dialed
	windows Windows  // that this end gives
	key     []byte   // the client's, at the relay
	begin   time.Time

	// accept has room for every stream that the other end may have opened and
	// that was not accepted: sent to by read, closed by nobody.
	accept chan *tcpStream
	wake   chan struct{} // one pending is enough for write; closed by nobody
	done   chan struct{} // closed by finish
	out    *outbox       // of write

	mu       sync.Mutex        // guards all that follows
	err      error             // why it is over
	goodbye  *wire.ClosedError // what write says last
	counts   [2]uint64         // packets, of a session that is over
	timer    *time.Timer       // runs tick
	streams  map[uint32]*tcpStream
	controls []*tcpStream // that owe a frame other than DATA
	ready    []*tcpStream // that can send DATA, in turn
	spares   []*chunk
	opened   uint32        // streams opened here
	mayOpen  uint32        // how many the other end allows in all
	more     chan struct{} // closed when mayOpen grows, and replaced
	seen     uint32        // streams that the other end opened
	allowed  uint32        // how many it may open in all
	window   int64         // of each stream that is opened here
	greeted  bool          // this end's SETTINGS are sent
	grant    bool          // allowed has grown
	trim     bool          // out is to be made anew, as an idle session needs none
	pong     *[8]byte      // the answer that is due to a PING
	heard    time.Duration // when the last frame was read, since begin
	ping     bool          // a PING is due
	asked    time.Duration // since when, since begin
	pinged   time.Duration // when the last PING went, since begin
	awaited  bool          // its answer is due
	sent     time.Duration // when the last frame went, since begin
	rtt      time.Duration // smoothed, of PINGs
	answered chan struct{} // closed when a PING was answered, and replaced
}

// newTCPSession makes a session of a connection after its handshake. run serves
// it.
func newTCPSession(conn *tls.Conn, raw net.Conn, client bool, windows Windows) *tcpSession {
	s := &tcpSession{
		conn: conn, raw: raw, client: client, windows: windows, begin: time.Now(),
		accept: make(chan *tcpStream, windows.Streams), wake: make(chan struct{}, 1), done: make(chan struct{}),
		out: newOutbox(), streams: make(map[uint32]*tcpStream), more: make(chan struct{}), answered: make(chan struct{}),
		allowed: uint32(windows.Streams), window: firstWindow, ping: true,
	}
	if client {
		s.mayOpen = firstStreams
	} else if certs := conn.ConnectionState().PeerCertificates; len(certs) > 0 {
		s.key = certs[0].RawSubjectPublicKeyInfo
	}
	return s
}

// run serves the session and returns when it is over and its socket closed.
func (s *tcpSession) run() {
	s.mu.Lock()
	if s.err == nil {
		s.timer = time.AfterFunc(KeepAlive, s.tick)
	}
	s.mu.Unlock()
	var wait sync.WaitGroup
	wait.Go(s.read)
	s.write()
	wait.Wait()
	s.raw.Close()
}

func (s *tcpSession) now() time.Duration { return time.Since(s.begin) }

func (s *tcpSession) OpenStream(ctx context.Context) (Stream, error) {
	for {
		s.mu.Lock()
		st, err := s.open()
		more := s.more
		s.mu.Unlock()
		if err != ErrNoStream {
			return st, err
		}
		select {
		case <-more:
		case <-s.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *tcpSession) TryOpenStream() (Stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open()
}

// open needs mu.
func (s *tcpSession) open() (Stream, error) {
	if s.err != nil {
		return nil, s.err
	}
	if s.opened >= s.mayOpen {
		return nil, ErrNoStream
	}
	s.opened++
	st := s.newStream(number(s.opened, s.client))
	st.accepted = true
	return st, nil
}

// number returns the number of one side's nth stream: the client's are odd, as
// in RFC 9113, section 5.1.1.
func number(n uint32, client bool) uint32 {
	if client {
		return 2*n - 1
	}
	return 2 * n
}

// newStream needs mu.
func (s *tcpSession) newStream(id uint32) *tcpStream {
	st := &tcpStream{
		session: s, id: id, readable: make(chan struct{}, 1), writable: make(chan struct{}, 1),
		window: int(s.windows.Stream), credit: s.window,
	}
	st.over, st.end = context.WithCancelCause(context.Background())
	s.streams[id] = st
	return st
}

func (s *tcpSession) AcceptStream(ctx context.Context) (Stream, error) {
	select {
	case <-s.done:
		return nil, s.Err()
	default:
	}
	select {
	case st := <-s.accept:
		s.mu.Lock()
		defer s.mu.Unlock()
		st.accepted = true
		s.settle(st)
		return st, nil
	case <-s.done:
		return nil, s.Err()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *tcpSession) Close(code wire.Code, text string) {
	s.finish(&wire.ClosedError{Code: code, Text: goodbyeText(text)}, true)
}

// goodbyeText cuts a sentence to what a goodbye may hold.
func goodbyeText(text string) string {
	if len(text) > wire.MaxGoodbyeText {
		text = strings.ToValidUTF8(text[:wire.MaxGoodbyeText], "")
	}
	return text
}

// finish ends the session, and tells the other end if say.
func (s *tcpSession) finish(err error, say bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = err
	s.counts[0], s.counts[1] = segments(s.raw)
	if s.timer != nil {
		s.timer.Stop()
	}
	for _, st := range s.streams {
		if !st.fin || len(st.chunks) > 0 {
			st.stopReading(err)
		}
		st.stopWriting(err)
	}
	s.streams, s.controls, s.ready, s.spares = nil, nil, nil, nil
	close(s.done)
	if closed, ok := err.(*wire.ClosedError); ok && say {
		s.goodbye = closed
		s.raw.SetDeadline(time.Now().Add(linger))
	} else {
		s.raw.Close()
	}
	poke(s.wake)
}

func (s *tcpSession) Done() <-chan struct{} { return s.done }

func (s *tcpSession) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *tcpSession) ClientKey() []byte    { return s.key }
func (s *tcpSession) RemoteAddr() net.Addr { return s.raw.RemoteAddr() }

// Protocol returns "TCP".
func (s *tcpSession) Protocol() string { return "TCP" }

// Migrate returns errors.ErrUnsupported: a TCP connection stays on its address.
func (s *tcpSession) Migrate(context.Context) error { return errors.ErrUnsupported }

// RTT is the kernel's measurement, or that of PINGs where there is none.
func (s *tcpSession) RTT() time.Duration {
	if rtt := kernelRTT(s.raw); rtt > 0 {
		return rtt
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rtt
}

// Packets counts TCP segments where the kernel tells.
func (s *tcpSession) Packets() (sent, received uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.counts[0], s.counts[1]
	}
	return segments(s.raw)
}

// Silent is how long the answer to a PING has been awaited in which nothing else
// came either.
func (s *tcpSession) Silent() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked, ok := s.question()
	if !ok || s.err != nil {
		return 0
	}
	return max(0, s.now()-max(s.heard, asked))
}

// Check asks the other end for an answer and waits for it. It fails with the
// session's error or the context's.
func (s *tcpSession) Check(ctx context.Context) error {
	s.mu.Lock()
	if s.err == nil && !s.awaited && !s.ping {
		s.ask(s.now())
	}
	answered := s.answered
	s.mu.Unlock()
	select {
	case <-answered:
		return nil
	case <-s.done:
		return s.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tick looks whether the other end is still there, and asks it if this end
// dialed. As on QUIC, an endpoint asks after KeepAlive and gives up EndpointIdle
// after its question; a relay, which is asked, gives up after EndpointIdle.
func (s *tcpSession) tick() {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.spares, s.trim = nil, true // what a session needs, it gets again
	now := s.now()
	if s.client && !s.awaited && !s.ping && now >= min(s.heard, s.sent)+KeepAlive {
		s.ask(now)
	}
	end := s.heard + EndpointIdle
	if asked, ok := s.question(); ok && s.client {
		end = max(end, asked+EndpointIdle)
	}
	next := end
	if s.client {
		next = min(next, now+KeepAlive)
		if due := min(s.heard, s.sent) + KeepAlive; due > now {
			next = min(next, due)
		}
	}
	if now < end {
		s.timer.Reset(next - now)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	s.finish(&LostError{reason: "nothing was heard of the other end for too long"}, false)
}

// ask has a PING sent as soon as the socket takes it. It needs mu.
func (s *tcpSession) ask(now time.Duration) {
	s.ping, s.asked = true, now
	poke(s.wake)
}

// question returns since when an answer of the other end has been awaited, and
// whether there is one to await. It needs mu.
func (s *tcpSession) question() (since time.Duration, ok bool) {
	if s.awaited {
		return s.pinged, true
	}
	return s.asked, s.ping
}

// lostTCP turns the connection's error into this package's.
func lostTCP(err error) *LostError {
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return &LostError{Reset: true}
	}
	return &LostError{reason: err.Error()}
}

func (s *tcpSession) read() {
	err := readFrames(bufio.NewReaderSize(s.conn, 4<<10), &tcpReader{s: s})
	if wrong, ok := errors.AsType[protocolError](err); ok {
		s.finish(&wire.ClosedError{Code: wire.CodeProtocol, Text: string(wrong)}, true)
	} else if err != errOver {
		s.finish(lostTCP(err), false)
	}
	io.Copy(io.Discard, s.raw) // until the other end has taken the last words
}

func (s *tcpSession) write() {
	for {
		s.mu.Lock()
		last := s.compose()
		s.mu.Unlock()
		if len(s.out.b) > 0 {
			if _, err := s.conn.Write(s.out.b); err != nil {
				s.finish(lostTCP(err), false)
				return
			}
		} else if !last {
			<-s.wake
		}
		if last {
			s.conn.CloseWrite()
			if half, ok := s.raw.(interface{ CloseWrite() error }); ok {
				half.CloseWrite()
			}
			return
		}
	}
}
