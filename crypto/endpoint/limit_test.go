package endpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/wire"
)

func TestLimitText(t *testing.T) {
	said := time.Date(2026, time.November, 12, 10, 0, 0, 0, time.UTC)
	month := uint32(time.Date(2026, time.December, 1, 0, 0, 0, 0, time.UTC).Sub(said) / time.Second)
	for _, c := range []struct {
		code        wire.Code
		limit, left uint64
		retry       uint32
		later       time.Duration
		met         bool
		want        string
	}{
		{wire.CodeVolumeLimit, 100 << 30, 12_345_678_901, month, 5 * time.Hour, false, "11.5 GiB of 100 GiB left until 1 December"},
		{wire.CodeVolumeLimit, 100 << 30, 12_345_678_901, month - 90, 0, false, "11.5 GiB of 100 GiB left until 1 December"},
		{wire.CodeVolumeLimit, 2 << 40, 0, month, time.Hour, true, "nothing of 2 TiB left until 1 December"},
		{wire.CodeVolumeLimit, 2 << 40, 0, 50_400, time.Hour, true, "nothing of 2 TiB left until 00:00 UTC"},
		{wire.CodeVolumeLimit, 2 << 40, 0, month, 19 * 24 * time.Hour, false, "2 TiB a month"},
		{wire.CodeVolumeLimit, 2 << 40, 0, 0, time.Hour, true, "nothing of 2 TiB left"},
		{wire.CodeRouteRate, 20e6, 20e6, 0, 0, false, "at most 20 Mbit/s for this server"},
		{wire.CodeRouteRate, 20e6, 0, 0, 10 * time.Second, true, "at most 20 Mbit/s for this server (reached)"},
		{wire.CodeRouteRate, 20e6, 0, 0, limitFor, false, "at most 20 Mbit/s for this server"},
		{wire.CodeDeviceRate, 999_960, 0, 0, 0, true, "at most 1 Mbit/s for each device (reached)"},
		{wire.CodeEgressRate, 900e6, 0, 0, 0, true, "the relay shares 900 Mbit/s among its servers (busy now)"},
		{wire.CodeEgressRate, 2_500e6, 1, 0, 0, false, "the relay shares 2.5 Gbit/s among its servers"},
		{wire.CodeDeviceLimit, 5, 2, 0, 0, false, "3 of 5 devices at a time"},
		{wire.CodeDeviceLimit, 5, 0, 0, 0, true, "5 of 5 devices at a time (reached)"},
		{wire.CodeDeviceLimit, 5, 0, 0, time.Hour, false, "at most 5 devices at a time"},
		{wire.CodeStreamLimit, 100, 99, 0, 0, false, "1 of 100 streams at a time"},
		{wire.CodeStreamLimit, 100, 99, 0, time.Hour, false, "at most 100 streams at a time"},
		{wire.CodeRelayStreams, 1000, 0, 0, 0, true, "the relay forwards 1000 of 1000 streams (reached)"},
		{wire.CodeRelayStreams, 1000, 0, 0, time.Hour, false, "the relay forwards at most 1000 streams"},
		{wire.CodeMemory, 512 << 20, 0, 0, 0, true, "the relay has 0 B of 512 MiB of buffers left (reached)"},
		{wire.CodeMemory, 512 << 20, 0, 0, time.Hour, false, "the relay has 512 MiB of buffers"},
		{wire.CodeStreamLimit, 3, 1 << 63, 0, 0, false, "0 of 3 streams at a time"}, // a lie
		{wire.CodeRouteRate, 1<<64 - 1, 0, 0, 0, true, "at most 18.4 Ebit/s for this server (reached)"},
	} {
		l := hop.Limit{Limit: wire.Limit{Code: c.code, Limit: c.limit, Left: c.left, RetryAfter: c.retry}, Received: said}
		now := said.Add(c.later)
		if got := limitText(l, now); got != c.want || limitMet(l, now) != c.met {
			t.Errorf("%v, %v later: %q, met %v; want %q, %v", c.code, c.later, got, limitMet(l, now), c.want, c.met)
		}
	}
}

// TestLimitStatus: of several connections the latest word counts.
func TestLimitStatus(t *testing.T) {
	at := time.Date(2026, time.November, 12, 10, 0, 0, 0, time.UTC)
	said := func(code wire.Code, left uint64, after time.Duration) hop.Limit {
		return hop.Limit{Limit: wire.Limit{Code: code, Limit: 9, Left: left, RetryAfter: 60}, Received: at.Add(after)}
	}
	got := limitStatus(at.Add(2*time.Second),
		[]hop.Limit{said(wire.CodeDeviceLimit, 1, time.Second), said(wire.CodeRouteRate, 1, 0)}, nil,
		[]hop.Limit{said(wire.CodeDeviceLimit, 2, 0), said(wire.CodeRouteRate, 0, time.Second)})
	if len(got) != 2 || got[0].Name != "device_limit" || got[0].Left != 1 || got[0].Met ||
		got[1].Name != "route_rate" || got[1].Left != 0 || !got[1].Met || !got[1].Back.Equal(at.Add(61*time.Second)) {
		t.Errorf("got %+v", got)
	}
	if limitStatus(at) != nil {
		t.Error("of nothing there is something")
	}
}

// TestLimitLog says once a minute that a limit is reached, and once that most
// of a volume, and all of it, is used.
func TestLimitLog(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, nil))
	var g limitLog
	now := time.Date(2026, time.November, 12, 10, 0, 0, 0, time.UTC)
	lines := func(l wire.Limit) int {
		b.Reset()
		g.look(log, "relay.example", []hop.Limit{{Limit: l, Received: now}}, now)
		return strings.Count(b.String(), "\n")
	}
	rate := wire.Limit{Code: wire.CodeRouteRate, Limit: 20e6}
	idle := rate
	idle.Left = 20e6
	for _, step := range []struct {
		after time.Duration
		said  wire.Limit
		lines int
	}{
		{0, idle, 0}, {0, rate, 1}, {59 * time.Second, rate, 0}, {time.Second, rate, 1}, {0, wire.Limit{Code: wire.CodeEgressRate, Limit: 1}, 1},
	} {
		now = now.Add(step.after)
		if got := lines(step.said); got != step.lines {
			t.Errorf("%+v is logged as %d lines, want %d: %s", step.said, got, step.lines, b.String())
		}
	}
	for _, step := range []struct {
		left  uint64
		after time.Duration
		lines int
	}{
		{1000, 0, 0}, {210, 0, 0}, {200, 0, 1}, {100, 0, 0}, {1, 0, 0}, {0, 0, 1}, {0, 0, 0},
		{1000, time.Hour, 0}, {0, 0, 1},
		// A relay that says now this and now that fills no log.
		{1000, 0, 0}, {0, 0, 0}, {1000, 0, 0}, {200, 0, 1}, {0, 0, 0}, {1000, 0, 0}, {200, 0, 0}, {0, time.Minute, 1},
	} {
		now = now.Add(step.after)
		if got := lines(wire.Limit{Code: wire.CodeVolumeLimit, Limit: 1000, Left: step.left}); got != step.lines {
			t.Errorf("%d left is logged as %d lines, want %d", step.left, got, step.lines)
		}
	}
	if got := lines(wire.Limit{Code: wire.CodeVolumeLimit}); got != 0 {
		t.Errorf("a volume of nothing is logged")
	}
}

// TestWorst: that one relay's volume is used up says nothing of another one.
func TestWorst(t *testing.T) {
	spent := fmt.Errorf("one: %w", &wire.ResetError{Code: wire.CodeVolumeLimit})
	revoked := &wire.ResetError{Code: wire.CodeTokenRefused}
	down := errors.New("no answer")
	for _, c := range []struct {
		errs []error
		want error
	}{
		{[]error{spent, down}, down}, {[]error{spent, revoked}, revoked}, {[]error{context.Canceled, spent}, spent}, {[]error{context.Canceled}, context.Canceled},
	} {
		if got := worst(c.errs); got != c.want {
			t.Errorf("of %v it is %v", c.errs, got)
		}
	}
	if !hopeless(spent) || !strings.Contains(Explain(spent).Error(), "next month") {
		t.Errorf("explained as %v", Explain(spent))
	}
}

// TestAgentLimits shows and logs what a relay says of its limits.
func TestAgentLimits(t *testing.T) {
	underSky(t, 2, func(t *testing.T, s *sky) {
		var b bytes.Buffer
		a, end := s.agent(s.all(), nil, slog.New(slog.NewTextHandler(&b, nil)), nil)
		relays := s.ordered(a)
		s.expect(time.Second, "start", relays, 1, 1)
		if got := a.Status().Relays[1].Limits; got != nil {
			t.Errorf("before the first: %+v", got)
		}
		relays[1].tell(
			wire.Limit{Code: wire.CodeVolumeLimit, Limit: 100 << 30, Left: 10 << 30}.Append(nil),
			wire.Limit{Code: 0x7777}.Append(nil), wire.Limit{Code: wire.CodeRouteRate, Limit: 20e6}.Append(nil))
		status := a.Status().Relays
		if status[0].Limits != nil || len(status[1].Limits) != 2 {
			t.Fatalf("the limits are %+v", status)
		}
		for i, want := range []string{"10 GiB of 100 GiB left", "at most 20 Mbit/s for this server (reached)"} {
			if got := status[1].Limits[i]; got.Text != want {
				t.Errorf("limit %d is %+v, want %q", i, got, want)
			}
		}
		relays[1].drop(wire.CodeShutdown)
		time.Sleep(time.Second)
		s.expect(10*time.Second, "back", relays, 1, 1)
		if got := a.Status().Relays[1].Limits; got != nil {
			t.Errorf("a connection that is gone has left %+v", got)
		}
		end()
		for _, want := range []string{"code=volume_limit", "code=route_rate"} {
			if n := strings.Count(b.String(), want); n != 1 {
				t.Errorf("the log says %q %d times:\n%s", want, n, b.String())
			}
		}
	})
}
