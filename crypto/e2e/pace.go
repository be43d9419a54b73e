package e2e

import "time"

// What one of several carriers may have under way: what it brings in paceFor,
// so that a slow one holds no record for much longer than a fast one.
const (
	paceFor   = 500 * time.Millisecond
	paceOver  = 100 * time.Millisecond // a rate is measured over so long, or longer
	paceFirst = 256 << 10              // bytes, before there is a rate
	paceLeast = 128 << 10
)

// pace says how much a carrier may have under way. What came over it is known
// from acknowledgments.
type pace struct {
	sent, told uint64        // bytes of records that it took, and that have come
	rate       float64       // bytes per second; 0: not known
	at         time.Time     // when counted was told
	counted    uint64        //
	mark       uint64        // a round trip ends when told reaches it; 0: none runs
	marked     time.Time     // when it began
	trip       time.Duration // the shortest one; 0: not known
}

func newPace() pace { return pace{at: time.Now()} }

// room reports whether n more bytes may be sent now.
func (p *pace) room(n int) bool {
	most := float64(paceFirst)
	if p.rate > 0 {
		most = max(paceLeast, p.rate*max(paceFor, 2*p.trip).Seconds())
	}
	return float64(p.sent-p.told)+float64(n) <= most
}

func (p *pace) send(n int) {
	p.sent += uint64(n)
	if p.mark == 0 {
		p.mark, p.marked = p.sent, time.Now()
	}
}

// hear takes over how many bytes have come. They are more than were sent if the
// relay has repeated some.
func (p *pace) hear(told uint64, now time.Time) {
	told = min(told, p.sent)
	if told <= p.told {
		return
	}
	p.told = told
	if p.mark > 0 && told >= p.mark {
		if trip := now.Sub(p.marked); p.trip == 0 || trip < p.trip {
			p.trip = trip
		}
		p.mark = 0
	}
	if over := now.Sub(p.at); over >= paceOver {
		rate := float64(told-p.counted) / over.Seconds()
		if rate < p.rate { // it may have had less to send
			rate = (3*p.rate + rate) / 4
		}
		p.rate, p.at, p.counted = rate, now, told
	}
}
