package fleet

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// Times of a Set.
const (
	freshFor   = 30 * time.Second // a name that resolved is not asked for sooner
	staleAfter = 4 * time.Minute  // and asked for again after this
	firstRetry = time.Second      // for a name that has not resolved yet; doubles up to freshFor
)

// Set is the relays behind all that a user has configured. Its methods may be
// called concurrently.
type Set struct {
	resolver   Resolver
	configured []wire.Relay
	lost       chan struct{} // sent to by Lost without blocking, emptied by Keep; one value is enough

	mu    sync.Mutex
	known [][]Relay // of each configured relay: the latest whole answer, if there was one
	errs  []error   // of each configured relay: why the latest question failed
}

// NewSet returns a Set, in which addresses are known and names are not yet.
// With nil as the resolver it asks net.DefaultResolver.
func NewSet(r Resolver, configured []wire.Relay) *Set {
	if r == nil {
		r = net.DefaultResolver
	}
	s := &Set{resolver: r, configured: slices.Clone(configured), lost: make(chan struct{}, 1)}
	s.known, s.errs = make([][]Relay, len(configured)), make([]error, len(configured))
	for i, relay := range configured {
		if !named(relay) {
			s.known[i], s.errs[i] = Resolve(context.Background(), nil, relay)
		}
	}
	return s
}

func named(relay wire.Relay) bool {
	host, _, err := net.SplitHostPort(relay.Addr)
	if err != nil {
		return false
	}
	_, err = netip.ParseAddr(host)
	return err != nil
}

// Relays returns what is known now, each address once, in no order of use.
func (s *Set) Relays() []Relay {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Relay
	seen := make(map[string]bool)
	for _, known := range s.known {
		for _, r := range known {
			_, port, _ := net.SplitHostPort(r.Addr)
			if at := net.JoinHostPort(r.IP.String(), port); !seen[at] {
				seen[at] = true
				all = append(all, r)
			}
		}
	}
	return all
}

// Failure says why nothing is known of a configured relay; nil while something
// is, and before the first answer.
func (s *Set) Failure(configured wire.Relay) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.configured, configured)
	if i < 0 || len(s.known[i]) > 0 {
		return nil
	}
	return s.errs[i]
}

// Lost tells the Set that a relay of it could not be reached or is gone: Keep
// then asks for the names again, not sooner than 30 s after the last time.
func (s *Set) Lost() {
	select {
	case s.lost <- struct{}{}:
	default:
	}
}

// Keep asks for the names until ctx ends: at once, every four minutes, and
// after Lost. It calls changed after an answer that changed anything. A question
// that fails changes nothing of what is known. Keep returns at once if no name
// is configured.
func (s *Set) Keep(ctx context.Context, changed func()) {
	if !slices.ContainsFunc(s.configured, named) {
		return
	}
	retry := firstRetry
	for {
		select {
		case <-s.lost: // from before the answers that come now
		default:
		}
		news, lacking := s.ask(ctx)
		if news {
			changed()
		}
		if lacking {
			if !sleep(ctx, jitter(retry), nil) {
				return
			}
			retry = min(2*retry, freshFor)
			continue
		}
		retry = firstRetry
		if !sleep(ctx, freshFor, nil) || !sleep(ctx, jitter(staleAfter-freshFor), s.lost) {
			return
		}
	}
}

// ask asks for all names at the same time and reports whether anything is new
// and whether there is a name of which nothing is known.
func (s *Set) ask(ctx context.Context) (news, lacking bool) {
	var wait sync.WaitGroup
	for i, relay := range s.configured {
		if named(relay) {
			wait.Go(func() { s.learn(ctx, i, &news, &lacking) })
		}
	}
	wait.Wait()
	return news, lacking
}

// learn asks for one name; mu guards the results too.
func (s *Set) learn(ctx context.Context, i int, news, lacking *bool) {
	found, whole, err := resolve(ctx, s.resolver, s.configured[i])
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known[i]
	*news = *news || (err == nil) != (s.errs[i] == nil) || known == nil && err != nil
	s.errs[i] = err
	if err == nil && (whole || known == nil) && !slices.Equal(found, known) {
		s.known[i], *news = found, true
	}
	*lacking = *lacking || s.known[i] == nil
}

// jitter returns d, or up to a quarter less.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/4) }

// sleep waits for d, or until wake gives a value. It reports whether ctx is
// still good.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-wake:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
