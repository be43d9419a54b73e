package endpoint

import (
	"bytes"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// TestTicketMissing says what a relay wants, and a ticket that comes later is
// shown at once.
func TestTicketMissing(t *testing.T) {
	underSky(t, 1, func(t *testing.T, s *sky) {
		a, end := s.agent(s.all(), nil, nil, func(*Agent) { s.relays[0].demand("one", 0) })
		defer end()
		if err := a.Ready(t.Context()); codeOf(err) != wire.CodeTicketMissing || !strings.Contains(err.Error(), a.home.Route().String()) || !strings.Contains(err.Error(), "--ticket FILE") {
			t.Errorf("Ready says %v", err)
		}
		time.Sleep(time.Minute)
		if n := s.relays[0].asked(); n > 5 {
			t.Errorf("the relay was asked %d times in a minute", n)
		}
		a.Renew("two")
		time.Sleep(time.Second)
		if r := a.Status().Relays[0]; !strings.Contains(r.Error, "does not take this server's ticket") {
			t.Errorf("the status is %+v", r)
		}
		a.Renew("one")
		s.expect(time.Second, "with the ticket", s.relays, 1)
	})
}

// TestTicketRenewed shows a new ticket to every relay over the connections that
// there are.
func TestTicketRenewed(t *testing.T) {
	underSky(t, 2, func(t *testing.T, s *sky) {
		first := "one"
		a, end := s.agent(s.all(), nil, nil, func(a *Agent) {
			a.ticket.Store(&first)
			for _, r := range s.relays {
				r.demand("one", 0)
			}
		})
		defer end()
		s.expect(time.Second, "at the start", s.relays, 1, 1)
		for _, r := range s.relays {
			r.demand("two", 5000)
		}
		a.Renew("two")
		time.Sleep(time.Second)
		s.expect(0, "with a new one", s.relays, 1, 1)
		for i, r := range a.Status().Relays {
			if left := time.Until(r.Until); left < 4990*time.Second || left > 5001*time.Second {
				t.Errorf("relay %d: the ticket ends in %v", i, left)
			}
			if n := s.relays[i].asked(); n != 1 {
				t.Errorf("relay %d was dialed %d times", i, n)
			}
		}
		a.Renew("three")
		time.Sleep(time.Second)
		s.expect(0, "with one that is none", s.relays, 0, 0)
		if r := a.Status().Relays[0]; !strings.Contains(r.Error, "does not take this server's ticket") {
			t.Errorf("the status is %+v", r)
		}
	})
}

// noticeLog counts the lines about tickets that end soon.
type noticeLog struct{ count atomic.Int32 }

func (l *noticeLog) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("ends soon")) {
		l.count.Add(1)
	}
	return len(p), nil
}

// TestTicketNotice logs a ticket that ends soon once, whatever else is said to
// the relay, and the next one once more.
func TestTicketNotice(t *testing.T) {
	underSky(t, 1, func(t *testing.T, s *sky) {
		var log noticeLog
		a, end := s.agent(s.all(), nil, slog.New(slog.NewTextHandler(&log, nil)), func(*Agent) { s.relays[0].demand("", 2*3600) })
		notices := func() int { return int(log.count.Load()) }
		time.Sleep(time.Hour - time.Minute)
		early := notices()
		time.Sleep(2 * time.Minute)
		due := notices()
		s.relays[0].demand("", 3600-61)
		a.Renew("the same")
		time.Sleep(time.Minute)
		same := notices()
		s.relays[0].demand("", 1800)
		a.Renew("another")
		time.Sleep(time.Minute)
		end()
		if early != 0 || due != 1 || same != 1 || notices() != 2 {
			t.Errorf("%d, %d, %d and %d notices, want 0, 1, 1 and 2", early, due, same, notices())
		}
	})
}
