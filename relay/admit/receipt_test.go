package admit

import (
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

func TestMonth(t *testing.T) {
	for text, end := range map[string]string{
		"2026-11-30T23:59:59Z":      "2026-12-01T00:00:00Z",
		"2026-12-01T00:30:00+01:00": "2026-12-01T00:00:00Z",
		"2026-12-31T12:00:00Z":      "2027-01-01T00:00:00Z",
	} {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		if got := MonthOf(at).End().Format(time.RFC3339); got != end {
			t.Errorf("the month of %s ends at %s, want %s", text, got, end)
		}
	}
	if end := Month("x").End(); !end.IsZero() {
		t.Errorf("what is no month ends at %v", end)
	}
}

// TestReceipts reads a receipt only for the route and the month that it is of,
// with the key that made it, and whole.
func TestReceipts(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	r, other := NewReceipts([32]byte{1}), NewReceipts([32]byte{2})
	good := r.Sign(here, MonthOf(now), 1<<62)
	if len(good) > wire.MaxReceipt {
		t.Errorf("a receipt of %d bytes, at most %d are possible", len(good), wire.MaxReceipt)
	}
	if parsed, err := wire.ParseReceipt([]byte(good)); err != nil || string(parsed) != good {
		t.Errorf("a frame does not carry it: %v", err)
	}
	if used, err := r.Read(good, here, now); err != nil || used != 1<<62 {
		t.Errorf("%d, %v", used, err)
	}
	ticket := sign(t, newEd25519(t), Ticket{Route: here, Grant: Grant{Until: now.Add(time.Hour)}})
	for name, read := range map[string]func() (int64, error){
		"of another key":   func() (int64, error) { return other.Read(good, here, now) },
		"of another route": func() (int64, error) { return r.Read(good, wire.Route{1}, now) },
		"of last month":    func() (int64, error) { return r.Read(good, here, now.AddDate(0, 0, 1)) },
		"that is cut":      func() (int64, error) { return r.Read(good[:len(good)-1], here, now) },
		"less than 0":      func() (int64, error) { return r.Read(r.Sign(here, MonthOf(now), -1), here, now) },
		"that is none":     func() (int64, error) { return r.Read("", here, now) },
		"that is a ticket": func() (int64, error) { return r.Read(ticket, here, now) },
		"without a seal": func() (int64, error) {
			return r.Read(good[:strings.LastIndexByte(good, '.')+1], here, now)
		},
	} {
		if used, err := read(); err == nil || used != 0 {
			t.Errorf("a receipt %s says %d bytes", name, used)
		}
	}
	if _, err := policyOf(t, newEd25519(t)).Admit(t.Context(), Request{here, good}); err == nil {
		t.Error("a receipt admits its agent as a ticket would")
	}
}

func FuzzReceipt(f *testing.F) {
	now := time.Now()
	r := NewReceipts([32]byte{1})
	good := r.Sign(here, MonthOf(now), 1000)
	f.Add(good)
	f.Add("")
	f.Add(good[:40])
	f.Add(strings.Replace(good, ".", "", 1))
	f.Fuzz(func(t *testing.T, text string) {
		if used, err := r.Read(text, here, now); (err == nil) != (text == good) || err != nil && used != 0 {
			t.Errorf("%q: %d, %v", text, used, err)
		}
	})
}
