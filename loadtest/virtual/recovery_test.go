package virtual

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/crypto/endpoint"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/relay"
	"github.com/blindrelay/blindrelay/relay/admit"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// house is a world in which a device has paired with a running server.
type house struct {
	*world
	relay     *relay.Relay
	stopRelay func()
	home      *pair.Home
	agent     *endpoint.Agent
	dialer    *endpoint.Dialer
	client    *http.Client
	cancelled atomic.Int32 // requests that the server saw end early
}

// live runs f in virtual time. The server answers /endless with bytes until
// the device leaves, and anything else with "film".
func live(t *testing.T, f func(*house)) {
	t.Helper()
	liveWithin(t, relay.Limits{}, f)
}

// liveWithin is live with limits of the relay.
func liveWithin(t *testing.T, limits relay.Limits, f func(*house)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := &house{world: newWorld(t, 40*time.Millisecond, 20*time.Millisecond)}
		h.limits, h.receipts = limits, admit.NewReceipts([32]byte{3})
		h.relay, h.stopRelay = h.startRelay()
		h.home, h.agent = h.startAgent(nil)
		go http.Serve(h.agent.Listen(), h)
		h.dialer = h.newDevice(h.home, h.agent)
		h.client = &http.Client{Transport: &http.Transport{DialContext: h.dialer.DialContext}}
		f(h)
		h.client.CloseIdleConnections()
		h.dialer.Close()
		h.agent.Close()
		h.home.Close()
		h.stopRelay()
		time.Sleep(time.Minute) // quic-go forgets closed connections by timers
	})
}

// ServeHTTP is the media server.
func (h *house) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/endless" {
		io.WriteString(w, "film")
		return
	}
	rc := http.NewResponseController(w)
	for r.Context().Err() == nil {
		w.Write(make([]byte, 1000))
		rc.Flush()
		time.Sleep(10 * time.Millisecond)
	}
	h.cancelled.Add(1)
}

func (h *house) get() error {
	resp, err := h.client.Get("http://server/")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && string(body) != "film" {
		err = errors.New("the answer is " + string(body))
	}
	return err
}

func (h *house) mustGet() {
	h.t.Helper()
	if err := h.get(); err != nil {
		h.t.Fatal(err)
	}
}

// endless begins a response without an end.
func (h *house) endless(ctx context.Context) *http.Response {
	h.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://server/endless", nil)
	if err != nil {
		h.t.Fatal(err)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 5000)); err != nil {
		h.t.Fatal(err)
	}
	return resp
}

// TestRelayRestart kills the relay without a word. Agent and device notice its
// return by a stateless reset and are back without help, and a response goes on
// where it stopped unless the relay was away for longer than sessions wait.
func TestRelayRestart(t *testing.T) {
	for _, down := range []time.Duration{0, 500 * time.Millisecond, 8 * time.Second, 45 * time.Second, 2 * time.Minute} {
		t.Run(down.String(), func(t *testing.T) {
			live(t, func(h *house) {
				h.mustGet()
				body := h.endless(context.Background()).Body
				h.stopRelay()
				time.Sleep(down)
				h.relay, h.stopRelay = h.startRelay()
				back := time.Now()
				// A request that is made at once waits for the connection to
				// come back. Both ends notice within 3 s of the return, unless
				// they already had; then at most one attempt and one pause pass.
				h.client.CloseIdleConnections()
				for h.get() != nil {
					if time.Since(back) > time.Minute {
						t.Fatal("the device is not back a minute after the relay")
					}
				}
				t.Logf("down %v: a GET succeeded %v after the return", down, time.Since(back))
				if took, most := time.Since(back), 15*time.Second; took > most {
					t.Errorf("a GET succeeded %v after the relay's return, want at most %v", took, most)
				}
				_, err := io.CopyN(io.Discard, body, 1<<20)
				switch {
				case down <= time.Minute && err != nil:
					t.Errorf("the response did not go on: %v", err)
				case down > time.Minute && err == nil:
					t.Error("the response went on although the session was over")
				case err == io.EOF:
					t.Error("the response that was cut off ended as if it were whole")
				}
				body.Close()
			})
		})
	}
}

// TestRelayShutdown stops the relay with a goodbye and starts another one.
func TestRelayShutdown(t *testing.T) {
	live(t, func(h *house) {
		h.mustGet()
		began := time.Now()
		if err := h.relay.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("Shutdown took %v, want at most 5 s", took)
		}
		h.stopRelay()
		h.relay, h.stopRelay = h.startRelay()
		back := time.Now()
		for h.get() != nil {
			if time.Since(back) > 10*time.Second {
				t.Fatal("the device is not back 10 s after the relay")
			}
		}
		t.Logf("a GET succeeded %v after the return", time.Since(back))
	})
}

// TestOff turns remote access off under a running response: within a second
// nothing of it flows and the relay has forgotten the route.
func TestOff(t *testing.T) {
	live(t, func(h *house) {
		resp := h.endless(context.Background())
		if err := h.home.SetEnabled(false); err != nil {
			t.Fatal(err)
		}
		h.agent.Enforce()
		time.Sleep(time.Second)
		began := time.Now()
		if _, err := io.Copy(io.Discard, resp.Body); err == nil {
			t.Error("the response ended as if it were whole")
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("the response went on for %v, a second after off", took)
		}
		err := h.get()
		if reset, ok := errors.AsType[*wire.ResetError](err); !ok || reset.Code != wire.CodeRouteUnknown {
			t.Errorf("a request while remote access is off: %v, want the relay to have forgotten the route", err)
		}
		if err := h.home.SetEnabled(true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		h.mustGet()
	})
}

// TestRevoke revokes a device under a running response.
func TestRevoke(t *testing.T) {
	live(t, func(h *house) {
		resp := h.endless(context.Background())
		if err := h.home.Revoke("tv"); err != nil {
			t.Fatal(err)
		}
		h.agent.Enforce()
		time.Sleep(time.Second)
		began := time.Now()
		if _, err := io.Copy(io.Discard, resp.Body); err == nil {
			t.Error("the response ended as if it were whole")
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("the response went on for %v, a second after the revocation", took)
		}
		if err := h.get(); err == nil {
			t.Error("a revoked device was served")
		} else {
			t.Log(err)
		}
	})
}

// TestDeviceLeaves shows that the server stops working for a device that is
// gone: at once for a request that was given up, and for a session that was
// closed.
func TestDeviceLeaves(t *testing.T) {
	live(t, func(h *house) {
		ctx, cancel := context.WithCancel(context.Background())
		h.endless(ctx)
		cancel()
		time.Sleep(100 * time.Millisecond)
		if n := h.cancelled.Load(); n != 1 {
			t.Errorf("%d requests were cancelled at the server, want the one that the device gave up", n)
		}
		body := h.endless(context.Background()).Body
		defer body.Close()
		h.dialer.Close()
		time.Sleep(100 * time.Millisecond)
		if n := h.cancelled.Load(); n != 2 {
			t.Errorf("%d requests were cancelled at the server, want both", n)
		}
		if _, err := h.dialer.DialContext(context.Background(), "", ""); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a closed dialer says %v, want net.ErrClosed", err)
		}
	})
}
