package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/netip"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// nameRoute returns how the log names routes: the same route by the same name
// as long as this process runs, and by another one afterwards. Without the key,
// which is kept nowhere, a name cannot be checked against a route.
func (c *serveCmd) nameRoute() func(wire.Route) string {
	if c.LogRoutes {
		return wire.Route.String
	}
	var key [32]byte
	rand.Read(key[:])
	return func(route wire.Route) string {
		hash := hmac.New(sha256.New, key[:])
		hash.Write(route[:])
		return "~" + hex.EncodeToString(hash.Sum(nil)[:6])
	}
}

// nameAddress returns how the log names addresses of endpoints; nil: not at all.
func (c *serveCmd) nameAddress() func(net.Addr) string {
	if c.LogAddresses == "none" {
		return nil
	}
	return network
}

// network returns the network of an address and nothing that tells its hosts
// apart.
func network(addr net.Addr) string {
	at, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return "unknown"
	}
	bits, ip := 48, at.Addr().Unmap().WithZone("")
	if ip.Is4() {
		bits = 24
	}
	return netip.PrefixFrom(ip, bits).Masked().String()
}
