package fleet

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// answers makes a zone of any bytes: nine for each record. What comes off the
// wire is parsed by package net; this is what it hands over.
func answers(b []byte) *zone {
	z := &zone{srv: map[string][]*net.SRV{}, ips: map[string][]netip.Addr{}}
	for ; len(b) >= 9; b = b[9:] {
		name := "r.example"
		if k := b[1] % 8; k > 0 {
			name = fmt.Sprintf("%d.r.example", k)
		}
		v := binary.BigEndian.Uint64(b[1:])
		switch b[0] % 4 {
		case 0:
			target := name + "."
			if v%11 == 0 {
				target = "."
			}
			z.srv["r.example"] = append(z.srv["r.example"], &net.SRV{Target: target, Port: uint16(v), Priority: uint16(v>>16) % 4, Weight: uint16(v >> 32)})
		case 1:
			z.ips[name] = append(z.ips[name], netip.AddrFrom4([4]byte(b[2:])))
		case 2:
			var ip [16]byte
			copy(ip[8:], b[1:9])
			ip[0] = b[0]
			z.ips[name] = append(z.ips[name], netip.AddrFrom16(ip))
		default:
			z.ips[name] = append(z.ips[name], netip.AddrFrom16(netip.AddrFrom4([4]byte(b[2:])).As16()).WithZone("x"))
		}
	}
	return z
}

// FuzzResolve: whatever DNS answers, there are at most so many relays with so
// many addresses, each can be dialled, and another order of the same answers
// gives the same relays.
func FuzzResolve(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x01\x00\x0a\x00\x00\x01\x00\x00\x00"))
	f.Add([]byte("\x00\x01\x00\x00\x00\x01\x00\x01\xbb\x01\x01\x0a\x00\x00\x01\x00\x00\x00\x02\x01\x0a\x00\x00\x01\x00\x00\x00"))
	f.Add(slices.Repeat([]byte("\x00\x01\x00\x00\x00\x01\x00\x01\xbb\x01\x01\x0a\x00\x00\x01\x00\x00\x00"), 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		synctest.Test(t, func(t *testing.T) { checkAnswers(t, answers(b[:min(len(b), 9*400)])) })
	})
}

func checkAnswers(t *testing.T, z *zone) {
	relay := wire.Relay{Addr: "r.example:4433"}
	got, err := Resolve(t.Context(), z, relay)
	if err != nil {
		if len(got) > 0 {
			t.Fatalf("%d relays with %v", len(got), err)
		}
		return
	}
	addresses := make(map[string][]netip.Addr)
	for _, r := range got {
		if r.Check() != nil || !r.IP.IsValid() || r.IP.Zone() != "" || r.Weight <= 0 || r.Weight > 1 || r.Tier < 0 || r.Configured != relay {
			t.Fatalf("%+v", r)
		}
		if slices.Contains(addresses[r.ID], r.IP) {
			t.Fatalf("%s has %s twice", r.ID, r.IP)
		}
		addresses[r.ID] = append(addresses[r.ID], r.IP)
		if len(addresses[r.ID]) > maxAddresses || len(addresses) > maxRelays {
			t.Fatalf("%d relays, %s with %d addresses", len(addresses), r.ID, len(addresses[r.ID]))
		}
	}
	// The family that comes first may come first for a reason: it stays.
	for _, all := range z.ips {
		if len(all) > 1 {
			slices.Reverse(all[1:])
		}
	}
	slices.Reverse(z.srv["r.example"])
	again, err := Resolve(t.Context(), z, relay)
	if err != nil || len(again) == len(got) && !reflect.DeepEqual(ids(again), ids(got)) {
		t.Fatalf("in another order: %v, %v; before: %v", ids(again), err, ids(got))
	}
}

func ids(all []Relay) (names []string) {
	for _, r := range all {
		names = append(names, r.ID)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
