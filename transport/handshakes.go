package transport

import (
	"net"
	"sync"
	"time"
)

// Defaults of HandshakeLimits.
const (
	DefaultMaxHandshakes           = 1024
	DefaultMaxHandshakesPerAddress = 64
	DefaultHandshakeRate           = 500
	DefaultHandshakeRatePerAddress = 20
)

// HandshakeLimits bounds what handshakes may cost a relay: some 70 KiB each
// while it is under way, up to 10 s, and about a millisecond of CPU. Zeros mean
// the defaults, negative numbers no limit. An address is what SourceOf returns;
// what a network may have, Share says.
type HandshakeLimits struct {
	// Max is how many handshakes may be under way, MaxPerAddress how many of
	// them from one address.
	Max, MaxPerAddress int
	// Rate is how many may begin each second, RatePerAddress how many of them
	// from one address. After a rest burstSeconds' worth may begin at once, so
	// that all endpoints of a relay can come back together.
	Rate, RatePerAddress int
}

const (
	burstSeconds        = 4
	burstSecondsAddress = 8
	// A network may have one in networkShare of what all may have together: who
	// owns all its addresses leaves room for others.
	networkShare = 4
)

// Handshakes counts the handshakes of all listeners of a relay, over QUIC and
// TCP alike, and says which may begin. Only addresses that were seen to receive
// what is sent to them are counted, so that nobody uses up another's share by
// forging its address.
type Handshakes struct {
	max  int // negative: no limit
	calm int
	pace pace

	mu        sync.Mutex
	under     int       // way
	due       time.Time // of all, see pace
	retries   uint64
	addresses crowd
	networks  crowd
	tidying   bool // a timer runs
}

// calmHandshakes is how many handshakes may be under way before further clients
// must show first that they receive at the address that they send from (Retry,
// RFC 9000, section 8.1.2), which costs them a round trip and the relay nothing
// to keep. Where fewer are allowed at all, it is half of them.
const calmHandshakes = 128

// NewHandshakes returns a count for all listeners of one relay.
func NewHandshakes(l HandshakeLimits) *Handshakes {
	or := func(n, standard int) int {
		if n == 0 {
			return standard
		}
		return n
	}
	l.Max, l.MaxPerAddress = or(l.Max, DefaultMaxHandshakes), or(l.MaxPerAddress, DefaultMaxHandshakesPerAddress)
	l.Rate, l.RatePerAddress = or(l.Rate, DefaultHandshakeRate), or(l.RatePerAddress, DefaultHandshakeRatePerAddress)
	h := &Handshakes{
		max:       l.Max,
		calm:      calmHandshakes,
		pace:      paceOf(l.Rate, burstSeconds),
		addresses: newCrowd(SourceOf, l.MaxPerAddress, paceOf(l.RatePerAddress, burstSecondsAddress)),
		networks:  newCrowd(NetworkOf, Share(l.Max, l.MaxPerAddress), paceOf(Share(l.Rate, l.RatePerAddress), burstSeconds)),
	}
	if l.Max >= 0 {
		h.calm = min(h.calm, l.Max/2)
	}
	return h
}

// Share returns what one network, as NetworkOf tells them apart, may have of
// something of which a relay gives all at most, and each to one address: a
// quarter, but no less than an address has. Negative numbers are no limit, and
// where there is none for an address there is none for its network.
func Share(all, each int) int {
	if all < 0 || each < 0 {
		return -1
	}
	return max(1, all/networkShare, min(all, each))
}

// UnderWay returns how many handshakes are under way.
func (h *Handshakes) UnderWay() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.under
}

// Retries returns how many clients had to show so far that they receive at
// their address.
func (h *Handshakes) Retries() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.retries
}

// hurriedHandshake is how long a handshake may take that begins while half of
// those are under way that may be: who takes them all with addresses of its own
// has to come back so much sooner. An endpoint needs a round trip, two on TCP.
const hurriedHandshake = 3 * time.Second

// patience is how long a handshake that begins now may take.
func (h *Handshakes) patience() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.patienceNow()
}

func (h *Handshakes) patienceNow() time.Duration {
	if h.max >= 0 && h.under >= (h.max+1)/2 {
		return hurriedHandshake
	}
	return HandshakeTimeout
}

// tidyEvery is how often addresses are looked at that may be forgotten: one is
// kept for that and burstSecondsAddress after its last handshake at most.
const tidyEvery = burstSecondsAddress * time.Second

// tidyLater has addresses forgotten in time. It is called with the lock.
func (h *Handshakes) tidyLater() {
	if !h.tidying {
		h.tidying = true
		time.AfterFunc(tidyEvery, h.tidy)
	}
}

func (h *Handshakes) tidy() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	addresses, networks := h.addresses.tidy(now), h.networks.tidy(now)
	if h.tidying = false; addresses || networks {
		h.tidyLater()
	}
}

// charge counts a handshake for an address and its network.
func (h *Handshakes) charge(from net.Addr, now time.Time) (address, network *member) {
	h.tidyLater()
	return h.addresses.charge(from, now), h.networks.charge(from, now)
}

// handshake is one that is under way.
type handshake struct {
	of               *Handshakes
	from             net.Addr
	address, network *member // nil: not counted
	verified         bool
	patience         time.Duration // how long it may take
}

// doubts reports whether a client whose address may be forged must show first
// that it receives there. It must as soon as handshakes pile up, so that those
// that are forged never take more than a part of what all may have; and where
// its address has had its share, as only a client that receives there is told.
func (h *Handshakes) doubts(addr net.Addr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	doubts := h.under >= h.calm || h.pace.used(h.due, now) > h.pace.span/2 ||
		!h.addresses.room(addr, now) || !h.networks.room(addr, now)
	if doubts {
		h.retries++
	}
	return doubts
}

// begin counts a handshake, or reports that it must not begin. verified says
// that the client receives at addr. The caller ends what it gets.
func (h *Handshakes) begin(addr net.Addr, verified bool) (_ *handshake, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if h.max >= 0 && h.under >= h.max || !h.pace.free(h.due, now) {
		return nil, false
	}
	if verified && !(h.addresses.room(addr, now) && h.networks.room(addr, now)) {
		return nil, false
	}
	s := &handshake{of: h, from: addr, verified: verified, patience: h.patienceNow()}
	h.under++
	h.due = h.pace.charge(h.due, now)
	if verified {
		s.address, s.network = h.charge(addr, now)
		s.address.enter()
		s.network.enter()
	}
	return s, true
}

// end says that the handshake is over and whether it was completed, which
// verifies the client's address, too (RFC 9000, section 8.1). It is called once.
func (s *handshake) end(completed bool) {
	h := s.of
	h.mu.Lock()
	defer h.mu.Unlock()
	h.under--
	s.address.leave()
	s.network.leave()
	if completed && !s.verified {
		h.charge(s.from, time.Now())
	}
}
