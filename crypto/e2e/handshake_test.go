package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

func TestWrongServer(t *testing.T) {
	w := newWorld(t, nil)
	id := w.allow(newIdentity(t))
	cfg := w.config(id, 1)
	cfg.Server = newIdentity(t).Pin()
	s, err := Connect(context.Background(), w.open(1), cfg)
	if err == nil {
		s.Close(0, "")
		t.Fatal("connected to a server with another key")
	}
	if n := len(w.server.Sessions()); n != 0 {
		t.Errorf("the wrong server has %d sessions: it has seen the device's key", n)
	}
}

// TestOtherProfiles: an agent refuses every device whose handshake is not the
// one of the protocol, and a device every such agent.
func TestOtherProfiles(t *testing.T) {
	cases := map[string]func(*tls.Config){
		"none":         func(*tls.Config) {},
		"TLS 1.2":      func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"X25519":       func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519} },
		"P-256":        func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP256} },
		"no ALPN":      func(c *tls.Config) { c.NextProtos = nil },
		"other ALPN":   func(c *tls.Config) { c.NextProtos = []string{"h2"} },
		"pairing ALPN": func(c *tls.Config) { c.NextProtos = []string{alpnPairing} },
		"two certificates": func(c *tls.Config) {
			cert := c.Certificates[0]
			cert.Certificate = [][]byte{cert.Certificate[0], cert.Certificate[0]}
			c.Certificates = []tls.Certificate{cert}
		},
		"RSA":            func(c *tls.Config) { c.Certificates = []tls.Certificate{rsaCertificate(t)} },
		"no certificate": func(c *tls.Config) { c.Certificates = nil },
	}
	for name, change := range cases {
		t.Run("device with "+name, func(t *testing.T) {
			w := newWorld(t, nil)
			id := w.allow(newIdentity(t))
			cfg := clientTLS(id, w.id.Pin(), alpnSession)
			cfg.VerifyConnection = nil
			change(cfg)
			conn := tls.Client(&hop{Stream: w.open(1), prefix: []byte{kindControl}}, cfg)
			err := conn.Handshake()
			if err == nil {
				_, err = ReadFrame(conn) // WELCOME, or what refused
			}
			if (err == nil) != (name == "none") {
				t.Errorf("handshake: %v", err)
			}
			conn.Close()
		})
		t.Run("agent with "+name, func(t *testing.T) {
			agent := newIdentity(t)
			cfg := serverTLS(agent, alpnSession)
			cfg.VerifyConnection = nil
			change(cfg)
			a, b := newPipe(1 << 20)
			done := make(chan struct{})
			go func() {
				defer close(done)
				b.Read(make([]byte, 1))
				conn := tls.Server(&hop{Stream: b}, cfg)
				if conn.Handshake() != nil {
					conn.Close()
				}
			}()
			_, cs, err := dial(context.Background(), a, ClientConfig{Identity: newIdentity(t), Server: agent.Pin()}, alpnSession)
			if (err == nil) != (name == "none") {
				t.Errorf("dial: %v, %+v", err, cs)
			}
			<-done
		})
	}
}

func rsaCertificate(t *testing.T) tls.Certificate {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewIdentity(key); err == nil {
		t.Error("an RSA key became an identity")
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// controlled runs one session whose control stream goes through up and down,
// in virtual time, and says how far it came: whether the device was welcomed,
// and whether both sides then have the same secret.
func controlled(t *testing.T, device, agent *Identity, up, down func([]byte) []byte) (welcomed, same bool, bytesUp, bytesDown int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, id: agent, devices: map[Pin]Welcome{device.Pin(): {}}}
		var err error
		if w.server, err = NewServer(ServerConfig{Identity: agent, Admit: w.admit}); err != nil {
			t.Fatal(err)
		}
		defer w.close()
		var passedUp, passedDown int
		counted := func(n *int, f func([]byte) []byte) func([]byte) []byte {
			return func(b []byte) []byte {
				*n += len(b)
				return f(b)
			}
		}
		w.relay = func(_ int, d, a Stream) { forward(d, a, counted(&passedUp, up), counted(&passedDown, down)) }
		s, err := Connect(context.Background(), w.open(1), w.config(device, 1))
		if err != nil {
			return
		}
		_, err = s.Welcome(context.Background())
		welcomed = err == nil
		synctest.Wait()
		bytesUp, bytesDown = passedUp, passedDown
		for _, v := range w.served() {
			same = bytes.Equal(v.secret, s.secret) && v.peer == device.Pin()
		}
		s.Close(0, "done")
	})
	return welcomed, same, bytesUp, bytesDown
}

// TestHandshakeUnderAttack flips a bit of every byte of the control stream
// until WELCOME and cuts at a quarter of them, both ways. A flip that TLS does not see (the version field of
// an unencrypted record) must leave both sides with equal keys.
func TestHandshakeUnderAttack(t *testing.T) {
	device, agent := newIdentity(t), newIdentity(t)
	same := func(b []byte) []byte { return b }
	ok, equal, up, down := controlled(t, device, agent, same, same)
	if !ok || !equal || up < 1000 || down < 1000 {
		t.Fatalf("untouched: welcomed %v, equal %v, %d bytes up, %d down", ok, equal, up, down)
	}
	var harmless atomic.Int64
	for part := range 2 {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			for i := part; i < max(up, down); i += 2 * handshakeStride {
				for dir, n := range []int{up, down} {
					if i >= n {
						continue
					}
					change := []func([]byte) []byte{same, same}
					change[dir] = flipAt(i, 0x01<<(i%8))
					welcomed, equal, _, _ := controlled(t, device, agent, change[0], change[1])
					if welcomed && !equal {
						t.Errorf("direction %d, byte %d flipped: welcomed with different keys", dir, i)
					}
					if welcomed {
						harmless.Add(1)
					}
					if i%8 > 1 {
						continue
					}
					change[dir] = cutAt(i, func() {})
					if welcomed, _, _, _ := controlled(t, device, agent, change[0], change[1]); welcomed {
						t.Errorf("direction %d cut at byte %d: welcomed", dir, i)
					}
				}
			}
		})
	}
	t.Cleanup(func() {
		if n := harmless.Load(); n > 12 {
			t.Errorf("%d flips did no harm: more than the unauthenticated fields of TLS", n)
		}
	})
}

func TestUnknownDevice(t *testing.T) {
	var paired atomic.Int64
	w := newWorld(t, func(c *ServerConfig) {
		c.Pair = func(ctx context.Context, pc *PairingConn) {
			paired.Add(1)
			f, err := ReadFrame(pc)
			if err != nil || f.Type != 0x10 || string(f.Payload) != "secret" {
				t.Errorf("the agent read %v, %v", f, err)
			}
			WriteFrame(pc, Frame{Type: 0x11, Payload: pc.Binding()})
		}
	})
	id := newIdentity(t)
	s := w.connect(id, 1)
	c, err := s.OpenStream(context.Background())
	if err == nil {
		c.Write([]byte("let me in"))
		if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil || err == io.EOF {
			t.Errorf("a stranger read %d, %v", n, err)
		}
		c.Close()
	}
	var away *GoAwayError
	if _, err := s.Welcome(context.Background()); !errors.As(err, &away) || away.Code != wire.CodeRefused {
		t.Errorf("welcome of a stranger: %v", err)
	}
	<-s.Done()
	if !errors.As(s.Err(), &away) {
		t.Errorf("session ended with %v", s.Err())
	}

	pc, err := ConnectPairing(context.Background(), w.open(2), w.config(id, 2))
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteFrame(pc, Frame{Type: 0x10, Payload: []byte("secret")}); err != nil {
		t.Fatal(err)
	}
	f, err := ReadFrame(pc)
	if err != nil || !bytes.Equal(f.Payload, pc.Binding()) || len(f.Payload) != 32 {
		t.Errorf("the bindings differ: %x, %x, %v", f.Payload, pc.Binding(), err)
	}
	if pc.Peer() != w.id.Pin() {
		t.Errorf("paired with %s", pc.Peer())
	}
	if _, err := ReadFrame(pc); err != io.EOF {
		t.Errorf("the agent's end of the conversation: %v, want io.EOF", err)
	}
	pc.Close()
	if paired.Load() != 1 || len(w.server.Sessions()) != 0 || len(w.server.accepted) != 0 {
		t.Errorf("%d pairings, %d sessions, %d streams", paired.Load(), len(w.server.Sessions()), len(w.server.accepted))
	}
}

func TestPairingIsRefusedWithoutPair(t *testing.T) {
	w := newWorld(t, nil)
	if pc, err := ConnectPairing(context.Background(), w.open(1), w.config(newIdentity(t), 1)); err == nil {
		pc.Close()
		t.Error("pairing with an agent that does not pair")
	}
}

// TestBindings: two sessions of the same endpoints have different bindings.
func TestBindings(t *testing.T) {
	w := newWorld(t, nil)
	id := w.allow(newIdentity(t))
	a, b := w.connect(id, 1), w.connect(id, 2)
	if bytes.Equal(a.Binding(), b.Binding()) || bytes.Equal(a.Binding(), a.secret) || len(a.Binding()) != 32 {
		t.Error("the binding does not bind")
	}
}

func TestSilentAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newPipe(1 << 20)
		start := time.Now()
		_, err := Connect(context.Background(), a, ClientConfig{Identity: newIdentity(t), Open: func(context.Context) (Stream, error) { return nil, net.ErrClosed }})
		if err == nil || time.Since(start) != handshakeTimeout {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		a, b := newPipe(1 << 20)
		start = time.Now()
		_, err = ConnectPairing(ctx, a, ClientConfig{Identity: newIdentity(t)})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if _, err := io.ReadAll(b); err == nil {
			t.Error("the stream of a failed handshake was not reset")
		}
	})
}
