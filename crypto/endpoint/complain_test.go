package endpoint

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// TestExplainRefusals tells the server's word from one that the relay may have
// made up.
func TestExplainRefusals(t *testing.T) {
	for word, err := range map[string]error{
		"revoked or never paired":  &e2e.GoAwayError{Code: wire.CodeRefused},
		"the relay or the network": fmt.Errorf("read: %w", &wire.ResetError{Code: wire.CodeRefused}),
	} {
		if got := Explain(err).Error(); !strings.Contains(got, word) {
			t.Errorf("%v is explained as %q, which lacks %q", err, got, word)
		}
	}
}

// TestComplain logs a refusal once a minute, with what to do about it, and
// what a local program does by itself never.
func TestComplain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		p := &localPort{log: slog.New(slog.NewTextHandler(&b, nil))}
		refused := fmt.Errorf("read: %w", &wire.ResetError{Code: wire.CodeMemory})
		lines := func() int { return strings.Count(b.String(), "\n") }
		for range 10 {
			p.complain(refused)
			p.complain(&wire.ResetError{Code: wire.CodeCancelled})
			p.complain(io.ErrClosedPipe)
		}
		if lines() != 1 || !strings.Contains(b.String(), "--buffer-memory") {
			t.Errorf("ten refusals are logged as:\n%s", b.String())
		}
		time.Sleep(complainEvery)
		p.complain(refused)
		if lines() != 2 {
			t.Errorf("a minute later the log has %d lines, want 2", lines())
		}
		time.Sleep(complainEvery)
		p.complain(fmt.Errorf("read: %w", e2e.ErrTruncated))
		if lines() != 3 || !strings.Contains(b.String(), "the relay or the network changed or cut the data") {
			t.Errorf("tampering is logged as:\n%s", b.String())
		}
	})
}
