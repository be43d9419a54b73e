//go:build e2e

package e2e

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
)

// forgedBatch is how many packets a forger hands to the kernel at once.
const forgedBatch = 32

// forger sends UDP packets from any address and port to one.
type forger struct {
	conn     *ipv4.RawConn
	messages []ipv4.Message
}

func newForger(to netip.AddrPort) (*forger, error) {
	pc, err := net.ListenPacket("ip4:udp", "0.0.0.0")
	if err != nil {
		return nil, err
	}
	conn, err := ipv4.NewRawConn(pc)
	if err != nil {
		pc.Close()
		return nil, err
	}
	f := &forger{conn: conn, messages: make([]ipv4.Message, forgedBatch)}
	for i := range f.messages {
		header := make([]byte, 28) // of IPv4, whose length, number and checksum the kernel sets, and UDP
		header[0], header[8], header[9] = 0x45, 64, 17
		copy(header[16:], to.Addr().AsSlice())
		binary.BigEndian.PutUint16(header[22:], to.Port())
		f.messages[i] = ipv4.Message{Buffers: [][]byte{header, nil}, Addr: &net.IPAddr{IP: to.Addr().AsSlice()}}
	}
	return f, nil
}

// send sends a batch and returns how many packets the kernel took.
func (f *forger) send(packet func(i int) (from netip.Addr, port uint16, payload []byte)) (int, error) {
	for i := range f.messages {
		from, port, payload := packet(i)
		header := f.messages[i].Buffers[0]
		copy(header[12:], from.AsSlice())
		binary.BigEndian.PutUint16(header[20:], port)
		binary.BigEndian.PutUint16(header[24:], uint16(8+len(payload)))
		f.messages[i].Buffers[1] = payload
	}
	return f.conn.WriteBatch(f.messages, 0)
}

func (f *forger) close() { f.conn.Close() }
