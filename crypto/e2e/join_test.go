package e2e

import (
	"context"
	"testing"
)

// TestJoinNeedsTheSecret says a JOIN with the key of the right device and the
// name of its session, but without the session's secret, or made for another link.
func TestJoinNeedsTheSecret(t *testing.T) {
	for name, mac := range map[string]func(s *Session, binding []byte) [secretLen]byte{
		"right": func(s *Session, binding []byte) [secretLen]byte {
			mac, _ := joinMAC(s.secret, binding)
			return mac
		},
		"no secret": func(*Session, []byte) [secretLen]byte { return [secretLen]byte{} },
		"other secret": func(_ *Session, binding []byte) [secretLen]byte {
			mac, _ := joinMAC(make([]byte, secretLen), binding)
			return mac
		},
		"other link": func(s *Session, _ []byte) [secretLen]byte { mac, _ := joinMAC(s.secret, s.binding); return mac },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				id := w.allow(newIdentity(t))
				s := w.connect(id, 1)
				if _, err := s.Welcome(context.Background()); err != nil {
					t.Fatal(err)
				}
				st := w.open(2)
				tc, cs, err := dial(context.Background(), st, w.config(id, 2), alpnJoin)
				if err != nil {
					t.Fatal(err)
				}
				binding, err := export(cs, exporterBinding, w.id.Pin(), id.Pin())
				if err != nil {
					t.Fatal(err)
				}
				j := join{session: s.id, mac: mac(s, binding), next: 1}
				if err := WriteFrame(tc, Frame{Type: frameJoin, Payload: j.payload()}); err != nil {
					t.Fatal(err)
				}
				want := byte(frameGoAway)
				if name == "right" {
					want = frameWelcome
				}
				if f, err := ReadFrame(tc); err != nil || f.Type != want {
					t.Errorf("answered with type 0x%02x, %v; want 0x%02x", f.Type, err, want)
				}
				tc.Close()
			})
		})
	}
}
