//go:build e2e

package e2e

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestForwardTCP shares a plain TCP service: bytes pass both ways, and the end
// of one direction leaves the other open.
func TestForwardTCP(t *testing.T) {
	d := open(t, share(t, openRelay(t), "tcp://"+reverser(t)))
	c, err := net.Dial("tcp", strings.Trim(strings.TrimPrefix(d.url, "http:"), "/"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	question := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{5}).Read(question)
	if _, err := c.Write(question); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("%v after %d bytes", err, len(answer))
	}
	slices.Reverse(question)
	if !bytes.Equal(answer, question) {
		t.Errorf("%d bytes came back, want the %d that were sent, in reverse", len(answer), len(question))
	}
}

// reverser serves TCP until the test ends: it reads a connection to its end
// and then answers with the same bytes in reverse.
func reverser(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed by the cleanup
			}
			if b, err := io.ReadAll(c); err == nil {
				slices.Reverse(b)
				_, _ = c.Write(b) // the reader compares
			}
			c.Close()
		}
	}()
	return l.Addr().String()
}
