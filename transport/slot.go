package transport

import (
	"errors"
	"net"
	"sync"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
)

// slot is a Transport whose socket can be closed before it: to quic-go the
// socket then looks as if nothing arrived and everything sent were lost (see
// lost).
type slot struct {
	tr     *quic.Transport
	socket net.PacketConn
	quit   chan struct{} // closed when the Transport may end
	once   sync.Once     // closes quit
}

func newSlot(pc net.PacketConn) *slot {
	s := &slot{socket: pc, quit: make(chan struct{})}
	conn := net.PacketConn(packetSlot{packetBait{pc}, s})
	if udp, ok := pc.(*net.UDPConn); ok {
		conn = udpSlot{udpBait{udp}, ipv4.NewPacketConn(udp), s}
	}
	s.tr = &quic.Transport{Conn: conn, ConnectionIDLength: connIDLen}
	return s
}

// retire closes the socket.
func (s *slot) retire() { s.socket.Close() }

// close ends the Transport, and with it the connections that know it.
func (s *slot) close() {
	s.once.Do(func() { close(s.quit) })
	s.retire()
	s.tr.Close()
}

// hold keeps a read that has failed because the socket is closed from
// returning before the slot is closed.
func (s *slot) hold(err error) error {
	if errors.Is(err, net.ErrClosed) {
		<-s.quit
	}
	return err
}

// udpSlot has the methods of a UDP socket by which quic-go reads, one on each
// system.
type udpSlot struct {
	udpBait
	batch *ipv4.PacketConn
	slot  *slot
}

func (c udpSlot) ReadBatch(m []ipv4.Message, flags int) (int, error) {
	n, err := c.batch.ReadBatch(m, flags)
	return n, c.slot.hold(err)
}

func (c udpSlot) ReadFrom(p []byte) (int, net.Addr, error) {
	n, addr, err := c.udpBait.ReadFrom(p)
	return n, addr, c.slot.hold(err)
}

// packetSlot is for connections other than UDP sockets.
type packetSlot struct {
	packetBait
	slot *slot
}

func (c packetSlot) ReadFrom(p []byte) (int, net.Addr, error) {
	n, addr, err := c.packetBait.ReadFrom(p)
	return n, addr, c.slot.hold(err)
}
