package udp

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"
)

const (
	migrants = 8 // connections
	moves    = 4 // changes of port of each
	burst    = 64 << 10
)

// Clients whose port changes in mid-stream, as behind a NAT that forgets, stay
// on their sockets and lose nothing. Without the steering program they do not:
// the packets after a change reach a socket that knows nothing of them.
func TestConnectionsSurviveChangesOfPort(t *testing.T) {
	t.Run("steered", func(t *testing.T) {
		g := listen(t, Config{Addr: "127.0.0.1:0", Sockets: 4})
		if n := survivors(t, g); n != migrants {
			t.Errorf("%d of %d connections survived", n, migrants)
		}
	})
	t.Run("not steered", func(t *testing.T) {
		g := listen(t, Config{Addr: "127.0.0.1:0", Sockets: 4})
		if err := control(g.conns[0], func(fd int) error {
			return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0)
		}); err != nil {
			t.Skip("the kernel cannot take the program away again (Linux 5.3): ", err)
		}
		// A connection survives by chance with 1/4 per move, 1/256 in all.
		if n := survivors(t, g); n > migrants/2 {
			t.Errorf("%d of %d connections survived without steering: the test above shows nothing", n, migrants)
		}
	})
}

// survivors runs a server on the group and clients against it, and returns how
// many had every byte echoed across all changes of port.
func survivors(t *testing.T, g *Group) int {
	serverTLS, clientTLS := certificates(t)
	resetKey := quic.StatelessResetKey{1} // tells the lost ones at once
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	conf := &quic.Config{MaxIdleTimeout: 5 * time.Second}
	for i, conn := range g.Conns() {
		tr := &quic.Transport{Conn: conn, ConnectionIDGenerator: g.ConnectionIDGenerator(i), StatelessResetKey: &resetKey}
		ln, err := tr.Listen(serverTLS, conf)
		if err != nil {
			t.Fatal(err)
		}
		wait.Go(func() {
			defer tr.Close()
			defer ln.Close()
			for {
				c, err := ln.Accept(ctx)
				if err != nil {
					return
				}
				wait.Go(func() { echo(ctx, c) })
			}
		})
	}
	var alive atomic.Int32
	var clients sync.WaitGroup
	for i := range migrants {
		clients.Go(func() {
			if err := migrate(ctx, addrOf(g), clientTLS, conf); err != nil {
				t.Logf("connection %d: %v", i, err)
				return
			}
			alive.Add(1)
		})
	}
	clients.Wait()
	return int(alive.Load())
}

func echo(ctx context.Context, c *quic.Conn) {
	defer c.CloseWithError(0, "")
	s, err := c.AcceptStream(ctx)
	if err != nil {
		return
	}
	io.Copy(s, s)
	s.Close()
	select {
	case <-c.Context().Done():
	case <-ctx.Done():
	}
}

// migrate echoes bursts over one stream and changes the client's port while
// each is under way.
func migrate(ctx context.Context, server *net.UDPAddr, tlsConf *tls.Config, conf *quic.Config) error {
	n, err := newNAT(server)
	if err != nil {
		return err
	}
	defer n.close()
	local, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer local.Close()
	tr := &quic.Transport{Conn: local}
	defer tr.Close()
	c, err := tr.Dial(ctx, n.inside.LocalAddr(), tlsConf, conf)
	if err != nil {
		return err
	}
	defer c.CloseWithError(0, "")
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	s.SetDeadline(time.Now().Add(20 * time.Second))
	data, got := make([]byte, burst), make([]byte, burst)
	// The first burst is before any move: a client must not move before the
	// handshake is confirmed (RFC 9000 section 9).
	for move := range moves + 1 {
		rand.Read(data)
		if _, err := s.Write(data[:burst/2]); err != nil {
			return fmt.Errorf("before move %d: %w", move, err)
		}
		if move > 0 {
			if err := n.move(); err != nil {
				return err
			}
		}
		if _, err := s.Write(data[burst/2:]); err != nil {
			return fmt.Errorf("after %d moves: %w", move, err)
		}
		if _, err := io.ReadFull(s, got); err != nil {
			return fmt.Errorf("after %d moves: %w", move, err)
		}
		if !bytes.Equal(got, data) {
			return fmt.Errorf("after %d moves: other bytes came back", move)
		}
	}
	return nil
}

// nat forwards one client's packets to the server from a port that can change.
type nat struct {
	inside *net.UDPConn
	server *net.UDPAddr
	client atomic.Pointer[net.UDPAddr]
	wait   sync.WaitGroup

	mu      sync.Mutex
	outside *net.UDPConn
}

func newNAT(server *net.UDPAddr) (*nat, error) {
	inside, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	n := &nat{inside: inside, server: server}
	if err := n.move(); err != nil {
		inside.Close()
		return nil, err
	}
	n.wait.Go(func() {
		buf := make([]byte, 2048)
		for {
			k, from, err := inside.ReadFromUDP(buf)
			if err != nil {
				return
			}
			n.client.Store(from)
			n.mu.Lock()
			out := n.outside
			n.mu.Unlock()
			out.Write(buf[:k])
		}
	})
	return n, nil
}

// move takes another port; what arrives at the old one from here on is lost.
func (n *nat) move() error {
	out, err := net.DialUDP("udp4", nil, n.server)
	if err != nil {
		return err
	}
	n.mu.Lock()
	old := n.outside
	n.outside = out
	n.mu.Unlock()
	if old != nil {
		old.Close()
	}
	n.wait.Go(func() {
		buf := make([]byte, 2048)
		for {
			k, err := out.Read(buf)
			if err != nil {
				return
			}
			n.inside.WriteToUDP(buf[:k], n.client.Load())
		}
	})
	return nil
}

func (n *nat) close() {
	n.inside.Close()
	n.mu.Lock()
	n.outside.Close()
	n.mu.Unlock()
	n.wait.Wait()
}

func certificates(t *testing.T) (server, client *tls.Config) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"relay"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	protos := []string{"echo"}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: protos},
		&tls.Config{RootCAs: roots, ServerName: "relay", NextProtos: protos}
}
