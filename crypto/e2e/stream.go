package e2e

import (
	"io"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// Stream is a stream through the relay as this package needs it. The relay
// sees and controls every byte of it. Reads and Writes may run beside each
// other and beside the other methods.
type Stream interface {
	io.Reader // io.EOF only after the other end's FIN; *wire.ResetError after a reset
	io.Writer
	CloseWrite() error    // FIN after everything written; no Write may be running
	StopRead()            // orderly: nothing more will be read; the write half goes on; a running Read returns
	Reset(code wire.Code) // aborts both halves; running Reads and Writes return
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	SetDeadline(time.Time) error
}
