package transport

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// PinOf returns the pin of a certificate's key.
func PinOf(cert *x509.Certificate) wire.KeyPin { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// ErrWrongRelay says that who answered at the relay's address holds another
// key than the pinned one.
var ErrWrongRelay = errors.New("the relay's key is not the one behind # in its address: either the relay has a new key (ask its operator for the new address line), or somebody else answers there")

// clientTLS is the TLS profile of the hop at an endpoint. cert is the agent's
// route certificate, nil for a device, which shows no identity.
func clientTLS(r wire.Relay, cert *tls.Certificate) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(r.Addr)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{wire.ALPN},
		ServerName:             host,
		SessionTicketsDisabled: true, // a resumed session would tie a device's visits together
		// The hop hides from the network what the relay sees anyway: routes and
		// tokens. Content has a hybrid exchange of its own, end to end. Without
		// ML-KEM the ClientHello fits one datagram, an idle session takes less
		// memory at the relay, and handshakes cost it a third less. A relay
		// takes the hybrid from endpoints that offer it.
		CurvePreferences: []tls.CurveID{tls.X25519},
	}
	if cert != nil {
		c.Certificates = []tls.Certificate{*cert}
	}
	if r.Pinned() {
		c.InsecureSkipVerify = true // the pin stands in for names and authorities
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return ErrWrongRelay
			}
			got := PinOf(s.PeerCertificates[0])
			if subtle.ConstantTimeCompare(got[:], r.Pin[:]) != 1 {
				return ErrWrongRelay
			}
			return nil
		}
	}
	return c, nil
}
