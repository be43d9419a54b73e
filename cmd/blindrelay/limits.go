package main

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"

	"github.com/blindrelay/blindrelay/relay"
	"github.com/blindrelay/blindrelay/relay/admit"
)

// limits are the flags for what a relay does for everybody, and for one address,
// route or device.
type limits struct {
	MaxSessions           int `default:"16384" placeholder:"N" reload:"" help:"How many endpoints may be connected; -1 is no limit. One network, IPv4 /24 or IPv6 /48, may have a quarter of them. Default ${default}."`
	MaxSessionsPerAddress int `default:"256" placeholder:"N" reload:"" help:"How many of them may come from one address, IPv4 /32 or IPv6 /56; -1 is no limit. Those of this machine's loopback are not counted. Default ${default}."`
	MaxRoutes             int `default:"16384" placeholder:"N" reload:"" help:"How many servers may be registered; -1 is no limit. Default ${default}."`
	MaxStreams            int `default:"-1" placeholder:"N" reload:"" example:"2000" help:"How many streams may be forwarded; -1 is no limit but --buffer-memory. Default ${default}."`

	EgressRate bitRate `placeholder:"RATE" reload:"" example:"900M" help:"What the relay forwards in a second, in bits: best 5 to 10 % less than its line. Servers that want more share it by weight, one's devices evenly, and a film goes before a download of the same server. Default no limit: then the network divides, by connections."`

	RouteRate    bitRate  `placeholder:"RATE" reload:"" example:"100M" help:"What one server may forward in a second, in bits; a ticket may say another. Default no limit."`
	DeviceRate   bitRate  `placeholder:"RATE" reload:"" example:"50M" help:"What one device of a server may, in bits. Default no limit."`
	RouteDevices int      `default:"64" placeholder:"N" reload:"" help:"How many devices of one server may have streams; a ticket may say another number, -1 is no limit. Default ${default}."`
	RouteStreams int      `default:"1024" placeholder:"N" reload:"" help:"How many streams one server may have; -1 is no limit. Default ${default}."`
	RouteVolume  byteSize `placeholder:"SIZE" reload:"" example:"500G" help:"What one server may forward in a calendar month; a ticket may say another. The relay keeps the count in memory and gives servers a signed receipt of it, which they show after a restart. Default no limit."`
}

// check finds numbers that are no limits.
func (l *limits) check() error {
	return checkCounts([]count{
		{"max-sessions", l.MaxSessions}, {"max-sessions-per-address", l.MaxSessionsPerAddress}, {"max-routes", l.MaxRoutes},
		{"max-streams", l.MaxStreams}, {"route-devices", l.RouteDevices}, {"route-streams", l.RouteStreams},
	})
}

// count is a flag that bounds a number; -1 is no limit.
type count struct {
	name  string
	value int
}

func checkCounts(all []count) error {
	for _, c := range all {
		if c.value == 0 || c.value < -1 {
			return usageError{fmt.Sprintf("--%s takes a number from 1, or -1 for no limit", c.name), c.name}
		}
	}
	return nil
}

// relay returns them as the relay takes them.
func (l *limits) relay() relay.Limits {
	return relay.Limits{
		Egress:                int64(l.EgressRate),
		MaxSessions:           l.MaxSessions,
		MaxSessionsPerAddress: l.MaxSessionsPerAddress,
		MaxRoutes:             l.MaxRoutes,
		MaxStreams:            l.MaxStreams,
		RouteRate:             int64(l.RouteRate),
		DeviceRate:            int64(l.DeviceRate),
		RouteDevices:          l.RouteDevices,
		RouteStreams:          l.RouteStreams,
		RouteVolume:           int64(l.RouteVolume),
	}
}

// receipts sign with a key that follows from that of address validation tokens,
// which replicas share and a restart leaves alone.
func (id *identity) receipts() (*admit.Receipts, error) {
	key, err := hkdf.Key(sha256.New, id.tokenKey[:], nil, "blindrelay receipts of volumes", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the key of receipts: %w", err)
	}
	return admit.NewReceipts([32]byte(key)), nil
}
