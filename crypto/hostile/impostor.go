package hostile

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"sync/atomic"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// Names of conversations (ALPN), crypto/DESIGN.md, section 3.
const (
	alpnSession = "blindrelay-e2e/1"
	alpnJoin    = "blindrelay-join/1"
	alpnPairing = "blindrelay-pair/1"
)

// Frames of a link, crypto/DESIGN.md, section 8.
const (
	frameWelcome = 0x01
	frameJoin    = 0x07
)

// tlsEnd is an end of a stream as crypto/tls wants it.
type tlsEnd struct{ *end }

func (e tlsEnd) Close() error         { e.Reset(wire.CodeCancelled); return nil }
func (e tlsEnd) LocalAddr() net.Addr  { return &net.IPAddr{} }
func (e tlsEnd) RemoteAddr() net.Addr { return &net.IPAddr{} }

// profile is the TLS profile that endpoints expect, with the relay's own key.
func profile(alpn ...string) *tls.Config {
	return &tls.Config{
		Certificates:       []tls.Certificate{newIdentity().Certificate()},
		MinVersion:         tls.VersionTLS13,
		NextProtos:         alpn,
		CurvePreferences:   []tls.CurveID{tls.X25519MLKEM768},
		ClientAuth:         tls.RequireAnyClientCert,
		InsecureSkipVerify: true,
	}
}

// disguise is a way in which an impostor differs from an endpoint that would be
// let in.
type disguise struct {
	name   string
	change func(c *tls.Config, real *e2e.Identity)
	device error // what a device must say to it
}

var disguises = []disguise{
	{"own key", func(*tls.Config, *e2e.Identity) {}, e2e.ErrWrongServer},
	{"the true certificate, without its key", func(c *tls.Config, real *e2e.Identity) {
		c.Certificates[0].Certificate = real.Certificate().Certificate
		c.Certificates[0].Leaf = nil
	}, e2e.ErrHandshake},
	{"the true certificate behind its own", func(c *tls.Config, real *e2e.Identity) {
		own := c.Certificates[0]
		c.Certificates[0].Certificate = [][]byte{own.Certificate[0], real.Certificate().Certificate[0]}
	}, e2e.ErrHandshake},
	{"a key of another kind", func(c *tls.Config, _ *e2e.Identity) { c.Certificates[0] = otherKind() }, e2e.ErrHandshake},
	{"TLS 1.2", func(c *tls.Config, _ *e2e.Identity) {
		c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	}, e2e.ErrHandshake},
	{"X25519 without ML-KEM", func(c *tls.Config, _ *e2e.Identity) { c.CurvePreferences = []tls.CurveID{tls.X25519} }, e2e.ErrHandshake},
	{"P-256 without ML-KEM", func(c *tls.Config, _ *e2e.Identity) { c.CurvePreferences = []tls.CurveID{tls.CurveP256} }, e2e.ErrHandshake},
	{"no name of the conversation", func(c *tls.Config, _ *e2e.Identity) { c.NextProtos = nil }, e2e.ErrHandshake},
	{"an unknown conversation", func(c *tls.Config, _ *e2e.Identity) { c.NextProtos = []string{"h2"} }, e2e.ErrHandshake},
	{"a pairing in the place of a session, or the reverse", func(c *tls.Config, _ *e2e.Identity) {
		if c.NextProtos[0] == alpnPairing {
			c.NextProtos = []string{alpnSession}
		} else {
			c.NextProtos = []string{alpnPairing}
		}
	}, e2e.ErrHandshake},
}

// otherKind is a certificate with a key that is no identity: ECDSA P-384.
func otherKind() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		panic(err) // only a broken random generator gets here
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// attacksByImpostors ends TLS at the relay.
func attacksByImpostors() (all []attack) {
	for _, d := range disguises {
		all = append(all,
			attack{"answer as the server", d.name, refused(d.device), d.serve(alpnSession)},
			attack{"answer as the server when the session goes on", d.name, refused(d.device), d.serve(alpnJoin)},
			attack{"answer as the server to a pairing", d.name, refused(d.device), d.servePairing},
			attack{"come as the device", d.name, whole, d.come},
		)
	}
	return append(all,
		attack{"end TLS on both sides", "the session's first stream", refused(e2e.ErrWrongServer), endBoth},
		attack{"come with a session's name and no proof", "own key", whole, joinWithoutProof},
		edited("offer another group or version", "ClientHello: X25519 in the place of the hybrid", true, be16(tls.X25519MLKEM768), be16(tls.X25519)),
		edited("offer another group or version", "ServerHello: X25519 in the place of the hybrid", false, be16(tls.X25519MLKEM768), be16(tls.X25519)),
		edited("offer another group or version", "ClientHello: TLS 1.2", true, be16(tls.VersionTLS13), be16(tls.VersionTLS12)),
		edited("offer another group or version", "ServerHello: TLS 1.2", false, be16(tls.VersionTLS13), be16(tls.VersionTLS12)),
		edited("offer another group or version", "ClientHello: one cipher suite fewer", true, be16(tls.TLS_AES_128_GCM_SHA256), be16(tls.TLS_AES_256_GCM_SHA384)),
		edited("offer another group or version", "ServerHello: another cipher suite", false, be16(tls.TLS_AES_128_GCM_SHA256), be16(tls.TLS_CHACHA20_POLY1305_SHA256)),
	)
}

// answer plays the server on a device's stream. If the device goes along, the
// relay welcomes it and takes what it says.
func (d disguise) answer(w *world, st *end, real *e2e.Identity, alpn string) {
	defer st.Reset(wire.CodeCancelled)
	w.relay.struck.Store(true)
	c := profile(alpn)
	d.change(c, real)
	st.SetDeadline(time.Now().Add(patience))
	st.Read(make([]byte, 1))
	t := tls.Server(tlsEnd{st}, c)
	if t.HandshakeContext(w.ctx) != nil {
		st.CloseWrite()
		io.Copy(io.Discard, st)
		return
	}
	welcome := make([]byte, 1+2+2+16+1)
	welcome[2], welcome[4] = 100, 60
	if e2e.WriteFrame(t, e2e.Frame{Type: frameWelcome, Payload: welcome}) != nil {
		return
	}
	if f, err := e2e.ReadFrame(t); err == nil {
		w.survive("a device told the relay something (frame 0x%02x)", f.Type)
	}
}

// serve answers in the server's place: a new session, or one that goes on.
func (d disguise) serve(alpn string) func(w *world) error {
	return func(w *world) error {
		h := w.addHome()
		from := 1
		if alpn == alpnJoin {
			from = 2
		}
		w.relay.meets = func(s *hopStream) bool {
			if s.attachment < from {
				return false
			}
			d.answer(w, s.device, h.id, alpn)
			return true
		}
		w.relay.pass = loseLink(1)
		dev := w.addDevice(h)
		if err := dev.connect(); err != nil {
			return err
		}
		return dev.askAll(1, victim, 3)
	}
}

// servePairing answers a device that has an invite.
func (d disguise) servePairing(w *world) error {
	h := w.addHome()
	w.relay.meets = func(s *hopStream) bool {
		d.answer(w, s.device, h.id, alpnPairing)
		return true
	}
	dev := w.addDevice(h)
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	_, st, err := dev.attach(ctx)
	if err != nil {
		return err
	}
	c, err := e2e.ConnectPairing(ctx, st, e2e.ClientConfig{Identity: dev.id, Server: h.id.Pin()})
	if err == nil {
		c.Close()
	}
	return err
}

// come plays the device to the server, while the true one has a session.
func (d disguise) come(w *world) error {
	h := w.addHome()
	dev := w.addDevice(h)
	if err := dev.connect(); err != nil {
		return err
	}
	for _, attachment := range []int{1, 99} {
		st, err := w.relay.reach(&hopStream{relay: w.relay, attachment: attachment})
		if err != nil {
			return err
		}
		c := profile(alpnSession)
		d.change(c, dev.id)
		w.knock(st, c, nil)
	}
	return errors.Join(dev.askAll(1, 2), w.sessions(h, 1))
}

// knock shakes hands with the server as a device and says something. The server
// must not welcome it.
func (w *world) knock(st *end, c *tls.Config, say *e2e.Frame) {
	defer st.Reset(wire.CodeCancelled)
	st.SetDeadline(time.Now().Add(patience))
	w.relay.struck.Store(true)
	st.Write([]byte{firstByteTLS})
	t := tls.Client(tlsEnd{st}, c)
	if t.HandshakeContext(w.ctx) != nil {
		return
	}
	if say != nil {
		e2e.WriteFrame(t, *say)
	}
	if f, err := e2e.ReadFrame(t); err == nil && f.Type == frameWelcome {
		w.survive("the server welcomed a stranger")
	}
}

// endBoth is the classic man in the middle.
func endBoth(w *world) error {
	h := w.addHome()
	w.relay.meets = func(s *hopStream) bool {
		if st, err := w.relay.reach(s); err == nil {
			w.knock(st, profile(alpnSession), nil)
		}
		disguises[0].answer(w, s.device, h.id, alpnSession)
		return true
	}
	dev := w.addDevice(h)
	if err := dev.connect(); err != nil {
		return err
	}
	return dev.ask(1)
}

// joinWithoutProof names sessions that the relay cannot name. Their names do
// not leave TLS, so it guesses.
func joinWithoutProof(w *world) error {
	h := w.addHome()
	dev := w.addDevice(h)
	if err := dev.connect(); err != nil {
		return err
	}
	for _, attachment := range []int{1, 99} {
		st, err := w.relay.reach(&hopStream{relay: w.relay, attachment: attachment})
		if err != nil {
			return err
		}
		w.knock(st, profile(alpnJoin), &e2e.Frame{Type: frameJoin, Payload: make([]byte, 16+32+8+2)})
	}
	return errors.Join(dev.askAll(1, 2), w.sessions(h, 1))
}

func be16[T int | ~uint16](v T) string { return string([]byte{byte(v >> 8), byte(v)}) }

// edited changes what a hello offers or chooses.
func edited(name, position string, up bool, from, to string) attack {
	return attack{name, position, handshakeFails, secondSession(func(w *world) func(*flow, piece) bool {
		var done atomic.Bool
		return func(f *flow, p piece) bool {
			if p.kind != kindTLS || p.index != hello || f.up != up || f.hop.attachment != 2 || done.Swap(true) {
				return false
			}
			b := editHello(p.b, from, to)
			w.relay.struck.Store(!bytes.Equal(b, p.b))
			f.send(b)
			return true
		}
	})}
}
