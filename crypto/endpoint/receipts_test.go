package endpoint

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// TestReceipts: each relay is shown its own receipt, the latest one, by the next
// connection, with the next word about tokens, and after a restart.
func TestReceipts(t *testing.T) {
	underSky(t, 2, func(t *testing.T, s *sky) {
		dir := t.TempDir() + "/home"
		start := func() (*Agent, func()) {
			home, err := pair.OpenHome(dir)
			if err != nil {
				t.Fatal(err)
			}
			s.homes = []*pair.Home{home}
			return s.agent(s.all(), nil, nil, nil)
		}
		a, end := start()
		relays := s.ordered(a)
		s.expect(time.Second, "start", relays, 1, 1)
		if got := relays[0].receipt(); got != "" {
			t.Errorf("before the first the relay is shown %q", got)
		}
		relays[0].tell(wire.Receipt("first").Append(nil))
		relays[1].tell(wire.Receipt("other").Append(nil))
		relays[0].tell(wire.Receipt("second").Append(nil), wire.Receipt("latest").Append(nil))
		if err := a.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := relays[0].receipt(); got != "latest" {
			t.Errorf("with the tokens the relay is shown %q", got)
		}
		for i, want := range []string{"latest", "other"} {
			relays[i].drop(wire.CodeShutdown)
			time.Sleep(time.Second)
			s.expect(10*time.Second, "back", relays, 1, 1)
			if got := relays[i].receipt(); got != want {
				t.Errorf("on another connection relay %d is shown %q, want %q", i, got, want)
			}
		}
		relays[1].tell(wire.Receipt("at_the_end").Append(nil))
		end()
		time.Sleep(time.Second) // the relays see it
		_, end = start()
		defer end()
		s.expect(time.Second, "restart", relays, 1, 1)
		for i, want := range []string{"latest", "at_the_end"} {
			if got := relays[i].receipt(); got != want {
				t.Errorf("after a restart relay %d is shown %q, want %q", i, got, want)
			}
		}
	})
}

// TestReceiptsAreSparing: a relay that gives one receipt after the other does
// not have them all written, and one of too many relays pushes the oldest out.
func TestReceiptsAreSparing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir() + "/home"
		home, err := pair.OpenHome(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer home.Close()
		var b bytes.Buffer
		r := newReceipts(home, slog.New(slog.NewTextHandler(&b, nil)))
		go r.keep(t.Context())
		relay := func(i int) wire.Relay { return wire.Relay{Addr: fmt.Sprintf("192.0.2.1:%d", i)} }
		stored := func() string {
			synctest.Wait()
			all, err := home.Receipts()
			if err != nil {
				t.Fatal(err)
			}
			var texts []string
			for _, one := range all {
				texts = append(texts, one.Text)
			}
			return strings.Join(texts, " ")
		}
		r.take(relay(1), "a")
		if got := stored(); got != "a" {
			t.Errorf("the first is stored as %q", got)
		}
		for i := range 9 {
			time.Sleep(time.Second)
			r.take(relay(1), fmt.Sprint("b", i))
		}
		if got := stored(); got != "a" {
			t.Errorf("within 10 s the file was written again: %q", got)
		}
		time.Sleep(2 * time.Second)
		if got := stored(); got != "b8" {
			t.Errorf("after 10 s the file has %q, want the latest", got)
		}
		for i := range pair.MaxReceipts {
			time.Sleep(time.Millisecond)
			r.take(relay(i+2), "c")
		}
		r.take(relay(5), "")
		if len(r.latest) != pair.MaxReceipts || r.of(relay(1)) != "" || r.of(relay(2)) != "c" {
			t.Errorf("%d receipts are kept, of the oldest %q", len(r.latest), r.of(relay(1)))
		}
		time.Sleep(saveEvery)
		if got := stored(); strings.Contains(got, "b8") || strings.Count(got, "c") != pair.MaxReceipts {
			t.Errorf("the file has %q", got)
		}
		if b.Len() > 0 {
			t.Errorf("the log says %s", b.String())
		}
		if err := os.WriteFile(dir+"/receipts.json", []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if again := newReceipts(home, slog.New(slog.NewTextHandler(&b, nil))); len(again.latest) > 0 || !strings.Contains(b.String(), "begun anew") {
			t.Errorf("of a broken file %d are read; the log says %s", len(again.latest), b.String())
		}
		if err := os.RemoveAll(dir); err != nil { // nothing can be written any more
			t.Fatal(err)
		}
		b.Reset()
		for i := range 3 {
			r.take(relay(1), fmt.Sprint("d", i))
			time.Sleep(2 * saveEvery)
		}
		if n := strings.Count(b.String(), "cannot be stored"); n != 1 || r.of(relay(1)) != "d2" {
			t.Errorf("three writes that fail are logged %d times, and %q is shown", n, r.of(relay(1)))
		}
	})
}

// TestReceiptKey: a relay is known by its key, whatever name leads to it.
func TestReceiptKey(t *testing.T) {
	pinned, err := wire.ParseRelay("relay.example:4433#" + strings.Repeat("B", 42) + "A")
	if err != nil {
		t.Fatal(err)
	}
	other := pinned
	other.Addr = "192.0.2.1:443"
	if receiptKey(pinned) != receiptKey(other) {
		t.Error("two addresses of one key are two relays")
	}
	named := wire.Relay{Addr: "relay.example:4433"}
	if receiptKey(named) != "relay.example:4433" || receiptKey(named) == receiptKey(pinned) {
		t.Errorf("a relay without a pin is %q", receiptKey(named))
	}
}
