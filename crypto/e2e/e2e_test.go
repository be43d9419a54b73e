package e2e

import (
	"context"
	"io"
	"testing"
)

func TestConversation(t *testing.T) {
	for name, id := range map[string]*Identity{"ed25519": newIdentity(t), "p256": newP256Identity(t)} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			s := w.connect(w.allow(id), 1)
			c, err := s.OpenStream(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write([]byte("what is on?")); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			a, err := w.server.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if a.Peer() != id.Pin() {
				t.Errorf("the agent sees device %s, want %s", a.Peer(), id.Pin())
			}
			if got, err := io.ReadAll(a); err != nil || string(got) != "what is on?" {
				t.Fatalf("the agent read %q, %v", got, err)
			}
			if _, err := a.Write([]byte("a film")); err != nil {
				t.Fatal(err)
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(c); err != nil || string(got) != "a film" {
				t.Fatalf("the device read %q, %v", got, err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if wc, err := s.Welcome(context.Background()); err != nil || wc.MaxStreams != defaultMaxStreams {
				t.Fatalf("welcome %+v, %v", wc, err)
			}
			if err := s.Close(0, "bye"); err != nil {
				t.Fatal(err)
			}
		})
	}
}
