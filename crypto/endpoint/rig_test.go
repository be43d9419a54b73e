package endpoint

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// rig is a session between a device and a home over streams of this process.
type rig struct {
	net.Listener // the agent's; conns are *e2e.Conn
	session      *e2e.Session
	device       e2e.Pin
}

func newRig(t testing.TB) *rig {
	t.Helper()
	home, away := newIdentity(t), newIdentity(t)
	server, err := e2e.NewServer(e2e.ServerConfig{
		Identity: home,
		Admit:    func(e2e.Pin) (e2e.Welcome, error) { return e2e.Welcome{}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	hops := newHops(t)
	open := func(context.Context) (e2e.Stream, error) {
		a, b, err := hops.pair()
		if err == nil {
			server.Handle(1, b)
		}
		return a, err
	}
	first, err := open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := e2e.Connect(t.Context(), first, e2e.ClientConfig{Identity: away, Server: home.Pin(), Open: open})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(wire.CodeNone, "the test is over") })
	if _, err := s.Welcome(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &rig{rigListener{server}, s, away.Pin()}
}

func (r *rig) dial(ctx context.Context) (net.Conn, error) {
	c, err := r.session.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func newIdentity(t testing.TB) *e2e.Identity {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := e2e.NewIdentity(key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

type rigListener struct{ *e2e.Server }

func (l rigListener) Accept() (net.Conn, error) {
	c, err := l.Server.Accept()
	if err != nil {
		return nil, err
	}
	return c, nil
}
func (rigListener) Addr() net.Addr { return nil }

// hops makes pairs of hop streams: TCP connections with a code beside them.
type hops struct {
	mu  sync.Mutex // one pair at a time
	ln  *net.TCPListener
	all []*net.TCPConn
}

func newHops(t testing.TB) *hops {
	t.Helper()
	h := &hops{ln: listen(t).(*net.TCPListener)}
	t.Cleanup(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, c := range h.all {
			c.Close()
		}
	})
	return h
}

func (h *hops) pair() (a, b *hopStream, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x, err := net.DialTCP("tcp", nil, h.ln.Addr().(*net.TCPAddr))
	if err != nil {
		return nil, nil, err
	}
	h.all = append(h.all, x)
	y, err := h.ln.AcceptTCP()
	if err != nil {
		return nil, nil, err
	}
	h.all = append(h.all, y)
	a, b = &hopStream{TCPConn: x}, &hopStream{TCPConn: y}
	a.other, b.other = b, a
	return a, b, nil
}

type hopStream struct {
	*net.TCPConn
	other *hopStream

	mu         sync.Mutex
	readErr    error // what Read returns instead of TCP's error
	writeErr   error
	readStop   bool
	writesStop bool
}

var past = time.Unix(1, 0)

func (s *hopStream) Read(p []byte) (int, error) {
	n, err := s.TCPConn.Read(p)
	return n, s.translate(err, &s.readErr)
}

func (s *hopStream) Write(p []byte) (int, error) {
	n, err := s.TCPConn.Write(p)
	return n, s.translate(err, &s.writeErr)
}

func (s *hopStream) translate(err error, instead *error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && err != io.EOF && *instead != nil {
		return *instead
	}
	return err
}

func (s *hopStream) StopRead() {
	s.mu.Lock()
	s.readErr, s.readStop = net.ErrClosed, true
	s.TCPConn.SetReadDeadline(past)
	s.mu.Unlock()
	o := s.other
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writeErr, o.writesStop = &wire.ResetError{Code: wire.CodeNone}, true
	o.TCPConn.SetWriteDeadline(past)
}

func (s *hopStream) Reset(code wire.Code) {
	s.mu.Lock()
	s.readErr, s.writeErr = net.ErrClosed, net.ErrClosed
	s.mu.Unlock()
	o := s.other
	o.mu.Lock()
	o.readErr, o.writeErr = &wire.ResetError{Code: code}, &wire.ResetError{Code: code}
	o.mu.Unlock()
	s.SetLinger(0)
	s.TCPConn.Close()
}

func (s *hopStream) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readStop {
		return nil
	}
	return s.TCPConn.SetReadDeadline(t)
}

func (s *hopStream) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writesStop {
		return nil
	}
	return s.TCPConn.SetWriteDeadline(t)
}

func (s *hopStream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// serving runs a server until the test ends and demands that it ends without
// an error then.
func serving(t testing.TB, serve func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1) // one value, by the goroutine below
	go func() { ended <- serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the server still runs 10 s after its context ended")
		}
	})
}

// localPortOf joins a local port to the rig's agent and returns its address.
func localPortOf(t testing.TB, r *rig) string {
	t.Helper()
	ln := listen(t)
	serving(t, func(ctx context.Context) error { return ServeLocal(ctx, ln, r.dial, nil) })
	return ln.Addr().String()
}

// dialTCP connects with a deadline for everything.
func dialTCP(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

// wantAbort reads c to its end, which must be an abort.
func wantAbort(t testing.TB, c net.Conn) {
	t.Helper()
	n, err := io.Copy(io.Discard, c)
	if err == nil {
		t.Errorf("after %d bytes the connection ended as if that were all", n)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection hangs after %d bytes", n)
	}
}
