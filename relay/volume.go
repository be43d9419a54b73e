package relay

import (
	"math"
	"time"

	"github.com/blindrelay/blindrelay/relay/admit"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// maxVolumes bounds how many routes a relay remembers the volume of. An agent
// shows what was forgotten by its receipt.
const maxVolumes = 64 << 10

// volumes is what each route with a volume has forwarded in this month. It is
// in memory alone; receipts carry it over a restart. It is guarded by
// registry.mu.
type volumes struct {
	receipts *admit.Receipts // nil: none
	month    admit.Month
	used     map[wire.Route]int64 // bytes; at most maxVolumes
	spent    float64              // bytes that were counted since the start
}

// at begins a new month where there is one.
func (v *volumes) at(now time.Time) {
	if m := admit.MonthOf(now); m != v.month {
		v.month = m
		clear(v.used)
	}
}

// spend counts bytes of a route and returns how many it has used.
func (v *volumes) spend(r wire.Route, bytes int64) int64 {
	v.at(time.Now())
	if bytes == 0 {
		return v.used[r] // it needs no place
	}
	v.spent += float64(bytes)
	return v.raise(r, bytes)
}

// raise adds bytes to what a route has used.
func (v *volumes) raise(r wire.Route, bytes int64) int64 {
	if _, known := v.used[r]; !known && len(v.used) >= maxVolumes {
		for other := range v.used { // any
			delete(v.used, other)
			break
		}
	}
	if v.used[r] > math.MaxInt64-bytes {
		bytes = math.MaxInt64 - v.used[r]
	}
	v.used[r] += bytes
	return v.used[r]
}

// present takes a receipt that the agent of a route shows, and reports whether
// it is one of this month and route.
func (v *volumes) present(r wire.Route, text string) bool {
	now := time.Now()
	v.at(now)
	if v.receipts == nil {
		return false
	}
	used, err := v.receipts.Read(text, r, now)
	if err != nil {
		return false
	}
	if more := used - v.used[r]; more > 0 {
		v.raise(r, more)
	}
	return true
}

// limit returns the volume of a group and what is left of it, or nil if it has
// none.
func (v *volumes) limit(g *group) *wire.Limit {
	if g.terms.volume == 0 {
		return nil
	}
	now := time.Now()
	v.at(now)
	return &wire.Limit{
		Code:       wire.CodeVolumeLimit,
		Limit:      uint64(g.terms.volume),
		Left:       uint64(max(0, g.terms.volume-v.used[g.route])),
		RetryAfter: uint32(v.month.End().Sub(now)/time.Second) + 1,
	}
}

// receipt returns the receipt of a route, "" if there is none.
func (v *volumes) receipt(r wire.Route) wire.Receipt {
	if v.receipts == nil {
		return ""
	}
	return wire.Receipt(v.receipts.Sign(r, v.month, v.used[r]))
}
