//go:build e2e && linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	blindrelay "github.com/blindrelay/blindrelay/relay"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// wireTap stands between a relay and everybody else. It passes on datagrams
// and TCP connections, and keeps all bytes of each direction of each in a file.
type wireTap struct {
	address string      // HOST:PORT/TCPPORT#PIN to give out in place of the relay's
	refuse  atomic.Bool // drops datagrams from addresses that sent none before

	dir string
	udp *net.UDPConn
	tcp net.Listener
	to  wire.Relay
	wg  sync.WaitGroup // of all goroutines

	mu    sync.Mutex
	ended bool
	open  []io.Closer // sockets and files
	files int
}

// startWireTap starts a tap before the relay with this line, until the test
// ends or close is called.
func startWireTap(t *testing.T, line string) *wireTap {
	t.Helper()
	w := &wireTap{dir: t.TempDir()}
	t.Cleanup(w.close)
	var err error
	if w.to, err = wire.ParseRelay(line); err != nil {
		t.Fatal(err)
	}
	if w.udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0"))); err != nil {
		t.Fatal(err)
	}
	w.keep(w.udp)
	if w.tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	w.keep(w.tcp)
	must(t, w.udp.SetReadBuffer(4<<20))
	w.wg.Go(w.serveUDP)
	w.wg.Go(w.serveTCP)
	at := wire.Relay{Addr: w.udp.LocalAddr().String(), Pin: w.to.Pin, TCPPort: uint16(w.tcp.Addr().(*net.TCPAddr).Port)}
	w.address = at.String()
	return w
}

// close ends all connections and completes the files.
func (w *wireTap) close() {
	w.mu.Lock()
	w.ended = true
	for _, c := range w.open {
		c.Close()
	}
	w.open = nil
	w.mu.Unlock()
	w.wg.Wait()
}

// keep closes c with the tap, at once if that has ended.
func (w *wireTap) keep(c io.Closer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		c.Close()
		return
	}
	w.open = append(w.open, c)
}

// file makes the file of one direction. Who cannot write it stops passing on.
func (w *wireTap) file() io.Writer {
	w.mu.Lock()
	w.files++
	name := filepath.Join(w.dir, fmt.Sprint(w.files))
	w.mu.Unlock()
	f, err := os.Create(name)
	if err != nil {
		return failing{err}
	}
	w.keep(f)
	return f
}

type failing struct{ error }

func (f failing) Write([]byte) (int, error) { return 0, f }

// serveUDP gives each address a socket of its own towards the relay.
func (w *wireTap) serveUDP() {
	type flow struct {
		conn net.Conn
		kept io.Writer
	}
	flows := make(map[netip.AddrPort]flow)
	buf := make([]byte, 64<<10)
	for {
		n, from, err := w.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			return // closed
		}
		f, ok := flows[from]
		if !ok {
			if w.refuse.Load() {
				continue
			}
			conn, err := net.Dial("udp", w.to.Addr)
			if err != nil {
				return
			}
			conn.(*net.UDPConn).SetReadBuffer(4 << 20) // as far as the system allows
			w.keep(conn)
			f = flow{conn, w.file()}
			flows[from] = f
			w.wg.Go(func() { w.answer(conn, from, w.file()) })
		}
		if _, err := f.kept.Write(buf[:n]); err != nil {
			return
		}
		f.conn.Write(buf[:n]) // a datagram may get lost
	}
}

func (w *wireTap) answer(conn net.Conn, to netip.AddrPort, kept io.Writer) {
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // the relay's port was closed for a moment
		}
		if _, err := kept.Write(buf[:n]); err != nil {
			return
		}
		w.udp.WriteToUDPAddrPort(buf[:n], to)
	}
}

func (w *wireTap) serveTCP() {
	host, port, _ := net.SplitHostPort(w.to.Addr) // a relay's address has both
	if w.to.TCPPort != 0 {
		port = fmt.Sprint(w.to.TCPPort)
	}
	for {
		in, err := w.tcp.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", net.JoinHostPort(host, port))
		if err != nil {
			in.Close()
			continue
		}
		w.keep(in)
		w.keep(out)
		for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
			w.wg.Go(func() {
				io.Copy(io.MultiWriter(w.file(), way[1]), way[0]) // what breaks, breaks for both
				way[1].(*net.TCPConn).CloseWrite()
			})
		}
	}
}

// streamTap keeps all that a relay inside the test reads from streams and
// writes to them: what is left when the encryption between it and the
// endpoints is taken away.
type streamTap struct {
	blindrelay.Listener
	kept *kept
}

// kept is one sequence of bytes for each direction of each stream.
type kept struct {
	mu     sync.Mutex
	halves []*halfKept
}

type halfKept struct {
	mu sync.Mutex
	b  []byte
}

func (w *halfKept) add(p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b = append(w.b, p...)
}

func (k *kept) half() *halfKept {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := &halfKept{}
	k.halves = append(k.halves, w)
	return w
}

// each calls f with each sequence as it is so far.
func (k *kept) each(f func(b []byte)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.halves {
		w.mu.Lock()
		f(w.b)
		w.mu.Unlock()
	}
}

func (t streamTap) Accept(ctx context.Context) (transport.Session, error) {
	s, err := t.Listener.Accept(ctx)
	if err != nil {
		return nil, err
	}
	return keptSession{s, t.kept}, nil
}

type keptSession struct {
	transport.Session
	kept *kept
}

func (s keptSession) stream(st transport.Stream, err error) (transport.Stream, error) {
	if err != nil {
		return nil, err
	}
	return keptStream{st, s.kept.half(), s.kept.half()}, nil
}

func (s keptSession) AcceptStream(ctx context.Context) (transport.Stream, error) {
	return s.stream(s.Session.AcceptStream(ctx))
}

func (s keptSession) TryOpenStream() (transport.Stream, error) {
	return s.stream(s.Session.TryOpenStream())
}

func (s keptSession) OpenStream(ctx context.Context) (transport.Stream, error) {
	return s.stream(s.Session.OpenStream(ctx))
}

type keptStream struct {
	transport.Stream
	read, written *halfKept
}

func (s keptStream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	s.read.add(p[:n])
	return n, err
}

func (s keptStream) Write(p []byte) (int, error) {
	n, err := s.Stream.Write(p)
	s.written.add(p[:n])
	return n, err
}
