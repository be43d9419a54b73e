package transport

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"
)

// tally counts what passes between a client that hears nothing and a relay, in
// bytes of UDP payload.
type tally struct {
	mu      sync.Mutex
	first   bool    // only the client's first datagram arrives
	in, out int     // at the relay
	packets int     // from the relay
	worst   float64 // out for each byte of in
}

// lost counts a packet on its way and reports whether it is lost.
func (c *tally) lost(p simnet.Packet) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.From.String() == relayAddr.String() {
		c.out += len(p.Data)
		c.packets++
		c.worst = max(c.worst, float64(c.out)/float64(c.in))
		return true
	}
	if c.first && c.in > 0 {
		return true
	}
	c.in += len(p.Data)
	return false
}

// TestAmplification begins a handshake from an address that never answers, as
// one that was forged: over the whole time of the handshake the relay sends
// there at most three times of what came (RFC 9000, section 8), with a chain of
// certificates that needs more than that, too, and less than what came where it
// asks for the address to be shown.
func TestAmplification(t *testing.T) {
	for name, tc := range map[string]struct {
		first, long, retry bool
		least, most        float64 // of what came
	}{
		"one datagram":                          {first: true, least: 0.5, most: 3},
		"one datagram, long chain":              {first: true, long: true, least: 2.5, most: 3},
		"one datagram, Retry":                   {first: true, retry: true, least: 0.05, most: 0.2},
		"all that is sent again":                {least: 0.5, most: 3},
		"all that is sent again, long chain":    {long: true, least: 2.5, most: 3},
		"all that is sent again, with Retry":    {retry: true, least: 0.05, most: 0.2},
		"long chain that Retry keeps to itself": {long: true, retry: true, least: 0.05, most: 0.2},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(c *ListenConfig) {
				if tc.long {
					leaf := c.Certificate.Certificate[0]
					c.Certificate.Certificate = append([][]byte{leaf}, bytes.Repeat([]byte{1}, 12<<10))
				}
				if tc.retry {
					c.Handshakes = NewHandshakes(HandshakeLimits{Max: 1}) // nobody is trusted
				}
			}, func(w *world) {
				count := &tally{first: tc.first}
				w.net.lose(count.lost)
				if _, err := w.dialer.DialQUIC(context.Background(), w.relay, nil); err == nil {
					t.Fatal("a client that hears nothing is connected")
				}
				time.Sleep(time.Minute)
				count.mu.Lock()
				defer count.mu.Unlock()
				t.Logf("%d bytes came, the relay sent %d in %d packets, at most %.2f of what had come", count.in, count.out, count.packets, count.worst)
				if count.worst > tc.most || count.worst < tc.least {
					t.Errorf("the relay sent %.2f of what came, want %.2f to %.2f", count.worst, tc.least, tc.most)
				}
				if n := w.ln.handshakes.UnderWay(); n != 0 {
					t.Errorf("%d handshakes are under way after a minute", n)
				}
			})
		})
	}
}
