package transport

import (
	"crypto/rand"
	"errors"
	"net"
	"syscall"
)

// A relay that has restarted answers a packet of a connection that it does not
// know with a stateless reset (RFC 9000, section 10.3). A reset must be smaller
// than what draws it, and quic-go's resets have 42 bytes, so it answers no
// packet of 42 bytes or less; but a keep-alive has 29. So an endpoint sends a
// bait behind each datagram that is too small for anything but a PING: 43 bytes
// with the same connection ID and noise behind it. A relay that knows the
// connection cannot decrypt the bait and drops it, as RFC 9000 demands.
const (
	connIDLen = 8 // of this package's own connection IDs, in bytes
	// maxPing is a packet with a PING and nothing else: first byte, connection
	// ID, packet number of 4 bytes, PING, AEAD tag.
	maxPing = 1 + connIDLen + 4 + 1 + 16
	baitLen = 43
)

// bait returns what to send behind the datagram p, and whether to.
func bait(p []byte) (b [baitLen]byte, ok bool) {
	if len(p) < 1+connIDLen || len(p) > maxPing || p[0]&0x80 != 0 { // RFC 8999, section 5: 0x80 is a long header
		return b, false
	}
	n := copy(b[:], p[:1+connIDLen])
	rand.Read(b[n:]) // never fails
	return b, true
}

// lost reports whether the datagram p, which the system refused to send, is to
// be taken for one that was lost on its way. quic-go ends a connection at any
// refusal; but between two networks a machine has no route for a while, and a
// connection is to live through that. While it is being made (long header, RFC
// 8999, section 5) a refusal is an answer. quic-go needs to know of datagrams
// that are too long, and of trains that the system cannot split (EIO).
func lost(p []byte, err error) bool {
	const tooLongOnWindows = syscall.Errno(10040) // WSAEMSGSIZE
	return len(p) > 0 && p[0]&0x80 == 0 &&
		!errors.Is(err, syscall.EMSGSIZE) && !errors.Is(err, tooLongOnWindows) && !errors.Is(err, syscall.EIO)
}

// baited makes pc send baits, and outlive refusals to send.
func baited(pc net.PacketConn) net.PacketConn {
	if udp, ok := pc.(*net.UDPConn); ok {
		return udpBait{udp}
	}
	return packetBait{pc}
}

// udpBait embeds *net.UDPConn, of which quic-go uses more than net.PacketConn.
type udpBait struct{ *net.UDPConn }

func (c udpBait) WriteMsgUDP(p, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	n, oobn, err = c.UDPConn.WriteMsgUDP(p, oob, addr)
	if err != nil && lost(p, err) {
		return len(p), len(oob), nil
	}
	if b, ok := bait(p); ok && err == nil {
		c.UDPConn.WriteMsgUDP(b[:], oob, addr)
	}
	return n, oobn, err
}

// WriteTo is what quic-go calls on systems without WriteMsgUDP's extras.
func (c udpBait) WriteTo(p []byte, addr net.Addr) (int, error) {
	return packetBait{c.UDPConn}.WriteTo(p, addr)
}

// packetBait is for connections other than UDP sockets.
type packetBait struct{ net.PacketConn }

func (c packetBait) WriteTo(p []byte, addr net.Addr) (int, error) {
	n, err := c.PacketConn.WriteTo(p, addr)
	if err != nil && lost(p, err) {
		return len(p), nil
	}
	if b, ok := bait(p); ok && err == nil {
		c.PacketConn.WriteTo(b[:], addr)
	}
	return n, err
}

// quic-go warns on the standard logger if these are missing.
func (packetBait) SetReadBuffer(int) error  { return nil }
func (packetBait) SetWriteBuffer(int) error { return nil }
