package transport

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/blindrelay/blindrelay/transport/wire"
	"golang.org/x/net/http2"
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
		fmt.Sprintf("give QUIC %d ms", HeadStart.Milliseconds()),
		fmt.Sprintf("TLS is to be done %.0f s after", HandshakeTimeout.Seconds()),
		fmt.Sprintf("on which %d handshakes are under way drops the oldest", tcpHandshakes),
		fmt.Sprintf("| 0x%02x | DATA | yes | at most %d bytes", uint8(http2.FrameData), maxFrame),
		fmt.Sprintf("| 0x%02x | RST_STREAM |", uint8(http2.FrameRSTStream)),
		fmt.Sprintf("| 0x%02x | SETTINGS |", uint8(http2.FrameSettings)),
		fmt.Sprintf("| 0x%02x | PING |", uint8(http2.FramePing)),
		fmt.Sprintf("| 0x%02x | GOAWAY | no | last stream u32 (0), code u32, a sentence of at most %d bytes", uint8(http2.FrameGoAway), wire.MaxGoodbyeText),
		fmt.Sprintf("| 0x%02x | WINDOW_UPDATE |", uint8(http2.FrameWindowUpdate)),
		fmt.Sprintf("| 0x%02x | STOP |", uint8(frameStop)),
		fmt.Sprintf("| 0x%02x | STREAMS |", uint8(frameStreams)),
		fmt.Sprintf("MAX_CONCURRENT_STREAMS (0x%x)", uint16(http2.SettingMaxConcurrentStreams)),
		fmt.Sprintf("INITIAL_WINDOW_SIZE (0x%x)", uint16(http2.SettingInitialWindowSize)),
		fmt.Sprintf("at least %d streams, and everybody at least %d bytes", firstStreams, firstWindow),
		fmt.Sprintf("reads for up to %.0f s", linger.Seconds()),
		fmt.Sprintf("received or sent nothing for %.0f s", KeepAlive.Seconds()),
		fmt.Sprintf("gives up %.0f s after a PING in which nothing came, a relay %.0f s", EndpointIdle.Seconds(), EndpointIdle.Seconds()),
	} {
		if !strings.Contains(doc, want) {
			t.Errorf("PROTOCOL.md does not say %q", want)
		}
	}
}
