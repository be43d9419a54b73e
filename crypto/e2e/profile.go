package e2e

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
)

// ALPN names (RFC 7301) of the conversations of an endpoint.
const (
	alpnSession = "blindrelay-e2e/1"
	alpnJoin    = "blindrelay-join/1" // a further link of a session
	alpnPairing = "blindrelay-pair/1"
)

// Labels of ExportKeyingMaterial (RFC 8446, section 7.5).
const (
	exporterStreams = "EXPORTER-blindrelay-e2e-v1"
	exporterBinding = "EXPORTER-blindrelay-binding-v1"
)

// errProfile is what both sides answer to a handshake that is not exactly the
// one of the protocol.
var errProfile = errors.New("the other endpoint does not speak this protocol's TLS profile")

// clientTLS is a device's side of the TLS profile.
func clientTLS(id *Identity, server Pin, alpn string) *tls.Config {
	c := baseTLS(id, alpn)
	// The chain says nothing here, the key does. VerifyConnection runs on every
	// handshake, before the device shows its own certificate.
	c.InsecureSkipVerify = true
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		pin, err := checkProfile(cs, alpn)
		if err != nil {
			return err
		}
		if subtle.ConstantTimeCompare(pin[:], server[:]) != 1 {
			return fmt.Errorf("%w (its key is %s)", ErrWrongServer, pin)
		}
		return nil
	}
	return c
}

// serverTLS is an agent's side of the TLS profile.
func serverTLS(id *Identity, alpn ...string) *tls.Config {
	c := baseTLS(id, alpn...)
	c.ClientAuth = tls.RequireAnyClientCert
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		_, err := checkProfile(cs, cs.NegotiatedProtocol)
		return err
	}
	return c
}

func baseTLS(id *Identity, alpn ...string) *tls.Config {
	return &tls.Config{
		Certificates:           []tls.Certificate{id.cert},
		MinVersion:             tls.VersionTLS13,
		MaxVersion:             tls.VersionTLS13,
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768},
		NextProtos:             alpn,
		SessionTicketsDisabled: true,
	}
}

// checkProfile verifies every item of the TLS profile and returns the pin of
// the other endpoint. It trusts nothing to configuration.
func checkProfile(cs tls.ConnectionState, alpn string) (Pin, error) {
	var what string
	switch {
	case cs.Version != tls.VersionTLS13:
		what = "not TLS 1.3"
	case cs.CurveID != tls.X25519MLKEM768:
		what = "another key exchange than X25519MLKEM768"
	case cs.NegotiatedProtocol != alpn || alpn != alpnSession && alpn != alpnJoin && alpn != alpnPairing:
		what = "another application protocol"
	case cs.DidResume:
		what = "a resumed session"
	case len(cs.PeerCertificates) != 1:
		what = fmt.Sprintf("%d certificates instead of one", len(cs.PeerCertificates))
	case suiteOf(cs.CipherSuite) == nil:
		what = "an unknown cipher suite"
	case cs.ServerName != "":
		what = "a server name"
	}
	if what != "" {
		return Pin{}, fmt.Errorf("%w: %s", errProfile, what)
	}
	cert := cs.PeerCertificates[0]
	if err := checkKey(cert.PublicKey); err != nil {
		return Pin{}, fmt.Errorf("%w: %w", errProfile, err)
	}
	return pinOf(cert), nil
}

// verified checks a connection whose handshake returned nil once more.
func verified(t *tls.Conn, alpn string) (Pin, tls.ConnectionState, error) {
	cs := t.ConnectionState()
	if !cs.HandshakeComplete {
		return Pin{}, cs, fmt.Errorf("%w: the handshake is not complete", errProfile)
	}
	pin, err := checkProfile(cs, alpn)
	return pin, cs, err
}

// export derives 32 bytes from a complete handshake. The exporter covers the
// transcript only up to the server's Finished, where the device has not shown
// its key yet: so both pins go into the context.
func export(cs tls.ConnectionState, label string, server, device Pin) ([]byte, error) {
	h := sha256.New()
	h.Write([]byte(alpnSession + " ctx\x00"))
	h.Write(server[:])
	h.Write(device[:])
	b, err := cs.ExportKeyingMaterial(label, h.Sum(nil), 32)
	if err != nil {
		return nil, fmt.Errorf("derive keys from the handshake: %w", err)
	}
	return b, nil
}
