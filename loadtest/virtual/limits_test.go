package virtual

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/crypto/endpoint"
	"github.com/blindrelay/blindrelay/relay"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// limit returns what a status says of a limit, nil if nothing.
func limit(s endpoint.RelayStatus, name string) *endpoint.LimitStatus {
	i := slices.IndexFunc(s.Limits, func(l endpoint.LimitStatus) bool { return l.Name == name })
	if i < 0 {
		return nil
	}
	return &s.Limits[i]
}

// wantLimit demands words about a limit.
func (h *house) wantLimit(when string, s endpoint.RelayStatus, name string, met bool, words string) {
	h.t.Helper()
	if l := limit(s, name); l == nil || l.Met != met || !strings.Contains(l.Text, words) {
		h.t.Errorf("%s: of %s the status says %+v, want %q, met %v", when, name, s.Limits, words, met)
	}
}

// wantSpent demands that an error says, and soon, that the volume is used up.
func (h *house) wantSpent(when string, began time.Time, err error) {
	h.t.Helper()
	reset, ok := errors.AsType[*wire.ResetError](err)
	if took := time.Since(began); !ok || reset.Code != wire.CodeVolumeLimit || took > 5*time.Second {
		h.t.Errorf("%s: after %v: %v, want volume_limit within 5 s", when, took, err)
	}
}

// TestVolumeUsedUp uses a volume up. What streams ends with that word, at once,
// and what is begun later, also after a restart of relay and agent: the agent
// shows its receipt. A relay that allows more goes on.
func TestVolumeUsedUp(t *testing.T) {
	const volume = 600_000
	liveWithin(t, relay.Limits{RouteVolume: volume}, func(h *house) {
		h.mustGet()
		time.Sleep(time.Second)
		h.wantLimit("at first", h.agent.Status().Relays[0], "volume_limit", false, "of 585.9 KiB left until 1 February")
		body := h.endless(context.Background()).Body
		began := time.Now()
		n, err := io.Copy(io.Discard, body)
		if n > volume+600_000 { // what the buffers count in, each way
			t.Errorf("%d bytes came", n)
		}
		h.wantSpent("while it streams", began.Add(time.Duration(n/1000)*10*time.Millisecond), err)
		began = time.Now()
		for range 3 {
			err = h.get()
		}
		h.wantSpent("a new request", began, err)
		if s := h.dialer.Status(); !strings.Contains(s.Error, "next month begins") {
			t.Errorf("the device's status is %+v", s)
		}
		time.Sleep(20 * time.Second) // the agent hears of it each 10 s
		h.wantLimit("when it is used up", h.agent.Status().Relays[0], "volume_limit", true, "nothing of 585.9 KiB left until 1 February")

		h.client.CloseIdleConnections()
		h.agent.Close()
		h.home.Close()
		h.stopRelay()
		h.relay, h.stopRelay = h.startRelay()
		conn, end := h.socket(&net.UDPAddr{IP: agentAddr.IP, Port: 9002}, 20*time.Millisecond)
		defer end()
		h.home, h.agent = h.startAgentAt(conn, nil)
		go http.Serve(h.agent.Listen(), h)
		time.Sleep(time.Second)
		h.wantLimit("after a restart", h.agent.Status().Relays[0], "volume_limit", true, "nothing of 585.9 KiB left")
		time.Sleep(30 * time.Second)
		began = time.Now()
		h.wantSpent("after a restart", began, h.get())

		h.relay.SetLimits(relay.Limits{RouteVolume: 10 * volume})
		time.Sleep(30 * time.Second)
		h.mustGet()
		h.wantLimit("with more", h.agent.Status().Relays[0], "volume_limit", false, "of 5.7 MiB left")
	})
}

// TestRateReached holds a device to a rate: both ends say so.
func TestRateReached(t *testing.T) {
	liveWithin(t, relay.Limits{RouteRate: 200_000, DeviceRate: 150_000}, func(h *house) {
		h.mustGet()
		time.Sleep(time.Second)
		h.wantLimit("at first", h.agent.Status().Relays[0], "route_rate", false, "at most 200 kbit/s for this server")
		h.wantLimit("at first", h.agent.Status().Relays[0], "device_limit", false, "of 64 devices at a time")
		body := h.endless(context.Background()).Body // 800 kbit/s
		defer body.Close()
		go io.Copy(io.Discard, body)
		time.Sleep(25 * time.Second)
		for _, s := range []endpoint.RelayStatus{h.agent.Status().Relays[0], h.dialer.Status().RelayStatus} {
			h.wantLimit("while it streams", s, "device_rate", true, "at most 150 kbit/s for each device (reached)")
		}
		body.Close()
		h.client.CloseIdleConnections()
		time.Sleep(time.Minute)
		h.wantLimit("a minute later", h.agent.Status().Relays[0], "device_rate", false, "at most 150 kbit/s for each device")
	})
}

// TestVolumeUsedUpAtOneOfTwo uses a volume up at the relay over which a response
// comes: it goes on over the other one.
func TestVolumeUsedUpAtOneOfTwo(t *testing.T) {
	cert := transporttest.Certificate(t)
	synctest.Test(t, func(t *testing.T) {
		h := &house{world: newWorld(t, 40*time.Millisecond, 20*time.Millisecond)}
		second := *h.world
		var end func()
		at := &net.UDPAddr{IP: net.IPv4(10, 9, 0, 9).To4(), Port: 4433}
		second.relaySocket, end = h.socket(at, 20*time.Millisecond)
		second.cert = cert
		h.more = []wire.Relay{{Addr: at.String(), Pin: transport.PinOf(cert.Leaf)}}
		relays, stops := make([]*relay.Relay, 2), make([]func(), 2)
		relays[0], stops[0] = h.startRelay()
		relays[1], stops[1] = second.startRelay()
		h.home, h.agent = h.startAgent(nil)
		go http.Serve(h.agent.Listen(), h)
		time.Sleep(time.Second) // it registers at the other one, too
		h.dialer = h.newDevice(h.home, h.agent)
		h.client = &http.Client{Transport: &http.Transport{DialContext: h.dialer.DialContext}}
		body := h.endless(context.Background()).Body
		used := h.dialer.Status().Relay
		spent := relays[0]
		if used != h.at.String() {
			spent = relays[1]
		}
		spent.SetLimits(relay.Limits{RouteVolume: 600_000})
		if _, err := io.CopyN(io.Discard, body, 3_000_000); err != nil {
			t.Errorf("the response did not go on: %v", err)
		}
		if s := h.dialer.Status(); s.Relay == used || s.State != "reachable" {
			t.Errorf("the device is at %+v", s)
		}
		body.Close()
		h.client.CloseIdleConnections()
		h.dialer.Close()
		h.agent.Close()
		h.home.Close()
		for _, stop := range stops {
			stop()
		}
		end()
		time.Sleep(time.Minute) // quic-go forgets closed connections by timers
	})
}

// TestBulkGivesWay downloads beside a film of the same server, which together
// want more than the route may: the film gets all that it wants.
func TestBulkGivesWay(t *testing.T) {
	liveWithin(t, relay.Limits{RouteRate: 1_000_000}, func(h *house) {
		film := h.endless(context.Background()).Body // 800 kbit/s
		bulk := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return h.dialer.DialContext(endpoint.WithUrgency(ctx, wire.Bulk), network, addr)
		}}}
		resp, err := bulk.Get("http://server/endless")
		if err != nil {
			t.Fatal(err)
		}
		var got [2]atomic.Int64 // bytes of the film, of the download
		var wait sync.WaitGroup
		for i, body := range []io.Reader{film, resp.Body} {
			wait.Go(func() {
				for p := make([]byte, 4096); ; {
					n, err := body.Read(p)
					if got[i].Add(int64(n)); err != nil {
						return
					}
				}
			})
		}
		time.Sleep(10 * time.Second) // the route's burst is over
		before := [2]int64{got[0].Load(), got[1].Load()}
		const seconds = 60
		time.Sleep(seconds * time.Second)
		kbit := func(i int) int64 { return (got[i].Load() - before[i]) * 8 / seconds / 1000 }
		t.Logf("film %d kbit/s, download %d kbit/s", kbit(0), kbit(1))
		if kbit(0) < 750 || kbit(1) > 250 || kbit(1) < 50 {
			t.Errorf("of 1000 kbit/s the film gets %d and the download %d, want some 790 and the rest", kbit(0), kbit(1))
		}
		film.Close()
		resp.Body.Close()
		wait.Wait()
		bulk.CloseIdleConnections()
	})
}
