package transport

import (
	"net/netip"
	"testing"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// TestDialChosenAddress dials a name that nobody can resolve at an address that
// was chosen. The certificate is still to be that of the name.
func TestDialChosenAddress(t *testing.T) {
	simulate(t, nil, func(w *world) {
		w.relay.Addr, w.relay.IP = "relay.invalid:4433", netip.AddrFrom4([4]byte(relayAddr.IP))
		endpoint, relay := w.dial(nil)
		if got := endpoint.RemoteAddr().String(); got != relayAddr.String() {
			t.Errorf("dialed %v, want %v", got, relayAddr)
		}
		relay.Close(wire.CodeNone, "")
		conf, err := clientTLS(w.relay, nil)
		if err != nil || conf.ServerName != "relay.invalid" {
			t.Errorf("the certificate is asked of %q, %v", conf.ServerName, err)
		}
	})
}
