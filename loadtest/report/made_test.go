package report

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/result"
	"github.com/blindrelay/blindrelay/loadtest/slo"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// made returns a run as 100 viewers on a stuttering link might have it: they
// arrive within ten seconds, and at 40 s the uplink fails for a while.
func made(t testing.TB, seed uint64, length time.Duration) *result.Result {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	rec := result.NewRecorder()
	length = length.Truncate(time.Second)
	var relay, load result.Usage
	buffer := 0.0
	for at := time.Second; at <= length; at += time.Second {
		sec := at.Seconds()
		outage := sec >= 40 && sec < 47
		here := int(min(100, 10*sec))
		starting := max(0, min(here, 10)-int(max(0, sec-10)*5))
		stalled := 0
		buffer = min(29, buffer+1.4+random.Float64())
		if outage {
			buffer = max(0, buffer-9)
			stalled = int((sec - 39) * 1.6)
		}
		rate := float64(here)*8e6*(0.9+0.2*random.Float64()) + 5e7*math.Sin(sec/3)
		if outage {
			rate *= 0.25
		}
		rate = max(0, rate)
		relay.Memory = int64(38<<20 + 2e5*float64(here) + 4e6*random.Float64())
		load.Memory = int64(120<<20 + 4e5*float64(here) + 4e6*random.Float64())
		stalls := int64(0)
		if outage {
			stalls = int64(random.IntN(4))
		}
		second := result.Sample{
			At: at, Starting: starting, Stalled: stalled, Playing: here - starting - stalled, Goodput: rate, Stalls: stalls,
			Buffer: [3]float64{max(0, buffer-6-3*random.Float64()), buffer, min(30, buffer+2)},
			Relay: result.Usage{CPU: time.Duration(rate * 0.7), Memory: relay.Memory, Goroutines: int64(40 + 4*here),
				Streams: int64(here), Buffered: int64(float64(here) * 4e4 * (1 + random.Float64()))},
			Load: result.Usage{CPU: time.Duration(rate * 0.9), Memory: load.Memory, Goroutines: int64(60 + 9*here)},
		}
		rec.Sample(second)
		relay.CPU += second.Relay.CPU
		load.CPU += second.Load.CPU
		relay.Buffered = max(relay.Buffered, second.Relay.Buffered)
		rec.Add(func(v *result.Viewers) {
			v.Bytes += int64(rate / 8)
			v.Verified += int64(rate / 8)
			v.Watched += time.Duration(second.Playing) * time.Second
			v.Stalled += time.Duration(second.Stalled) * time.Second
			v.Stalls += stalls
		})
		for range here / 4 {
			ttfb := time.Duration((20 + 15*random.ExpFloat64()) * float64(time.Millisecond))
			rec.Hist(result.HistTTFB).Record(ttfb)
			rec.Hist(result.HistSegment).Record(ttfb + time.Duration((300+200*random.ExpFloat64())*float64(time.Millisecond)))
			rec.Hist(result.HistDelay).Record(time.Duration(80+400*random.ExpFloat64()) * time.Microsecond)
			rec.Bitrate([]int64{8e6, 8e6, 8e6, 4_500_000, 2e6}[random.IntN(5)])
			rec.Add(func(v *result.Viewers) { v.Requests++ })
		}
		for range stalls {
			rec.Hist(result.HistStall).Record(time.Duration((400 + 900*random.ExpFloat64()) * float64(time.Millisecond)))
		}
	}
	for range 100 {
		rec.Hist(result.HistStart).Record(time.Duration((350 + 300*random.ExpFloat64()) * float64(time.Millisecond)))
		rec.Hist(result.HistConnect).Record(time.Duration((60 + 20*random.ExpFloat64()) * float64(time.Millisecond)))
	}
	rec.Error("timeout")
	rec.Error("timeout")
	rec.Error("503")
	rec.Add(func(v *result.Viewers) {
		v.Arrived, v.Started, v.Left, v.Connects, v.Switches = 100, 99, 3, 101, 412
		v.Longest = rec.Hist(result.HistStall).Max()
	})
	res := rec.Result()
	res.Title = "100 viewers, vod, 8 Mbit/s adaptive, lte"
	res.Started = time.Date(2026, 7, 4, 20, 15, 0, 0, time.UTC)
	res.Took = length
	res.Scenario = map[string]any{
		"link": "lte", "duration": "2m0s", "ramp": "10s", "seed": 7,
		"viewers": []map[string]any{{"kind": "vod", "number": 100, "bitrates": []string{"2M", "4.5M", "8M"}, "adaptive": true}},
	}
	res.Machine = result.Machine{CPU: "AMD EPYC 7R13", Cores: 2, Memory: 8 << 30, System: "Linux 6.1.0", Go: "go1.26.8", Revision: "v0.3.0-12-g4f2c1aa"}
	relay.Goroutines, relay.Streams, relay.Packets, relay.Memory = 440, 100, 9_213_345, 62<<20
	load.Goroutines, load.Memory = 960, 171<<20
	res.Relay, res.Load, res.RelayVersion = &relay, load, "v0.3.0"
	res.Links = &result.Links{Packets: 8_123_456, Lost: 812, Dropped: 4_321, Late: 700 * time.Microsecond, LateMax: 5 * time.Millisecond}
	objectives, err := slo.Parse("stall_ratio<0.1%,start_p95<2s,goodput>=500M")
	if err != nil {
		t.Fatal(err)
	}
	res.SLO = objectives.Evaluate(res)
	return res
}
