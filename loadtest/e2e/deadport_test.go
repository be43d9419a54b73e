//go:build e2e && linux

package e2e

import (
	"net"
	"testing"
	"time"
)

// deadPort is a UDP port at which nobody answers any more. It counts how often
// somebody begins to.
type deadPort struct {
	socket *net.UDPConn
	done   chan struct{} // closed when nobody counts any more
	began  []time.Time   // attempts at a connection; complete when done is closed
}

// listenDead takes the place of a relay that was killed.
func listenDead(t *testing.T, address string) *deadPort {
	t.Helper()
	at, err := net.ResolveUDPAddr("udp", address)
	must(t, err)
	d := &deadPort{done: make(chan struct{})}
	d.socket, err = net.ListenUDP("udp", at)
	must(t, err)
	go d.count()
	t.Cleanup(func() { d.end() })
	return d
}

// count takes every source connection ID of an address for one attempt: a
// client has one for all that it sends before it is answered (RFC 9000, section
// 7.2).
func (d *deadPort) count() {
	defer close(d.done)
	type attempt struct{ address, id string }
	seen := make(map[attempt]bool)
	b := make([]byte, 2048)
	for {
		n, from, err := d.socket.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if id, ok := sourceID(b[:n]); ok && !seen[attempt{from.String(), id}] {
			seen[attempt{from.String(), id}] = true
			d.began = append(d.began, time.Now())
		}
	}
}

// end gives the port back and returns when each attempt began.
func (d *deadPort) end() []time.Time {
	d.socket.Close()
	<-d.done
	return d.began
}

// sourceID returns the source connection ID of a packet with a long header (RFC
// 8999, section 5.1).
func sourceID(p []byte) (id string, ok bool) {
	const destination = 5 // the length of the ID there, behind the first byte and the version
	if len(p) <= destination || p[0]&0x80 == 0 {
		return "", false
	}
	at := destination + 1 + int(p[destination])
	if at >= len(p) || len(p) < at+1+int(p[at]) {
		return "", false
	}
	return string(p[at+1 : at+1+int(p[at])]), true
}
