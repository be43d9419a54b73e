package hop

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

var volume = wire.Limit{Code: wire.CodeVolumeLimit, Limit: 100, Left: 40, RetryAfter: 60}

// heard waits until the code under test has read all that the relay wrote.
func heard() { time.Sleep(time.Second) }

func (s *script) wantLimits(got []Limit, want ...wire.Limit) {
	s.t.Helper()
	if !slices.EqualFunc(got, want, func(a Limit, b wire.Limit) bool { return a.Limit == b }) {
		s.t.Errorf("the limits are %v, want %v", got, want)
	}
}

// TestLimits has LIMIT and RECEIPT come in any number and order, up to GOODBYE.
func TestLimits(t *testing.T) {
	play(t, func(s *script) {
		r, control := s.registered()
		if r.Limits() != nil || r.Receipt() != "" {
			t.Errorf("before the first: %v, %q", r.Limits(), r.Receipt())
		}
		busy := wire.Limit{Code: wire.CodeRouteRate, Limit: 7}
		less := volume
		less.Left = 30
		s.write(control, busy.Append(nil), wire.Receipt("one").Append(nil), volume.Append(nil), optional,
			wire.Limit{Code: 0x7777}.Append(nil), wire.Receipt("two").Append(nil), less.Append(nil))
		<-r.News()
		heard()
		s.wantLimits(r.Limits(), less, busy)
		if got := time.Since(r.Limits()[0].Received); got != time.Second {
			t.Errorf("it came %v ago, want a second", got)
		}
		if r.Receipt() != "two" {
			t.Errorf("the receipt is %q", r.Receipt())
		}
		go func() {
			st := s.accept()
			s.read(st, wire.Register{Instance: registration.Instance, Receipt: "two"}.Append(nil))
			s.write(st, registered)
			st.CloseWrite()
		}()
		if err := r.Update(s.t.Context(), nil, ""); err != nil {
			t.Error(err)
		}
		s.write(control, wire.Goodbye{Code: wire.CodeShutdown}.Append(nil))
		<-r.Leaving()
		s.wantLimits(r.Limits(), less, busy)
		r.Close(wire.CodeNone, "")
	})
}

// TestLimitsOfDevice gives a device limits, and then a receipt, which it has no
// use for.
func TestLimitsOfDevice(t *testing.T) {
	play(t, func(s *script) {
		a, err := Attach(s.t.Context(), s.endpoint, target)
		if err != nil {
			t.Fatal(err)
		}
		control := s.accept()
		s.write(control, welcome, volume.Append(nil))
		<-a.News()
		s.wantLimits(a.Limits(), volume)
		s.write(control, wire.Receipt("mine").Append(nil))
		<-a.Leaving()
		s.relaySees(wire.CodeProtocol)
	})
}

// TestReceiptIsShown registers with what an earlier session was given.
func TestReceiptIsShown(t *testing.T) {
	play(t, func(s *script) {
		go func() {
			control := s.accept()
			s.read(control, hello, wire.Register{Receipt: "from before"}.Append(nil))
			s.write(control, welcome, registered)
		}()
		r, err := Register(s.t.Context(), s.endpoint, wire.Register{Receipt: "from before"})
		if err != nil {
			t.Fatal(err)
		}
		if r.Receipt() != "from before" {
			t.Errorf("the receipt is %q", r.Receipt())
		}
		r.Close(wire.CodeNone, "")
	})
	play(t, func(s *script) {
		if _, err := Register(s.t.Context(), s.endpoint, wire.Register{Receipt: strings.Repeat("x", wire.MaxReceipt+1)}); err == nil {
			t.Error("a receipt that is too long is sent")
		}
		s.relaySees(wire.CodeNone)
	})
}

// TestLimitFlood bounds what a session keeps, however much a relay says.
func TestLimitFlood(t *testing.T) {
	play(t, func(s *script) {
		r, control := s.registered()
		var all []byte
		for code := range 1 << 14 {
			all = wire.Limit{Code: wire.Code(code)}.Append(all)
			if code%16 == 0 {
				all = wire.Receipt(bytes.Repeat([]byte{'r'}, wire.MaxReceipt)).Append(all)
			}
		}
		s.write(control, all)
		s.write(control, volume.Append(nil))
		heard()
		got := r.Limits()
		if n := len(got); n != 8 || cap(got) > 16 {
			t.Errorf("%d limits are kept", n)
		}
		if i := slices.IndexFunc(got, func(l Limit) bool { return l.Limit == volume }); i < 0 {
			t.Errorf("the last word is not there: %v", got)
		}
		r.Close(wire.CodeNone, "")
	})
}

// TestLimitLies gives frames that no relay may say behind the greeting.
func TestLimitLies(t *testing.T) {
	for name, c := range map[string]struct {
		frame []byte
		code  wire.Code
	}{
		"LIMIT too short":        {append([]byte{byte(wire.FrameLimit), 0, 21}, make([]byte, 21)...), wire.CodeProtocol},
		"LIMIT too long":         {[]byte{byte(wire.FrameLimit), 0, 65}, wire.CodeFrameTooLarge},
		"RECEIPT too long":       {[]byte{byte(wire.FrameReceipt), 2, 1}, wire.CodeFrameTooLarge},
		"RECEIPT of other bytes": {[]byte{byte(wire.FrameReceipt), 0, 2, 'a', '\n'}, wire.CodeProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(s *script) {
				r, control := s.registered()
				s.write(control, volume.Append(nil), c.frame)
				<-r.Leaving()
				if got := s.closed(r.Err()); got.Code != c.code || got.Remote {
					t.Errorf("got %v, want %v", &got, c.code)
				}
				s.relaySees(c.code)
			})
		})
	}
}

// TestUrgency opens streams of each urgency over one attachment.
func TestUrgency(t *testing.T) {
	play(t, func(s *script) {
		a, err := Attach(s.t.Context(), s.endpoint, target)
		if err != nil {
			t.Fatal(err)
		}
		s.accept()
		for _, u := range []wire.Urgency{wire.Bulk, wire.Playing, wire.Prefetch} {
			if _, err := a.OpenUrgent(s.t.Context(), u); err != nil {
				t.Fatal(err)
			}
			want := target
			want.Urgency = u
			s.read(s.accept(), want.Append(nil))
		}
		if _, err := a.Open(s.t.Context()); err != nil {
			t.Fatal(err)
		}
		s.read(s.accept(), target.Append(nil))
		a.Close(wire.CodeNone, "")
	})
}
