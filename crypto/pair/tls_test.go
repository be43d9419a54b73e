package pair

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"sync"
	"testing"

	"github.com/blindrelay/blindrelay/crypto/e2e"
)

// TestPairOverTLS holds a conversation with approval inside TLS 1.3, where an
// interrupted Read must leave the connection fit to write the answer.
func TestPairOverTLS(t *testing.T) {
	home, away := newHome(t), openAway(t, stateDir(t))
	agentEnd, deviceEnd := net.Pipe()
	agent := tls.Server(agentEnd, &tls.Config{Certificates: []tls.Certificate{certificate(t, home.Identity())}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13})
	device := tls.Client(deviceEnd, &tls.Config{Certificates: []tls.Certificate{certificate(t, away.Identity())}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	binding := func(c *tls.Conn) []byte {
		if err := c.HandshakeContext(t.Context()); err != nil {
			t.Error(err)
			return nil
		}
		cs := c.ConnectionState()
		b, err := cs.ExportKeyingMaterial("EXPORTER-test", nil, 32)
		if err != nil {
			t.Error(err)
		}
		return b
	}
	inv := invite(t, home, "", true)
	pin := keyPin(t, away)
	shown := make(chan string, 1) // the device sends once, before it asks
	var wg sync.WaitGroup
	wg.Go(func() {
		defer agent.Close()
		_, err := home.Serve(t.Context(), agent, pin, binding(agent), func(_ context.Context, name, words string) bool {
			return name == "tablet" && words == <-shown
		})
		if err != nil {
			t.Error(err)
		}
	})
	words, err := Words(binding(device))
	if err != nil {
		t.Error(err)
	}
	shown <- words
	srv, err := Request(t.Context(), device, inv, "tablet")
	deviceEnd.Close()
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if srv, err = away.Add(srv); err != nil {
		t.Fatal(err)
	}
	if d, ok := home.Admit(pin); !ok || d.Name != srv.Device || srv.Pin != home.Pin() || srv.Token != home.Token(pin) {
		t.Errorf("home lists %v, the device has %#v", d, srv)
	}
	if _, ok := home.Admit(e2e.Pin{}); ok {
		t.Error("a stranger is admitted")
	}
}

func certificate(t *testing.T, key crypto.Signer) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
