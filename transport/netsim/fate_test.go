package netsim

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// fate is what happened to a packet.
type fate struct {
	sent, at int64
	v        verdict
}

// run sends n packets of size bytes, one every gap, over a new link.
func run(t *testing.T, cfg Link, seed uint64, n, size int, gap time.Duration) []fate {
	t.Helper()
	if err := cfg.check(); err != nil {
		t.Fatal(err)
	}
	l := newLink(cfg, seed, 1, 0)
	fates := make([]fate, n)
	for i := range fates {
		now := int64(i) * int64(gap)
		at, v := l.packet(now, size)
		fates[i] = fate{now, at, v}
	}
	return fates
}

// bitRate is what arrived, from the first arrival to the last.
func bitRate(fates []fate, size int) float64 {
	first, last, n := int64(-1), int64(0), 0
	for _, f := range fates {
		if f.v == passes {
			if first < 0 {
				first = f.at
			}
			last = max(last, f.at)
			n++
		}
	}
	return float64(n-1) * float64(size) * 8 * 1e9 / float64(last-first)
}

func within(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.Abs(got-want) > tolerance || math.IsNaN(got) {
		t.Errorf("%s is %v, want %v within %v", what, got, want, tolerance)
	}
}

// steady is a trace of one opportunity each millisecond: 12 Mbit/s.
func steady(t *testing.T) *Trace {
	t.Helper()
	trace, err := ParseTrace([]byte("1\n"))
	if err != nil {
		t.Fatal(err)
	}
	return trace
}

func TestRateWithin2Percent(t *testing.T) {
	for _, tt := range []struct {
		name string
		link Link
		want float64
	}{
		{"3g", Link{Rate: 700 * kbit}, 700e3},
		{"lte", Link{Rate: 12 * mbit, Delay: 35 * ms, Jitter: 5 * ms}, 12e6},
		{"fibre", Link{Rate: 200 * mbit, Delay: 2 * ms}, 200e6},
		{"gigabit", Link{Rate: 1000 * mbit}, 1e9},
		{"trace", Link{Trace: steady(t)}, 12e6},
		{"changing", Link{Rate: 30 * mbit, RateLow: 4 * mbit, RateEvery: 2 * ms}, 26e6 / math.Log(7.5)},
		{"outages", Link{Rate: 10 * mbit, Outages: Outages{Every: 300 * ms, Shortest: 50 * ms, Longest: 150 * ms}}, 7.5e6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const n, size = 200_000, 1228
			gap := time.Duration(size * 8 * 1e9 / tt.want / 1.5) // offers more than fits
			fates := run(t, tt.link, 1, n, size, gap)
			got := bitRate(fates, size)
			t.Logf("%.0f bit/s, %+.3f%%", got, 100*(got/tt.want-1))
			within(t, "rate", got, tt.want, 0.02*tt.want)
		})
	}
}

func TestDelayIsExact(t *testing.T) {
	for _, tt := range []struct {
		name string
		link Link
		want time.Duration // of a packet of 1250 bytes on an idle link
	}{
		{"delay alone", Link{Delay: 35 * ms}, 35 * ms},
		{"and transmission", Link{Rate: 10 * mbit, Delay: 20 * ms}, 21 * ms},
		{"none", Link{}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, f := range run(t, tt.link, 1, 1000, 1250, 5*ms) {
				if got := time.Duration(f.at - f.sent); got != tt.want {
					t.Fatalf("delay is %v, want %v", got, tt.want)
				}
			}
		})
	}
}

func TestLossWithinItsConfidenceInterval(t *testing.T) {
	const n = 400_000
	for _, p := range []float64{0, 0.001, 0.01, 0.2, 1} {
		count, pairs, before := 0, 0, false
		for _, f := range run(t, Link{Loss: p}, 5, n, 1000, ms) {
			if f.v == lost {
				count++
				if before {
					pairs++
				}
			}
			before = f.v == lost
		}
		// 3.3 standard deviations: 99.9%
		within(t, fmt.Sprintf("losses at %v", p), float64(count), n*p, 3.3*math.Sqrt(n*p*(1-p)))
		within(t, fmt.Sprintf("pairs of losses at %v", p), float64(pairs), (n-1)*p*p, 3.3*math.Sqrt(3*n*p*p*(1-p*p))+1e-9)
	}
}

func TestBursts(t *testing.T) {
	const n = 1_000_000
	for _, b := range []Burst{
		{Enter: 0.01, Leave: 0.25, LossBad: 1},
		{Enter: 0.002, Leave: 0.5, LossBad: 1},
		{Enter: 0.005, Leave: 0.25, LossBad: 0.5, LossGood: 0.001},
	} {
		var count, bursts, single, length float64
		for _, f := range run(t, Link{Burst: b}, 9, n, 1000, ms) {
			if f.v == lost {
				count++
				length++
			} else if length > 0 {
				bursts++
				if length == 1 {
					single++
				}
				length = 0
			}
		}
		share := b.Enter / (b.Enter + b.Leave)
		p := share*b.LossBad + (1-share)*b.LossGood
		// the variance of the count, from the chain's correlation (1-Enter-Leave) per packet
		r := 1 - b.Enter - b.Leave
		variance := n * (p*(1-p) + 2*r/(1-r)*share*(1-share)*math.Pow(b.LossBad-b.LossGood, 2))
		within(t, fmt.Sprintf("%+v: losses", b), count, n*p, 3.3*math.Sqrt(variance))
		if b.LossBad == 1 { // lengths are geometric
			mean := count / bursts
			t.Logf("%+v: loss %.4f%% (%.4f%%), mean burst %.3f (%.3f)", b, 100*count/n, 100*p, mean, 1/b.Leave)
			within(t, "mean burst", mean, 1/b.Leave, 3.3*math.Sqrt(1-b.Leave)/b.Leave/math.Sqrt(bursts))
			within(t, "bursts of one", single/bursts, b.Leave, 3.3*math.Sqrt(b.Leave*(1-b.Leave)/bursts))
		}
	}
}

func TestJitter(t *testing.T) {
	const n = 200_000
	link := Link{Delay: 60 * ms, Jitter: 5 * ms, JitterTime: 100 * ms}
	fates := run(t, link, 3, n, 1000, 20*ms)
	var sum, square, product float64
	x := make([]float64, n)
	for i, f := range fates {
		x[i] = float64(f.at-f.sent-int64(link.Delay)) / 1e6
		sum += x[i]
		if i > 0 && f.at < fates[i-1].at {
			t.Fatal("a packet overtook")
		}
	}
	mean := sum / n
	for i := range x {
		square += (x[i] - mean) * (x[i] - mean)
		if i > 0 {
			product += (x[i] - mean) * (x[i-1] - mean)
		}
	}
	// n packets that correlate by r carry n(1-r)/(1+r) independent ones
	r := math.Exp(-0.2)
	within(t, "mean in ms", mean, 0, 3.3*5/math.Sqrt(n*(1-r)/(1+r)))
	within(t, "standard deviation in ms", math.Sqrt(square/n), 5, 0.1)
	within(t, "correlation", product/square, r, 0.01)
	t.Logf("mean %.3f ms, deviation %.3f ms, correlation %.4f (%.4f)", mean, math.Sqrt(square/n), product/square, r)
}

func TestNoOvertakingUnlessAsked(t *testing.T) {
	wild := Link{Delay: 50 * ms, Jitter: 30 * ms, JitterTime: ms}
	last := int64(0)
	for _, f := range run(t, wild, 3, 50_000, 1000, 100*time.Microsecond) {
		if f.at < last {
			t.Fatal("a packet overtook")
		}
		last = f.at
	}
	const n, share = 100_000, 0.02
	last, late := 0, 0
	for _, f := range run(t, Link{Delay: 10 * ms, Reorder: share, ReorderBy: 7 * ms}, 3, n, 1000, ms) {
		want := 10 * ms
		if f.v == overtaken {
			want += 7 * ms
			late++
		}
		if got := time.Duration(f.at - f.sent); got != want {
			t.Fatalf("delay is %v, want %v", got, want)
		}
	}
	within(t, "reordered", float64(late), n*share, 3.3*math.Sqrt(n*share*(1-share)))
}

func TestQueueIsBounded(t *testing.T) {
	for _, tt := range []struct {
		name string
		link Link
		room int
	}{
		{"bytes", Link{Rate: 8 * mbit, Queue: 50_000}, 50_000},
		{"time", Link{Rate: 8 * mbit, QueueTime: 100 * ms}, 100_000},
		{"default", Link{Rate: 8 * mbit}, 250_000},
		{"at least ten packets", Link{Rate: 80 * kbit, QueueTime: ms}, 15_000},
		{"trace", Link{Trace: steady(t), QueueTime: 100 * ms}, 150_000},
		{"no rate", Link{Outages: Outages{Windows: []Window{{0, time.Hour}}}}, 4 << 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLink(tt.link, 1, 1, 0)
			const size = 1000
			taken := 0
			for range 10_000 {
				if _, v := l.packet(0, size); v == passes {
					taken++
				}
				if l.backlog > tt.room {
					t.Fatalf("%d bytes in a queue of %d", l.backlog, tt.room)
				}
			}
			if want := tt.room / size; taken < want || taken > want+1 {
				t.Errorf("%d packets taken, want %d", taken, want)
			}
			if got := l.stats().Dropped; int(got) != 10_000-taken {
				t.Errorf("%d dropped, want %d", got, 10_000-taken)
			}
		})
	}
	if f := run(t, Link{Rate: mbit, Queue: 100}, 1, 1, 1500, 0)[0]; f.v != passes {
		t.Error("an empty queue dropped a packet")
	}
}

func TestOutages(t *testing.T) {
	windows := []Window{{100 * ms, 50 * ms}, {300 * ms, 300 * ms}}
	inside := func(at int64) bool {
		for _, w := range windows {
			if at > int64(w.From) && at < int64(w.From+w.For) {
				return true
			}
		}
		return false
	}
	wait := Link{Rate: 8 * mbit, QueueTime: time.Second, Outages: Outages{Windows: windows}}
	for _, f := range run(t, wait, 1, 1000, 500, ms) {
		if f.v != passes || inside(f.at) {
			t.Fatalf("packet sent at %v: verdict %d, arrives at %v", time.Duration(f.sent), f.v, time.Duration(f.at))
		}
	}
	lose := wait
	lose.Outages.Lose = true
	gone := 0
	for _, f := range run(t, lose, 1, 1000, 500, ms) {
		if (f.v == lost) != inside(f.sent+int64(500*time.Microsecond)) {
			t.Fatalf("packet sent at %v: verdict %d", time.Duration(f.sent), f.v)
		}
		if f.v == lost {
			gone++
		}
	}
	if gone != 350 {
		t.Errorf("%d lost, want 350", gone)
	}

	// random ones: 20 s of mean gap and 1.2 s of mean length lose 1.2/21.2 of the time
	random := Link{Outages: Outages{Every: 20 * time.Second, Shortest: 900 * ms, Longest: 1500 * ms, Lose: true}}
	const n = 2_000_000
	gone = 0
	length, outages := 0, 0
	for _, f := range run(t, random, 2, n, 500, 10*ms) {
		if f.v == lost {
			gone++
			length++
		} else if length > 0 {
			if d := time.Duration(length) * 10 * ms; d < 890*ms || d > 1510*ms {
				t.Errorf("an outage of %v", d)
			}
			length = 0
			outages++
		}
	}
	t.Logf("%d outages, %.2f%% of the time", outages, 100*float64(gone)/n)
	within(t, "time out", float64(gone)/n, 1.2/21.2, 3.3*1.2/21.2/math.Sqrt(float64(outages)))
}

// everything has all properties of a link at once.
func everything() Link {
	return Link{
		Rate: 12 * mbit, RateLow: 4 * mbit, RateEvery: 100 * ms, QueueTime: 200 * ms,
		Delay: 30 * ms, Jitter: 5 * ms, Loss: 0.01, Burst: Burst{Enter: 0.01, Leave: 0.3, LossBad: 0.8},
		Reorder: 0.01, ReorderBy: 20 * ms, Outages: Outages{Every: 2 * time.Second, Shortest: 100 * ms, Longest: 300 * ms},
	}
}

func TestSameSeedSameFates(t *testing.T) {
	const n = 20_000
	one := run(t, everything(), 7, n, 1000, ms)
	two := run(t, everything(), 7, n, 1000, ms)
	other := run(t, everything(), 8, n, 1000, ms)
	sum, differ := fnv.New64a(), 0
	for i := range one {
		if one[i] != two[i] {
			t.Fatalf("packet %d: %+v and %+v with the same seed", i, one[i], two[i])
		}
		if one[i] != other[i] {
			differ++
		}
		binary.Write(sum, binary.LittleEndian, one[i].at)
		sum.Write([]byte{byte(one[i].v)})
	}
	if differ < n/2 {
		t.Errorf("only %d of %d fates differ with another seed", differ, n)
	}
	// Changes only if fates change, and with them every figure measured before.
	const golden = 0xfa52521beedf7edf
	if got := sum.Sum64(); got != golden {
		t.Errorf("fates hash to %#x, want %#x", got, uint64(golden))
	}
}

func TestPropertiesDrawApart(t *testing.T) {
	losses := func(l Link, gap time.Duration) (lostAt []int) {
		for i, f := range run(t, l, 7, 20_000, 1000, gap) {
			if f.v == lost {
				lostAt = append(lostAt, i)
			}
		}
		return lostAt
	}
	base := Link{Loss: 0.01, Burst: Burst{Enter: 0.01, Leave: 0.3, LossBad: 0.8}}
	more := everything()
	more.Loss, more.Burst, more.Queue = base.Loss, base.Burst, 60<<20
	want := fmt.Sprint(losses(base, ms))
	if got := fmt.Sprint(losses(base, 3*ms)); got != want {
		t.Error("time changes what is lost")
	}
	if got := fmt.Sprint(losses(more, 3*ms)); got != want {
		t.Error("other properties change what is lost")
	}
}

func TestSegmentsWait(t *testing.T) {
	const rtt = 40 * ms
	const n = 100_000
	l := newLink(Link{Delay: 20 * ms, Loss: 0.1}, 4, 1, rtt)
	var quick, once, more int
	for i := range n {
		now := int64(i) * int64(ms)
		switch d := time.Duration(l.segment(now, 1500) - now); {
		case d == 20*ms:
			quick++
		case d == 20*ms+rtt:
			once++
		case d == 20*ms+2*rtt+200*ms || d >= 20*ms+3*rtt+600*ms:
			more++
		default:
			t.Fatalf("a segment took %v", d)
		}
	}
	within(t, "not lost", float64(quick), n*0.9, 3.3*math.Sqrt(n*0.09))
	within(t, "lost once", float64(once), n*0.09, 3.3*math.Sqrt(n*0.09))
	within(t, "lost again", float64(more), n*0.01, 3.3*math.Sqrt(n*0.01))

	lose := newLink(Link{Outages: Outages{Windows: []Window{{0, time.Second}}, Lose: true}}, 1, 1, rtt)
	if got := time.Duration(lose.segment(int64(100*ms), 1500)); got != time.Second+rtt {
		t.Errorf("a segment in an outage that loses arrives at %v, want %v", got, time.Second+rtt)
	}
}

func TestPacketDoesNotAllocate(t *testing.T) {
	l := newLink(everything(), 1, 1, 0)
	now := int64(0)
	for range 10_000 { // the queue's memory finds its size
		now += int64(ms)
		l.packet(now, 1228)
	}
	if n := testing.AllocsPerRun(10_000, func() {
		now += int64(ms)
		l.packet(now, 1228)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPacket(b *testing.B) {
	trace := &Trace{}
	for i := range 60_000 {
		trace.at = append(trace.at, uint32(i+rand.IntN(2)))
	}
	for _, bb := range []struct {
		name string
		link Link
	}{
		{"rate and delay", Link{Rate: 12 * mbit, Delay: 35 * ms}},
		{"everything", everything()},
		{"trace", Link{Trace: trace, Delay: 35 * ms}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			l := newLink(bb.link, 1, 1, 0)
			b.SetBytes(1228)
			now := int64(0)
			for b.Loop() {
				now += int64(ms)
				l.packet(now, 1228)
			}
		})
	}
}
