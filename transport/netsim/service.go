package netsim

import (
	"math"
	"math/rand/v2"
	"time"
)

// never is later than any time on a link.
const never = math.MaxInt64

// outages walks through the outages of a link. Times must not go back.
type outages struct {
	cfg      Outages
	rng      *rand.Rand
	from, to int64 // the outage that ends next, in ns
	fixed    int   // how many windows were used
}

// seek makes o.from and o.to the first outage that ends after t.
func (o *outages) seek(t int64) {
	for t >= o.to {
		o.advance()
	}
}

func (o *outages) advance() {
	switch {
	case o.fixed < len(o.cfg.Windows):
		w := o.cfg.Windows[o.fixed]
		o.fixed++
		o.from, o.to = int64(w.From), int64(w.From+w.For)
	case o.cfg.Every > 0:
		o.from = o.to + int64(o.rng.ExpFloat64()*float64(o.cfg.Every))
		o.to = o.from + int64(o.cfg.Shortest) + o.rng.Int64N(int64(o.cfg.Longest-o.cfg.Shortest)+1)
	default:
		o.from, o.to = never, never
	}
}

// service says how long a link takes to transmit. Times must not go back.
type service struct {
	rate    int64 // bit/s now, 0 is unlimited
	until   int64 // when the rate is drawn anew
	low     float64
	span    float64 // ln of the highest rate above the lowest
	every   int64
	rng     *rand.Rand
	trace   cursor // if trace.trace is not nil, instead of the rate
	outages *outages
	waits   bool // packets wait in outages
}

func newService(l *Link, rng *rand.Rand, o *outages) service {
	s := service{rate: l.Rate, until: never, rng: rng, outages: o, waits: !l.Outages.Lose}
	if l.Trace != nil {
		s.trace = newCursor(l.Trace)
	}
	if l.RateLow > 0 {
		s.until, s.every = 0, int64(l.RateEvery)
		s.low, s.span = float64(l.RateLow), math.Log(float64(l.Rate)/float64(l.RateLow))
	}
	return s
}

// transmit returns when size bytes have left the link, if the first of them can
// leave at t.
func (s *service) transmit(t int64, size int) int64 {
	if s.trace.trace != nil {
		return s.transmitByTrace(t, size)
	}
	work := int64(size) * 8 * int64(time.Second) // in bit ns/s; below 2^53 for what passes an MTU
	for {
		end := int64(never)
		if s.waits {
			s.outages.seek(t)
			if t >= s.outages.from {
				t = s.outages.to
				continue
			}
			end = s.outages.from
		}
		for t >= s.until {
			s.until += s.every
			s.rate = int64(s.low * math.Exp(s.span*s.rng.Float64()))
		}
		end = min(end, s.until)
		if s.rate == 0 {
			return t
		}
		need := (work + s.rate - 1) / s.rate
		if end-t >= need {
			return t + need
		}
		work -= (end - t) * s.rate
		t = end
	}
}

func (s *service) transmitByTrace(t int64, size int) int64 {
	for {
		s.trace.seek(t)
		t = s.trace.time()
		if s.waits {
			s.outages.seek(t)
			if t >= s.outages.from {
				t = s.outages.to
				continue
			}
		}
		if size <= s.trace.left {
			s.trace.left -= size
			return t
		}
		size -= s.trace.left
		s.trace.step()
	}
}
