package virtual

import (
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// TestRoundTrips shows what a film waits for: with a the round trip to the
// relay and e the one to the server, the first byte of a cold GET comes after
// a+2e, that of the next one after e.
func TestRoundTrips(t *testing.T) {
	for _, test := range []struct{ device, home time.Duration }{
		{40 * time.Millisecond, 20 * time.Millisecond},
		{20 * time.Millisecond, 100 * time.Millisecond},
		{150 * time.Millisecond, 10 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, test.device, test.home)
			_, stopRelay := w.startRelay()
			home, agent := w.startAgent(nil)
			go http.Serve(agent.Listen(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "film") }))

			dialer := w.newDevice(home, agent)
			client := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
			get := func() time.Duration {
				start := time.Now()
				resp, err := client.Get("http://server/")
				if err != nil {
					t.Fatal(err)
				}
				took := time.Since(start)
				body, err := io.ReadAll(resp.Body)
				if err != nil || string(body) != "film" {
					t.Fatalf("got %q, %v", body, err)
				}
				return took
			}
			a, e := test.device, test.device+test.home
			cold, warm := get(), get()
			t.Logf("a %v, e %v: cold %v, warm %v", a, e, cold, warm)
			if cold != a+2*e {
				t.Errorf("cold GET took %v, want a+2e = %v", cold, a+2*e)
			}
			if warm != e {
				t.Errorf("next GET took %v, want e = %v", warm, e)
			}
			client.CloseIdleConnections()
			dialer.Close()
			agent.Close()
			home.Close()
			stopRelay()
		})
	}
}
