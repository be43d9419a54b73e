package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// Bounds of what a name leads to. DNS is not trusted.
const (
	maxRelays    = 64 // of one name
	maxAddresses = 8  // of one relay
	maxLookups   = 8  // at a time, of the targets of one name
)

// Times of DNS.
const (
	patience = 5 * time.Second // for all that a name leads to
	// srvPatience bounds how much longer than the addresses the SRV records
	// may take: some home routers answer no question for them.
	srvPatience = 2 * time.Second
)

// Resolver is what a *net.Resolver does.
type Resolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, records []*net.SRV, err error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Resolve returns the relays behind one that a user has configured, at most 64
// with at most 8 addresses each. An IP address is itself. A name with SRV
// records _blindrelay._udp.NAME (RFC 2782) stands for their targets and ports,
// any other for each of its addresses, at the configured port; the i-th IPv4
// and the i-th IPv6 address, sorted, then count as one relay, for most names
// have one of each for every host. Every certificate is to be that of the
// configured name, because who answers DNS must not choose it. Resolve takes at
// most 5 s.
func Resolve(ctx context.Context, r Resolver, relay wire.Relay) ([]Relay, error) {
	found, _, err := resolve(ctx, r, relay)
	return found, err
}

// resolve also reports whether DNS gave the whole answer. If not, who knows an
// earlier one does better to keep it.
func resolve(ctx context.Context, r Resolver, relay wire.Relay) (found []Relay, whole bool, err error) {
	host, port, err := net.SplitHostPort(relay.Addr)
	if err != nil {
		return nil, false, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, false, fmt.Errorf("relay %s: the port is not a number", relay.Addr)
	}
	s := service{relay: relay, host: host}
	if ip, err := netip.ParseAddr(host); err == nil {
		ip = ip.Unmap()
		relay.IP = ip
		return []Relay{{Relay: relay, ID: netip.AddrPortFrom(ip, uint16(n)).String(), Weight: 1, Configured: s.relay}}, true, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	records, ips, srvErr, ipErr := ask(ctx, r, host)
	switch {
	case len(records) > 0:
		found, err = s.targets(ctx, r, records)
		return found, err == nil, err
	case ipErr != nil:
		return nil, false, fmt.Errorf("relay %s: the name does not resolve (is it spelled right, is this machine online?): %w", relay.Addr, ipErr)
	}
	if found = s.group(nil, ips, uint16(n)); len(found) == 0 {
		return nil, false, fmt.Errorf("relay %s: the name has no address that a relay could have", relay.Addr)
	}
	return found, srvErr == nil || notFound(srvErr), nil
}

// ask looks for SRV records and addresses at the same time.
func ask(ctx context.Context, r Resolver, host string) (records []*net.SRV, ips []netip.Addr, srvErr, ipErr error) {
	srvCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wait sync.WaitGroup
	wait.Go(func() {
		if host == "localhost" || strings.HasSuffix(host, ".localhost") { // RFC 6761: no question for DNS
			return
		}
		// Records that are not to be used come with an error, besides the others.
		_, records, srvErr = r.LookupSRV(srvCtx, "blindrelay", "udp", host)
	})
	ips, ipErr = r.LookupNetIP(ctx, "ip", host)
	if ipErr == nil {
		defer time.AfterFunc(srvPatience, cancel).Stop()
	}
	wait.Wait()
	return records, ips, srvErr, ipErr
}

func notFound(err error) bool {
	dns, ok := errors.AsType[*net.DNSError](err)
	return ok && dns.IsNotFound
}

// service is a configured relay whose name may stand for several.
type service struct {
	relay wire.Relay
	host  string
}

// targets returns the relays that SRV records name. Targets that do not resolve
// are left out; if that are all of them it fails.
func (s service) targets(ctx context.Context, r Resolver, records []*net.SRV) ([]Relay, error) {
	records = sane(records)
	if len(records) == 0 {
		return nil, fmt.Errorf("relay %s: the SRV records of the name say that there is no relay", s.relay.Addr)
	}
	type answer struct {
		ips []netip.Addr
		err error
	}
	answers := make(map[string]*answer)
	for _, t := range records {
		answers[t.Target] = &answer{}
	}
	slots := make(chan struct{}, maxLookups) // one value for each lookup under way
	var wait sync.WaitGroup
	for target, a := range answers {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			a.ips, a.err = r.LookupNetIP(ctx, "ip", target)
		})
	}
	wait.Wait()
	var found []Relay
	failure := errNoAddress
	tier := -1
	for i, t := range records {
		if i == 0 || t.Priority != records[i-1].Priority {
			tier++
		}
		a := answers[t.Target]
		if a.err != nil {
			failure = a.err
			continue
		}
		found = append(found, s.group(&place{t, tier, heaviest(records, t.Priority)}, a.ips, t.Port)...)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("relay %s: none of the %d targets of its SRV records has an address: %w", s.relay.Addr, len(records), failure)
	}
	return found, nil
}

var errNoAddress = errors.New("no address that a relay could have")

// sane returns the records that can be used, in the order of their priorities,
// each target and port once, and not too many.
func sane(records []*net.SRV) []*net.SRV {
	kept := make([]*net.SRV, 0, len(records))
	for _, t := range records {
		c := *t
		c.Target = strings.ToLower(strings.TrimSuffix(c.Target, "."))
		if c.Target != "" && c.Port != 0 { // "." says that there is no such service
			kept = append(kept, &c)
		}
	}
	slices.SortFunc(kept, func(a, b *net.SRV) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), strings.Compare(a.Target, b.Target), cmp.Compare(a.Port, b.Port), cmp.Compare(b.Weight, a.Weight))
	})
	seen := make(map[string]bool)
	kept = slices.DeleteFunc(kept, func(t *net.SRV) bool {
		id := targetID(t)
		twice := seen[id]
		seen[id] = true
		return twice
	})
	return kept[:min(len(kept), maxRelays)]
}

func targetID(t *net.SRV) string { return net.JoinHostPort(t.Target, strconv.Itoa(int(t.Port))) }

func heaviest(records []*net.SRV, priority uint16) uint16 {
	var most uint16
	for _, t := range records {
		if t.Priority == priority {
			most = max(most, t.Weight)
		}
	}
	return most
}

// place is where an SRV record puts its target in the order.
type place struct {
	*net.SRV
	tier     int
	heaviest uint16 // the greatest weight in the tier
}

func (p *place) weight() float64 {
	if p.heaviest == 0 {
		return 1
	}
	return max(float64(p.Weight)/float64(p.heaviest), lightest)
}

// group makes relays of the addresses of a name: one of all of them if an SRV
// record names it, else one of each pair. The family that the resolver lists
// first, because it suits this machine, comes first in each.
func (s service) group(at *place, ips []netip.Addr, port uint16) []Relay {
	families := split(ips)
	var found []Relay
	for i := range min(max(len(families[0]), len(families[1])), maxRelays) {
		r := Relay{Relay: s.relay, Weight: 1, Configured: s.relay}
		r.Addr = net.JoinHostPort(s.host, strconv.Itoa(int(port)))
		if at != nil {
			r.ID, r.Tier, r.Weight = targetID(at.SRV), at.tier, at.weight()
		}
		var pair []netip.Addr
		for _, family := range families {
			if i < len(family) {
				pair = append(pair, family[i])
			}
		}
		for _, ip := range pair {
			r.IP = ip
			if at == nil {
				r.ID = netip.AddrPortFrom(slices.MinFunc(pair, netip.Addr.Compare), port).String() // IPv4 sorts first
			}
			found = append(found, r)
		}
		if at != nil && len(found) >= maxAddresses {
			return found[:maxAddresses]
		}
	}
	return found
}

// split returns the addresses that a relay can have by their family, each
// sorted and without repetition; the family of the first address is the first.
func split(ips []netip.Addr) (families [2][]netip.Addr) {
	var first netip.Addr
	for _, ip := range ips {
		ip = ip.Unmap().WithZone("")
		if !ip.IsValid() || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast() || ip == broadcast {
			continue
		}
		if !first.IsValid() {
			first = ip
		}
		if ip.Is4() == first.Is4() {
			families[0] = append(families[0], ip)
		} else {
			families[1] = append(families[1], ip)
		}
	}
	for i := range families {
		slices.SortFunc(families[i], netip.Addr.Compare)
		families[i] = slices.Compact(families[i])
	}
	return families
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
