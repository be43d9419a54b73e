package fleet

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/blindrelay/blindrelay/transport/wire"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const routes = 10_000

// eachRoute calls f with routes that are the same in every run.
func eachRoute(f func(wire.Route)) {
	random := rand.NewChaCha8([32]byte{1})
	for range routes {
		var r wire.Route
		random.Read(r[:])
		f(r)
	}
}

func relayNo(i int) Relay {
	return Relay{Relay: wire.Relay{Addr: "relay.example.org:4433"}, ID: fmt.Sprintf("192.0.2.%d:4433", i), Weight: 1}
}

func relays(n int) []Relay {
	var all []Relay
	for i := range n {
		all = append(all, relayNo(i))
	}
	return all
}

// near demands a binomial count within five standard deviations.
func near(t *testing.T, what string, got int, share float64) {
	t.Helper()
	mean := routes * share
	if off := math.Abs(float64(got) - mean); off > 5*math.Sqrt(mean*(1-share)) {
		t.Errorf("%s: %d of %d, want about %.0f", what, got, routes, mean)
	}
}

// TestShares gives each of ten relays a tenth of the first choices, and of the
// second ones.
func TestShares(t *testing.T) {
	ten := relays(10)
	var choices [2]map[string]int
	for i := range choices {
		choices[i] = make(map[string]int)
	}
	eachRoute(func(r wire.Route) {
		ordered := Order(r, ten)
		for i := range choices {
			choices[i][ordered[i].ID]++
		}
	})
	for i := range choices {
		for _, r := range ten {
			near(t, fmt.Sprintf("choice %d is %s", i+1, r.ID), choices[i][r.ID], 0.1)
		}
	}
}

// TestJoin adds an eleventh relay to ten: it takes its share of the first
// choices, and no route moves from one of the ten to another.
func TestJoin(t *testing.T) {
	ten, eleven := relays(10), relays(11)
	moved, pairs := 0, 0
	eachRoute(func(r wire.Route) {
		before, after := Order(r, ten), Order(r, eleven)
		if after[0].ID != before[0].ID {
			moved++
		}
		if after[0].ID != before[0].ID || after[1].ID != before[1].ID {
			pairs++
		}
		after = slices.DeleteFunc(after, func(x Relay) bool { return x.ID == relayNo(10).ID })
		if !slices.Equal(after, before) {
			t.Errorf("route %v: the order of the ten has changed", r)
		}
	})
	t.Logf("of %d routes the first choice of %d has moved, one of the first two of %d", routes, moved, pairs)
	near(t, "moved", moved, 1.0/11)
	near(t, "moved one of the first two", pairs, 2.0/11)
}

// TestOrderIsOfTheSet shuffles the relays.
func TestOrderIsOfTheSet(t *testing.T) {
	all := relays(20)
	n := 0
	eachRoute(func(r wire.Route) {
		if n++; n > 100 {
			return
		}
		want := Order(r, all)
		mixed := slices.Clone(all)
		rand.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
		if !slices.Equal(Order(r, mixed), want) {
			t.Errorf("route %v: the order depends on the order of the answer", r)
		}
	})
	if got := Order(wire.Route{}, nil); len(got) != 0 {
		t.Errorf("nothing is ordered as %v", got)
	}
}

// TestOrderFixed holds the order still: agents and devices of different
// versions have to agree.
func TestOrderFixed(t *testing.T) {
	var route wire.Route
	binary.BigEndian.PutUint64(route[:], 0x0123456789abcdef)
	var got []byte
	for _, r := range Order(route, relays(10)) {
		got = append(got, r.ID[len("192.0.2.")])
	}
	if want := "9135824760"; string(got) != want {
		t.Errorf("the order is %s, want %s", got, want)
	}
}

func TestWeights(t *testing.T) {
	heavy, light, rare := relayNo(0), relayNo(1), relayNo(2)
	light.Weight, rare.Weight = 0.5, lightest
	first := make(map[string]int)
	eachRoute(func(r wire.Route) { first[Order(r, []Relay{heavy, light, rare})[0].ID]++ })
	sum := 1 + 0.5 + lightest
	near(t, "heavy", first[heavy.ID], 1/sum)
	near(t, "light", first[light.ID], 0.5/sum)
	near(t, "rare", first[rare.ID], lightest/sum)
}

func TestTiers(t *testing.T) {
	all := relays(4)
	all[1].Tier, all[2].Tier = 1, 1
	eachRoute(func(r wire.Route) {
		o := Order(r, all)
		if o[0].Tier != 0 || o[1].Tier != 0 || o[2].Tier != 1 || o[3].Tier != 1 {
			t.Fatalf("the tiers are %v", o)
		}
	})
}

func BenchmarkOrder(b *testing.B) {
	all := relays(64)
	for b.Loop() {
		Order(wire.Route{1}, all)
	}
}
