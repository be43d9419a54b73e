package netsim

import (
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a network of datagram sockets without delay that works in virtual
// time.
type memory struct {
	mu      sync.Mutex
	sockets map[string]*memorySocket
	port    int
}

type memorySocket struct {
	net   *memory
	addr  *net.UDPAddr
	inbox chan memoryPacket // sent to by writers, never closed; full is an error of the test
	done  chan struct{}
	once  sync.Once
}

type memoryPacket struct {
	from net.Addr
	data []byte
}

func newMemory() *memory { return &memory{sockets: make(map[string]*memorySocket)} }

func (m *memory) listen(net.Addr) (net.PacketConn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.port++
	s := &memorySocket{
		net: m, addr: &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: m.port},
		inbox: make(chan memoryPacket, 4096), done: make(chan struct{}),
	}
	m.sockets[s.addr.String()] = s
	return s, nil
}

// socket is listen without the ceremony.
func (m *memory) socket() *memorySocket {
	pc, _ := m.listen(nil)
	return pc.(*memorySocket)
}

func (s *memorySocket) WriteTo(p []byte, to net.Addr) (int, error) {
	s.net.mu.Lock()
	dest := s.net.sockets[to.String()]
	s.net.mu.Unlock()
	select {
	case <-s.done:
		return 0, net.ErrClosed
	default:
	}
	if dest != nil {
		select {
		case dest.inbox <- memoryPacket{s.addr, append([]byte(nil), p...)}:
		default:
			panic("inbox full")
		}
	}
	return len(p), nil
}

func (s *memorySocket) ReadFrom(p []byte) (int, net.Addr, error) {
	select {
	case m := <-s.inbox:
		return copy(p, m.data), m.from, nil
	case <-s.done:
		return 0, nil, net.ErrClosed
	}
}

func (s *memorySocket) Close() error {
	s.once.Do(func() { close(s.done) })
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	delete(s.net.sockets, s.addr.String())
	return nil
}

func (s *memorySocket) LocalAddr() net.Addr              { return s.addr }
func (s *memorySocket) SetDeadline(time.Time) error      { panic("not used") }
func (s *memorySocket) SetReadDeadline(time.Time) error  { panic("not used") }
func (s *memorySocket) SetWriteDeadline(time.Time) error { panic("not used") }

// newLine is a Line for a test, closed at its end unless the test does it. In a
// bubble the test must.
func newLine(t testing.TB, cfg Config) *Line {
	t.Helper()
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func wrapPacketConn(t testing.TB, l *Line, pc net.PacketConn) net.PacketConn {
	t.Helper()
	w, err := l.WrapPacketConn(pc)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func wrapConn(t testing.TB, l *Line, nc net.Conn) net.Conn {
	t.Helper()
	w, err := l.WrapConn(nc)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func isTimeout(err error) bool { return os.IsTimeout(err) }
