package transport

import (
	"bytes"
	"context"
	"slices"
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

// TestStrays sends what belongs to no connection: the answer, if there is one,
// is smaller than what came.
func TestStrays(t *testing.T) {
	pad := func(n int, head ...byte) []byte { return append(head, bytes.Repeat([]byte{7}, n-len(head))...) }
	unknown := []byte{0xc3, 0xba, 0xba, 0xba, 0xba, 8, 1, 2, 3, 4, 5, 6, 7, 8, 8, 1, 2, 3, 4, 5, 6, 7, 8}
	first := slices.Concat([]byte{0xc3, 0, 0, 0, 1}, unknown[5:], []byte{0, 0x44, 0x9e}) // an Initial that cannot be opened
	for name, tc := range map[string]struct {
		packet  []byte
		answers bool
	}{
		"of an old connection":             {pad(1200, 0x40), true},
		"of an old connection, a PING":     {pad(43, 0x40), true},
		"of an old connection, very small": {pad(42, 0x40), false},
		"of another version":               {pad(1200, unknown...), true},
		"of another version, small":        {pad(1199, unknown...), false},
		"Initial that is none":             {pad(1200, first...), false},
		"Initial that is small":            {pad(1199, first...), false},
		"of no protocol":                   {pad(1200, 0), false},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, nil, func(w *world) {
				count := &tally{}
				w.net.lose(count.lost)
				pc, err := w.net.open()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := pc.WriteTo(tc.packet, relayAddr); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				count.mu.Lock()
				defer count.mu.Unlock()
				if count.in != len(tc.packet) || count.out >= count.in || tc.answers != (count.out > 0) {
					t.Errorf("%d bytes came and %d went back", count.in, count.out)
				}
				pc.Close()
			})
		})
	}
}
