package endpoint

import (
	"encoding/binary"
	"net/netip"

	"github.com/blindrelay/blindrelay/crypto/e2e"
)

// deviceAddress returns the address that the media server sees a device under:
// one of 100.64.0.0/10 (RFC 6598), the same for a pin at all times. It is never
// a private or a loopback address, because media servers take those for "at
// home" and drop passwords and bitrate limits for them.
//
// The pin is a hash, so its bits choose evenly among 16,384 x 254 addresses
// (none ends in 0 or 255). Two of ten devices share one with a chance of 1 in
// 90,000, two of a hundred with 1 in 840. They are then one address in the
// media server's logs and limits; nothing here tells devices apart by it, and
// the media server must not take it for a proof either.
func deviceAddress(device e2e.Pin) netip.Addr {
	middle := binary.BigEndian.Uint16(device[:]) & 0x3fff
	last := 1 + binary.BigEndian.Uint32(device[2:])%254
	return netip.AddrFrom4([4]byte{100, 64 + byte(middle>>8), byte(middle), byte(last)})
}
