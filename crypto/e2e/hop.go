package e2e

import (
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// handshakeTimeout bounds everything before the other endpoint is known: the
// handshake, a preface, a stream that waits for its session's handshake.
const handshakeTimeout = 10 * time.Second

// farewellTimeout bounds the orderly end of a TLS connection.
const farewellTimeout = time.Second

// hop makes a Stream the net.Conn that crypto/tls wants. Its Close aborts;
// orderly ends go through farewell.
type hop struct {
	Stream
	prefix []byte      // goes out with the first Write; owned by the writer
	failed atomic.Bool // the stream itself has failed, with more than its end
}

func (h *hop) Read(p []byte) (int, error) {
	n, err := h.Stream.Read(p)
	if err != nil && err != io.EOF {
		h.failed.Store(true)
	}
	return n, err
}

func (h *hop) Write(p []byte) (int, error) {
	b := p
	if h.prefix != nil {
		b = append(h.prefix, p...)
		h.prefix = nil
	}
	n, err := h.Stream.Write(b)
	if err != nil {
		h.failed.Store(true)
	}
	return max(0, n-(len(b)-len(p))), err
}

func (h *hop) Close() error {
	h.Reset(wire.CodeCancelled)
	return nil
}

func (h *hop) LocalAddr() net.Addr  { return addr{} }
func (h *hop) RemoteAddr() net.Addr { return addr{} }

// farewell ends a stream that carried TLS in order: say writes the last words
// and close_notify, then comes the FIN. A stream that does not take them
// within farewellTimeout is reset.
func farewell(st Stream, say func() error) error {
	t := time.AfterFunc(farewellTimeout, func() { st.Reset(wire.CodeTimeout) })
	defer t.Stop()
	if err := say(); err != nil {
		st.Reset(wire.CodeCancelled)
		return err
	}
	st.StopRead()
	return st.CloseWrite()
}
