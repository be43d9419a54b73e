// Package fleet knows which relays exist and in which order to try them.
//
//	set := fleet.NewSet(nil, relays)    // as configured: addresses and names
//	go set.Keep(ctx, changed)           // follows the names in DNS
//	for _, r := range fleet.Order(route, set.Relays()) {
//		session, err := dialer.Dial(ctx, r.Relay, cert)
//	}
//
// Relays do not know each other; DNS is all that says who belongs together. An
// agent and its devices find each other because the same route and the same
// relays give all of them the same order. What DNS says is not trusted: it can
// lead to a relay that has not the right key, and there the dial ends.
package fleet

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// Relay is one address of one relay.
type Relay struct {
	// Relay is what to dial. Its Addr has the host that was configured, for
	// the relay's certificate, and the port of this relay; its IP is this
	// address. Its Pin is the configured one.
	wire.Relay
	// ID names the relay in the order. Addresses with the same ID, in IPv4 and
	// IPv6, lead to the same relay as far as DNS tells.
	ID string
	// Tier counts the priorities of a name's SRV records from 0 on, the most
	// wanted: every relay of a tier comes before those of the next.
	Tier int
	// Weight is the relay's share relative to the heaviest of its name and
	// tier, from above 0 to 1. It is that of the SRV record.
	Weight float64
	// Configured is what led to this relay, as the user gave it.
	Configured wire.Relay
}

// lightest is the weight of an SRV record that gives 0: "a very small chance of
// being selected" beside others (RFC 2782).
const lightest = 1.0 / 128

// Order returns the relays in the order in which an agent and the devices of a
// route try them: by tier, and in a tier by weighted rendezvous hashing (Thaler
// and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998;
// weights as in Schindelhauer and Schomaker, 2005). A relay that joins n others
// takes a share of 1/(n+1) of the routes, one that leaves gives its own to the
// others, and no other route moves. The addresses of one relay keep their order.
func Order(route wire.Route, relays []Relay) []Relay {
	type scored struct {
		Relay
		score float64
	}
	all := make([]scored, len(relays))
	for i, r := range relays {
		all[i] = scored{r, score(route, r)}
	}
	slices.SortStableFunc(all, func(a, b scored) int {
		return cmp.Or(cmp.Compare(a.Tier, b.Tier), cmp.Compare(b.score, a.score), cmp.Compare(a.ID, b.ID))
	})
	ordered := make([]Relay, len(all))
	for i := range all {
		ordered[i] = all[i].Relay
	}
	return ordered
}

// score is weight / -ln(u), u uniform in (0, 1) and drawn by the route and the
// relay: SHA-256("blindrelay-fleet/1" || 0x00 || route || ID), its first 53 bits.
func score(route wire.Route, r Relay) float64 {
	h := sha256.New()
	h.Write([]byte("blindrelay-fleet/1\x00"))
	h.Write(route[:])
	h.Write([]byte(r.ID))
	u := (float64(binary.BigEndian.Uint64(h.Sum(nil))>>11) + 0.5) / (1 << 53)
	return r.Weight / -math.Log(u)
}
