package netsim

import (
	"errors"
	"fmt"
	"time"
)

// Link is one direction of a path. The zero Link passes everything at once.
type Link struct {
	// Rate is in bit/s, of IP packets; 0 is unlimited, otherwise at least 8000.
	Rate int64
	// RateLow makes the rate change: after every RateEvery (at least 1 ms) it is
	// drawn anew between RateLow and Rate, evenly on a logarithmic scale, so
	// that its mean is (Rate-RateLow)/ln(Rate/RateLow). 0 keeps it at Rate.
	RateLow   int64
	RateEvery time.Duration
	// Trace, if not nil, is what the link delivers when; Rate must be 0.
	Trace *Trace

	// Queue is the room before the link in bytes, the packet in transmission
	// included; what finds it full is dropped. An empty queue takes any packet.
	// 0 means QueueTime.
	Queue int
	// QueueTime is the same as the time that the full queue takes at Rate, or at
	// the trace's mean rate, but not less than ten packets of 1500 bytes. 0
	// means 250 ms; an unlimited link, on which only outages fill the queue,
	// has 4 MiB.
	QueueTime time.Duration

	// Delay is the propagation time.
	Delay time.Duration
	// Jitter is the standard deviation of a normal variation of Delay, whose
	// values at times t apart correlate by exp(-t/JitterTime). A packet is never
	// faster than no delay and, unless Reorder says so, never overtakes.
	Jitter     time.Duration
	JitterTime time.Duration // 0 means 100 ms

	// Loss is the probability, 0 to 1, that a packet is lost, whatever happens
	// to others. A lost packet has used the queue and the rate.
	Loss float64
	// Burst loses packets in bursts, in addition to Loss.
	Burst Burst

	// Reorder is the probability, 0 to 1, that a packet arrives ReorderBy later
	// than it would have, and those behind it do not wait.
	Reorder   float64
	ReorderBy time.Duration

	Outages Outages
}

// Burst is the loss process of Gilbert and Elliott: a link is good or bad, may
// change with each packet, and loses with a probability that depends on it.
// With LossGood 0 and LossBad 1 the mean burst has 1/Leave packets and the loss
// is Enter/(Enter+Leave). All four are probabilities, 0 to 1.
type Burst struct {
	Enter    float64 // a good link turns bad
	Leave    float64 // a bad link turns good
	LossGood float64
	LossBad  float64
}

// Outages are times in which the link delivers nothing. Packets wait in the
// queue, which drops when it is full, as on a radio link that retransmits; with
// Lose, those whose transmission ends in an outage are lost, as behind a router
// that has restarted. What has left the link before an outage arrives.
type Outages struct {
	// Windows are fixed, in order and apart.
	Windows []Window
	// Every is the mean time (exponential, at least 10 ms) from the end of one
	// random outage to the start of the next, 0 for none; each lasts between
	// Shortest and Longest, evenly, at most a minute. Not together with Windows.
	Every             time.Duration
	Shortest, Longest time.Duration
	Lose              bool
}

// Window is a fixed outage; From counts from the start of the Line.
type Window struct{ From, For time.Duration }

const (
	headerUDP  = 28   // IPv4 and UDP
	headerTCP  = 40   // IPv4 and TCP without options
	mtu        = 1500 // of an IP packet, Ethernet's
	minQueue   = 10 * mtu
	maxQueue   = 64 << 20
	freeQueue  = 4 << 20 // on a link without a rate
	queueTime  = 250 * time.Millisecond
	jitterTime = 100 * time.Millisecond
	minRate    = 8000
	maxRate    = 100e9
	maxTime    = time.Hour // of delays
)

// check says what is wrong with l.
func (l *Link) check() error {
	for _, p := range []struct {
		name  string
		value float64
	}{{"loss", l.Loss}, {"reorder", l.Reorder}, {"burst enter", l.Burst.Enter}, {"burst leave", l.Burst.Leave},
		{"burst loss when good", l.Burst.LossGood}, {"burst loss when bad", l.Burst.LossBad}} {
		if !(p.value >= 0 && p.value <= 1) { // also refuses NaN
			return fmt.Errorf("%s is %v, must be a probability between 0 and 1", p.name, p.value)
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"delay", l.Delay}, {"jitter", l.Jitter}, {"jitter time", l.JitterTime}, {"reorder by", l.ReorderBy},
		{"queue", l.QueueTime}, {"rate every", l.RateEvery}, {"outage every", l.Outages.Every}} {
		if d.value < 0 || d.value > maxTime {
			return fmt.Errorf("%s is %v, must be between 0 and %v", d.name, d.value, maxTime)
		}
	}
	switch {
	case l.Rate != 0 && (l.Rate < minRate || l.Rate > maxRate):
		return fmt.Errorf("rate is %d bit/s, must be 0 for unlimited or between %d and %d", l.Rate, int64(minRate), int64(maxRate))
	case l.Trace != nil && l.Rate != 0:
		return errors.New("a link has either a rate or a trace")
	case l.RateLow != 0 && (l.RateLow < minRate || l.RateLow > l.Rate):
		return fmt.Errorf("lowest rate is %d bit/s, must be between %d and the rate", l.RateLow, int64(minRate))
	case (l.RateLow != 0) != (l.RateEvery != 0) || l.RateLow != 0 && l.RateEvery < time.Millisecond:
		return errors.New("a rate that changes needs a lowest rate and a time of at least 1ms")
	case l.Queue < 0 || l.Queue > maxQueue:
		return fmt.Errorf("queue is %d bytes, must be between 0 and %d", l.Queue, maxQueue)
	case (l.Reorder > 0) != (l.ReorderBy > 0):
		return errors.New("reordering needs a probability and a time")
	case l.Burst.Enter > 0 && l.Burst.Leave == 0:
		return errors.New("burst loss that never ends: give a probability to leave it")
	}
	return l.Outages.check()
}

func (o *Outages) check() error {
	if o.Every == 0 {
		if o.Shortest != 0 || o.Longest != 0 {
			return errors.New("random outages need a mean time between them")
		}
		end := time.Duration(0)
		for _, w := range o.Windows {
			if w.From < end || w.For <= 0 || w.From+w.For < w.From {
				return fmt.Errorf("outage from %v for %v: windows must last, follow each other and be apart", w.From, w.For)
			}
			end = w.From + w.For
		}
		return nil
	}
	switch {
	case len(o.Windows) > 0:
		return errors.New("a link has either fixed or random outages")
	case o.Every < 10*time.Millisecond:
		return fmt.Errorf("outage every %v, must be at least 10ms", o.Every)
	case o.Shortest <= 0 || o.Longest < o.Shortest || o.Longest > time.Minute:
		return fmt.Errorf("outages last from %v to %v, must be above 0 and at most a minute", o.Shortest, o.Longest)
	}
	return nil
}

// meanRate returns the rate that times are converted with, 0 if unlimited.
func (l *Link) meanRate() int64 {
	if l.Trace != nil {
		return l.Trace.Rate()
	}
	return l.Rate
}

// queueBytes returns the room of the queue.
func (l *Link) queueBytes() int {
	if l.Queue > 0 {
		return l.Queue
	}
	rate, t := l.meanRate(), l.QueueTime
	if rate == 0 {
		return freeQueue
	}
	if t == 0 {
		t = queueTime
	}
	return min(max(int(float64(rate)/8*t.Seconds()), minQueue), maxQueue)
}
