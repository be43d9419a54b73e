package relay

import (
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/relay/admit"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// limited is admitAll with limits.
func limited(l Limits) Config {
	cfg := admitAll
	cfg.Limits = l
	cfg.Receipts = admit.NewReceipts([32]byte{9})
	return cfg
}

// tokensOf returns what different devices of the tests show.
func tokensOf(n int) (all []wire.Token, hashes []wire.TokenHash) {
	for i := range n {
		t := wire.Token{byte(100 + i)}
		all, hashes = append(all, t), append(hashes, t.Hash())
	}
	return all, hashes
}

// deviceOf attaches the device that shows the token.
func (w *world) deviceOf(to wire.Route, token wire.Token) *hop.Attachment {
	w.t.Helper()
	a, err := hop.Attach(w.ctx(), w.dial(nil), wire.Open{Route: to, Token: token})
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// wantLimits checks what an endpoint has heard of its limits.
func wantLimits(t *testing.T, who string, end interface{ Limits() []hop.Limit }, want ...wire.Limit) {
	t.Helper()
	synctest.Wait()
	time.Sleep(2 * oneWay)
	var got []wire.Limit
	for _, l := range end.Limits() {
		got = append(got, l.Limit)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s knows of the limits %+v, want %+v", who, got, want)
	}
}

// TestTermsAreTold: behind REGISTERED an agent hears of each limit that its
// route has, by the relay's defaults or its ticket, and again when they change.
func TestTermsAreTold(t *testing.T) {
	cfg := limited(Limits{RouteRate: 20e6, DeviceRate: 8e6, RouteDevices: 2, RouteStreams: 3, RouteVolume: 1 << 30})
	simulate(t, cfg, func(w *world) {
		month := uint32(31 * 24 * 3600)
		home, _ := w.agent()
		time.Sleep(time.Second)
		all := home.Limits()
		if len(all) != 5 {
			t.Fatalf("the agent knows of %+v", all)
		}
		if left := all[2].RetryAfter; left > month || left < month-60 {
			t.Errorf("the month ends in %d s, want nearly %d", left, month)
		}
		wantLimits(t, "the agent", home,
			wire.Limit{Code: wire.CodeDeviceLimit, Limit: 2, Left: 2},
			wire.Limit{Code: wire.CodeStreamLimit, Limit: 3, Left: 3},
			wire.Limit{Code: wire.CodeVolumeLimit, Limit: 1 << 30, Left: 1 << 30, RetryAfter: all[2].RetryAfter},
			wire.Limit{Code: wire.CodeRouteRate, Limit: 20e6, Left: 20e6},
			wire.Limit{Code: wire.CodeDeviceRate, Limit: 8e6, Left: 8e6},
		)
		w.relay.SetLimits(Limits{RouteDevices: 7, RouteStreams: -1})
		time.Sleep(time.Second)
		if all := home.Limits(); all[0].Limit.Limit != 7 {
			t.Errorf("after a change the agent knows of %+v", all)
		}
		other, _ := w.agent()
		wantLimits(t, "a new agent", other, wire.Limit{Code: wire.CodeDeviceLimit, Limit: 7, Left: 7})
	})
}

// TestStreamLimits meets each limit on the number of streams: the refused
// stream has its code, device and agent hear of it, others go on, and who
// leaves makes room.
func TestStreamLimits(t *testing.T) {
	simulate(t, limited(Limits{RouteDevices: 2, RouteStreams: 3, MaxStreams: 4}), func(w *world) {
		token, hashes := tokensOf(3)
		home, route := w.agent(hashes...)
		var devices []*hop.Attachment
		for _, t := range token {
			devices = append(devices, w.deviceOf(route, t))
		}
		refused := func(d *hop.Attachment, limit wire.Limit) {
			t.Helper()
			wantReset(t, w.ask(d), limit.Code)
			wantLimits(t, "the device", d, limit)
			wantCount(t, "streams refused", w.relay.metrics.streamsRefused, limit.Code, 1)
			if i := slices.IndexFunc(home.Limits(), func(l hop.Limit) bool { return l.Limit == limit }); i < 0 && limit.Code != wire.CodeRelayStreams {
				t.Errorf("the agent knows of %+v, and not that %v is met", home.Limits(), limit.Code)
			}
		}
		first, _ := w.open(devices[0], home)
		w.open(devices[1], home)
		refused(devices[2], wire.Limit{Code: wire.CodeDeviceLimit, Limit: 2})

		// A second connection of the first device is no further device.
		again := w.deviceOf(route, token[0])
		w.open(again, home)
		refused(devices[1], wire.Limit{Code: wire.CodeStreamLimit, Limit: 3})

		neighbour, other := w.agent()
		far := w.device(other)
		w.open(far, neighbour)
		refused(far, wire.Limit{Code: wire.CodeRelayStreams, Limit: 4})

		first.Reset(wire.CodeCancelled)
		time.Sleep(time.Second)
		w.open(again, home)
	})
}

func TestRouteLimit(t *testing.T) {
	simulate(t, limited(Limits{MaxRoutes: 1}), func(w *world) {
		cert := transporttest.Certificate(t)
		w.join(cert, wire.Instance{1})
		w.join(cert, wire.Instance{1})
		w.join(cert, wire.Instance{2}) // takes the place of the first
		other := transporttest.Certificate(t)
		_, err := hop.Register(w.ctx(), w.dial(&other), wire.Register{})
		if closed, ok := errors.AsType[*wire.ClosedError](err); !ok || closed.Code != wire.CodeRouteLimit || closed.Text == "" {
			t.Errorf("a second route gets %v, want %v and a sentence", err, wire.CodeRouteLimit)
		}
	})
}

// pump writes pieces of a known pattern until the time is over, ends the half,
// and returns how many bytes there were.
func pump(t *testing.T, st transport.Stream, during time.Duration) (sent int) {
	t.Helper()
	b := make([]byte, 32<<10)
	for end := time.Now().Add(during); time.Now().Before(end); sent += len(b) {
		for i := range b {
			b[i] = byte((sent + i) % 251)
		}
		if _, err := st.Write(b); err != nil {
			t.Errorf("write: %v", err)
			return sent
		}
	}
	if err := st.CloseWrite(); err != nil {
		t.Errorf("end of the half: %v", err)
	}
	return sent
}

// drink reads a pattern to its end and returns how many bytes there were, and
// how many of them came before the time was over.
func drink(t *testing.T, st transport.Stream, during time.Duration) (got, within int) {
	t.Helper()
	b := make([]byte, 32<<10)
	for end := time.Now().Add(during); ; {
		n, err := st.Read(b)
		for i := range b[:n] {
			if b[i] != byte((got+i)%251) {
				t.Errorf("byte %d is wrong", got+i)
				return got, within
			}
		}
		if got += n; time.Now().Before(end) {
			within = got
		}
		if err == io.EOF {
			return got, within
		}
		if err != nil {
			t.Errorf("read after %d bytes: %v", got, err)
			return got, within
		}
	}
}

// TestRatesHold keeps a route and its devices to their rates. What is over them
// waits: every byte arrives, and all concerned hear why it takes longer.
func TestRatesHold(t *testing.T) {
	const during = 15 * time.Second
	simulate(t, limited(Limits{Egress: 40e6, RouteRate: 10e6, DeviceRate: 4e6}), func(w *world) {
		token, hashes := tokensOf(4)
		home, route := w.agent(hashes...)
		neighbour, other := w.agent()
		type film struct {
			device        *hop.Attachment
			up, down      transport.Stream
			sent, got, in int
		}
		var films []*film
		for i := range 3 {
			d := w.deviceOf(route, token[i])
			up, down := w.open(d, home)
			films = append(films, &film{device: d, up: up, down: down})
			if i == 0 { // a second stream of the same device
				up, down = w.open(w.deviceOf(route, token[i]), home)
				films = append(films, &film{device: d, up: up, down: down})
			}
		}
		d := w.device(other)
		up, down := w.open(d, neighbour)
		films = append(films, &film{device: d, up: up, down: down})
		var wait sync.WaitGroup
		for i, f := range films {
			from, to := f.down, f.up
			if i == 2 {
				from, to = to, from // bytes from the device count as well
			}
			wait.Go(func() { f.sent = pump(t, from, during) })
			wait.Go(func() { f.got, f.in = drink(t, to, during) })
		}
		wait.Wait()
		rate := func(films ...*film) (bits float64) {
			for _, f := range films {
				if f.sent != f.got {
					t.Errorf("%d bytes were sent and %d came", f.sent, f.got)
				}
				bits += float64(f.in) * 8 / during.Seconds()
			}
			return bits
		}
		within := func(what string, got, want float64) {
			t.Helper()
			if got > 1.06*want || got < 0.9*want { // a start with a burst of 64 KiB, and what is on its way
				t.Errorf("%s: %.2f Mbit/s, want %.2f", what, got/1e6, want/1e6)
			}
		}
		within("a route of 10 Mbit/s", rate(films[:4]...), 10e6)
		within("its device with two streams", rate(films[:2]...), 10e6/3)
		within("a neighbour's device of 4 Mbit/s", rate(films[4]), 4e6)
		wantLimits(t, "a device", films[0].device, wire.Limit{Code: wire.CodeRouteRate, Limit: 10e6})
		wantLimits(t, "the neighbour's", films[4].device, wire.Limit{Code: wire.CodeDeviceRate, Limit: 4e6})
		if i := slices.IndexFunc(home.Limits(), func(l hop.Limit) bool { return l.Code == wire.CodeRouteRate && l.Left == 0 }); i < 0 {
			t.Errorf("the agent knows of %+v, and not that its rate is reached", home.Limits())
		}
		if testutil.ToFloat64(w.relay.metrics.limitsTold.of(wire.CodeRouteRate)) == 0 {
			t.Error("nobody was told of the rate of the route")
		}
	})
}

// TestUrgencyOfStreams: of one route what is played goes before what is
// downloaded, as the devices' OPEN says.
func TestUrgencyOfStreams(t *testing.T) {
	simulate(t, limited(Limits{Egress: 10e6}), func(w *world) {
		home, route := w.agent()
		away := w.device(route)
		const during = 10 * time.Second
		var wait sync.WaitGroup
		var within [wire.Bulk + 1]int
		for u := range within {
			device, agent := w.openUrgent(away, home, wire.Urgency(u))
			wait.Go(func() { pump(t, agent, during) })
			wait.Go(func() { _, within[u] = drink(t, device, during) })
		}
		wait.Wait()
		if bits := within[wire.Playing] * 8; bits < 80e6 {
			t.Errorf("playing had %d Mbit of 100", bits/1e6)
		}
		if most := leastBytes; within[wire.Prefetch] > most || within[wire.Bulk] > most {
			t.Errorf("prefetch had %d bytes beside it and bulk %d, at most %d were theirs before playing filled the line", within[wire.Prefetch], within[wire.Bulk], most)
		}
	})
}

// leastBytes is what a stream gets before the others are there.
const leastBytes = 2 << 20

// TestVolume uses a route's volume up: what runs ends with the code, what comes
// is refused, a relay that has restarted knows it by the receipt and by nothing
// else, and the next month begins anew.
func TestVolume(t *testing.T) {
	const volume = 8 << 20
	cfg := limited(Limits{RouteVolume: volume})
	simulateOver(t, false, cfg, func(w *world) {
		cert := transporttest.Certificate(t)
		route := wire.RouteOf(cert.Leaf.RawSubjectPublicKeyInfo)
		register := func(receipt string) *hop.Registration {
			t.Helper()
			w.instances++
			home, err := hop.Register(w.ctx(), w.dial(&cert), wire.Register{
				Instance: wire.Instance{w.instances}, Tokens: []wire.TokenHash{token.Hash()}, Receipt: receipt,
			})
			if err != nil {
				t.Fatal(err)
			}
			return home
		}
		home, away := register(""), w.device(route)
		device, agent := w.open(away, home)
		go func() {
			for b := make([]byte, 32<<10); ; {
				if _, err := agent.Write(b); err != nil {
					return
				}
			}
		}()
		device.SetReadDeadline(time.Now().Add(time.Minute))
		n, err := io.Copy(io.Discard, device)
		if reset, ok := errors.AsType[*wire.ResetError](err); !ok || reset.Code != wire.CodeVolumeLimit || n > volume+batch {
			t.Errorf("the stream ended with %v after %d bytes", err, n)
		}
		wantReset(t, w.ask(away), wire.CodeVolumeLimit)
		if _, err := away.Measure(w.ctx(), true, 1<<20); !isReset(err, wire.CodeVolumeLimit) {
			t.Errorf("a measurement of a route without volume: %v", err)
		}
		time.Sleep(tellEvery + time.Second)
		met := func(who string, end interface{ Limits() []hop.Limit }) {
			t.Helper()
			all := end.Limits()
			i := slices.IndexFunc(all, func(l hop.Limit) bool { return l.Code == wire.CodeVolumeLimit })
			if i < 0 || all[i].Left != 0 || all[i].Limit.Limit != volume || all[i].RetryAfter < 30*24*3600 {
				t.Errorf("%s knows of %+v", who, all)
			}
		}
		met("the agent", home)
		met("the device", away)
		receipt := home.Receipt()
		if used, err := cfg.Receipts.Read(receipt, route, time.Now()); err != nil || used < volume || used > volume+2*batch {
			t.Errorf("the receipt says %d bytes, %v", used, err)
		}

		home.Close(wire.CodeNone, "")
		away.Close(wire.CodeNone, "")
		w.shutdown()
		w.close(t)
		w.start(w.site, cfg)
		m := w.relay.metrics
		foreign := admit.NewReceipts([32]byte{8}).Sign(route, admit.MonthOf(time.Now()), volume)
		for name, c := range map[string]struct {
			receipt string
			refused bool
		}{
			"none": {"", false}, "rubbish": {"a.b.c", false}, "of another relay": {foreign, false},
			"of another route": {cfg.Receipts.Sign(wire.Route{1}, admit.MonthOf(time.Now()), volume), false},
		} {
			home, away := register(c.receipt), w.device(route)
			w.open(away, home)
			if t.Failed() {
				t.Fatalf("a receipt that is %s", name)
			}
			home.Close(wire.CodeNone, "")
			away.Close(wire.CodeNone, "")
		}
		if n := testutil.ToFloat64(m.receiptsRefused); n != 3 {
			t.Errorf("%v receipts were refused, want 3", n)
		}
		home = register(receipt)
		away = w.device(route)
		wantReset(t, w.ask(away), wire.CodeVolumeLimit)
		if n := testutil.ToFloat64(m.receiptsTaken); n != 1 {
			t.Errorf("%v receipts were taken, want 1", n)
		}
		// What was shown once counts also for a later registration without it.
		home.Close(wire.CodeNone, "")
		away.Close(wire.CodeNone, "")
		home, away = register(""), w.device(route)
		wantReset(t, w.ask(away), wire.CodeVolumeLimit)
		home.Close(wire.CodeNone, "")
		away.Close(wire.CodeNone, "")

		time.Sleep(31 * 24 * time.Hour)
		home, away = register(receipt), w.device(route)
		w.open(away, home)
	})
}

func isReset(err error, code wire.Code) bool {
	reset, ok := errors.AsType[*wire.ResetError](err)
	return ok && reset.Code == code
}

// TestMeasureCounts: a measurement is of the route's volume.
func TestMeasureCounts(t *testing.T) {
	simulate(t, limited(Limits{RouteVolume: 3 << 20}), func(w *world) {
		home, route := w.agent()
		away := w.device(route)
		for _, up := range []bool{true, false} {
			if _, err := away.Measure(w.ctx(), up, 2<<20); err != nil {
				t.Errorf("up %v: %v", up, err)
			}
		}
		if _, err := home.Measure(w.ctx(), true, 1<<20); !isReset(err, wire.CodeVolumeLimit) {
			t.Errorf("4 MiB of 3 were measured, and one more: %v", err)
		}
		wantReset(t, w.ask(away), wire.CodeVolumeLimit)
	})
}

// TestMeasureKeepsToRate: a measurement says what a stream of the route would
// get.
func TestMeasureKeepsToRate(t *testing.T) {
	simulate(t, limited(Limits{RouteRate: 8e6}), func(w *world) {
		home, _ := w.agent()
		for _, up := range []bool{true, false} {
			perSecond, err := home.Measure(w.ctx(), up, 4<<20)
			if err != nil {
				t.Fatal(err)
			}
			if rate := perSecond * 8; rate > 10e6 || rate < 6e6 {
				t.Errorf("up %v: %.1f Mbit/s on a route of 8", up, rate/1e6)
			}
		}
	})
}
