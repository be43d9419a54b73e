package e2e

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestPace lets a path of known rate and round trip tell what came over it.
func TestPace(t *testing.T) {
	for name, tc := range map[string]struct {
		rate   int // bytes per second
		trip   time.Duration
		most   time.Duration // what may be under way, as time at that rate
		atMost int           // or in bytes
	}{
		"fast":      {5 << 20, 40 * time.Millisecond, paceFor, 0},
		"slow":      {100 << 10, 40 * time.Millisecond, 0, paceLeast},
		"satellite": {2 << 20, 700 * time.Millisecond, 1700 * time.Millisecond, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPace()
				const block, tick = 16 << 10, 10 * time.Millisecond
				type arrival struct {
					at    time.Time
					total uint64
				}
				var way []arrival
				next := time.Now()
				for range 1000 {
					now := time.Now()
					for p.room(block) {
						p.send(block)
						if next.Before(now) {
							next = now
						}
						next = next.Add(time.Duration(block) * time.Second / time.Duration(tc.rate))
						way = append(way, arrival{next.Add(tc.trip), p.sent})
					}
					for len(way) > 0 && !way[0].at.After(now) {
						p.hear(way[0].total, now)
						way = way[1:]
					}
					time.Sleep(tick)
				}
				if got := float64(p.told) / 10; got < 0.85*float64(tc.rate) {
					t.Errorf("%.0f of %d bytes per second came", got, tc.rate)
				}
				most := max(float64(tc.atMost), float64(tc.rate)*tc.most.Seconds())
				if under := float64(p.sent - p.told); under > 1.3*most+block {
					t.Errorf("%.0f bytes are under way, want at most %.0f", under, most)
				}
			})
		})
	}
	p := newPace()
	p.send(10)
	for _, told := range []uint64{11, 10, 4} { // repeated by the relay; right; an old word
		if p.hear(told, time.Now()); p.told != 10 {
			t.Errorf("of 10 bytes %d have come, after word of %d", p.told, told)
		}
	}
}
