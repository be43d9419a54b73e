package fleet

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// TestSet follows a name in virtual time.
func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name, fixed := wire.Relay{Addr: "r.example:1"}, wire.Relay{Addr: "192.0.2.9:1"}
		z := &zone{ipErr: errors.New("SERVFAIL")}
		s := NewSet(z, []wire.Relay{name, fixed})
		expect := func(what string, ids ...string) {
			t.Helper()
			synctest.Wait()
			var got []string
			for _, r := range s.Relays() {
				got = append(got, r.ID)
			}
			if strings.Join(got, " ") != strings.Join(ids, " ") {
				t.Errorf("%s: %v is known, want %v", what, got, ids)
			}
		}
		expect("before the first answer", "192.0.2.9:1")
		if s.Failure(name) != nil || s.Failure(fixed) != nil {
			t.Error("a failure before the first question")
		}
		ctx, cancel := context.WithCancel(t.Context())
		changes := 0 // read after synctest.Wait or a sleep
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Keep(ctx, func() { changes++ })
		}()
		synctest.Wait()
		if err := s.Failure(name); err == nil || changes != 1 {
			t.Errorf("after a failed question: %v, %d changes", err, changes)
		}
		z.change(func() { z.ipErr, z.ips = nil, map[string][]netip.Addr{"r.example": ips("192.0.2.1", "192.0.2.9")} })
		time.Sleep(firstRetry)
		expect("after the first answer", "192.0.2.1:1", "192.0.2.9:1")
		if s.Failure(name) != nil || changes != 2 {
			t.Errorf("after an answer: %v, %d changes", s.Failure(name), changes)
		}

		asked := z.asked()
		for range 10 {
			s.Lost()
			time.Sleep(time.Second)
		}
		if z.asked() != asked {
			t.Errorf("%d questions within 30 s of an answer", z.asked()-asked)
		}
		z.change(func() { z.ips["r.example"] = ips("192.0.2.1", "192.0.2.2") })
		time.Sleep(20 * time.Second)
		expect("30 s after the answer, as a relay was lost", "192.0.2.1:1", "192.0.2.2:1", "192.0.2.9:1")

		z.change(func() { z.ips["r.example"] = ips("192.0.2.3") })
		time.Sleep(2 * time.Minute)
		expect("two minutes later", "192.0.2.1:1", "192.0.2.2:1", "192.0.2.9:1")
		time.Sleep(2 * time.Minute)
		expect("four minutes later", "192.0.2.3:1", "192.0.2.9:1")

		z.change(func() { z.ipErr = errors.New("SERVFAIL") })
		time.Sleep(time.Hour)
		expect("while DNS fails", "192.0.2.3:1", "192.0.2.9:1")
		z.change(func() { z.ipErr, z.srvErr, z.ips["r.example"] = nil, errors.New("SERVFAIL"), ips("192.0.2.4") })
		time.Sleep(time.Hour)
		expect("while half of DNS fails", "192.0.2.3:1", "192.0.2.9:1")
		if s.Failure(name) != nil {
			t.Errorf("a failure while something is known: %v", s.Failure(name))
		}
		z.change(func() { z.srvErr = nil })
		time.Sleep(staleAfter)
		expect("when DNS is back", "192.0.2.4:1", "192.0.2.9:1")

		asked = z.asked()
		time.Sleep(time.Hour)
		if n := z.asked() - asked; n < 15 || n > 20 {
			t.Errorf("%d questions in an hour of peace", n)
		}
		cancel()
		<-done
	})
}

// TestSetOfAddresses asks nobody.
func TestSetOfAddresses(t *testing.T) {
	s := NewSet(nil, []wire.Relay{{Addr: "192.0.2.9:1"}, {Addr: "[2001:db8::1]:1"}})
	s.Keep(t.Context(), func() { t.Error("something has changed") })
	if got := s.Relays(); len(got) != 2 {
		t.Errorf("got %v", got)
	}
}
