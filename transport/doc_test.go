package transport

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// TestDoc compares the times, windows and lengths in the protocol's text with
// the code.
func TestDoc(t *testing.T) {
	b, err := os.ReadFile("wire/PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := strings.Join(strings.Fields(string(b)), " ")
	for _, want := range []string{
		fmt.Sprintf("| QUIC handshake | %.0f s |", HandshakeTimeout.Seconds()),
		fmt.Sprintf("| QUIC handshake without a packet from the other side | %.0f s |", HandshakeTimeout.Seconds()/2),
		fmt.Sprintf("| keep-alive of an endpoint (PING) after the last packet received | %.0f s |", KeepAlive.Seconds()),
		fmt.Sprintf("| idle timeout that an endpoint announces | %.0f s |", EndpointIdle.Seconds()),
		fmt.Sprintf("| idle timeout that a relay announces | %.0f s |", RelayIdle.Seconds()),
		fmt.Sprintf("gives a silent relay up %.0f s", (EndpointIdle + KeepAlive).Seconds()),
		fmt.Sprintf("| relay | %d | %d |", RelayWindows().Stream, RelayWindows().Streams),
		fmt.Sprintf("| agent | %d | %d |", endpointWindows().Stream, endpointWindows().Streams),
		fmt.Sprintf("| device | %d | 0 |", endpointWindows().Stream),
		fmt.Sprintf("connection IDs have %d bytes", connIDLen),
		fmt.Sprintf("a second one of %d bytes", baitLen),
		fmt.Sprintf("(QUIC error 0x%x)", alertNoApplicationProtocol),
		fmt.Sprintf("a code of section 7 and a sentence of at most %d bytes", wire.MaxGoodbyeText),
	} {
		if !strings.Contains(doc, want) {
			t.Errorf("PROTOCOL.md does not say %q", want)
		}
	}
}
