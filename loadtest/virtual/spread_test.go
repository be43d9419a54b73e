package virtual

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport/netsim"
)

// download returns how many bytes of an endless response come per second over a
// device's line, from 20 s after its beginning on, and over how many relay
// connections in the end.
func download(t *testing.T, line string, carriers int) (perSecond float64, connections int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		path, err := netsim.ParseProfile(line)
		if err != nil {
			t.Fatal(err)
		}
		l, err := netsim.New(netsim.Config{Path: path, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t, 40*time.Millisecond, 40*time.Millisecond)
		w.carriers = carriers
		if w.deviceSocket, err = l.WrapPacketConn(w.deviceSocket); err != nil {
			t.Fatal(err)
		}
		_, stopRelay := w.startRelay()
		home, agent := w.startAgent(nil)
		go http.Serve(agent.Listen(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for p := make([]byte, 32<<10); ; {
				if _, err := w.Write(p); err != nil {
					return
				}
			}
		}))
		dialer := w.newDevice(home, agent)
		client := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}
		resp, err := client.Get("http://server/")
		if err != nil {
			t.Error(err)
		} else {
			const begin, end = 20 * time.Second, 30 * time.Second
			n := 0
			for start, p := time.Now(), make([]byte, 64<<10); time.Since(start) < end; {
				m, err := resp.Body.Read(p)
				if err != nil {
					t.Error(err)
					break
				}
				if time.Since(start) >= begin {
					n += m
				}
			}
			resp.Body.Close()
			perSecond = float64(n) / (end - begin).Seconds()
		}
		connections = len(dialer.Status().Carriers)
		client.CloseIdleConnections()
		dialer.Close()
		agent.Close()
		home.Close()
		stopRelay()
		w.relaySocket.Close()
		l.Close()
		time.Sleep(time.Minute) // quic-go forgets closed connections by timers
	})
	return perSecond, connections
}

// TestSpread compares a download that may use one relay connection with one that
// may use as many as help: several where packets are lost, one where they are not.
func TestSpread(t *testing.T) {
	for _, tc := range []struct {
		line        string
		least, most float64 // of the rate of one connection
		several     bool
	}{
		{"rate=10M,queue=100ms", 0.97, 1.03, false},
		{"rate=10M,queue=100ms,down.loss=2%", 2.5, 10, true},
	} {
		one, _ := download(t, tc.line, 1)
		some, connections := download(t, tc.line, 0)
		t.Logf("%s: %.1f Mbit/s over one connection, %.1f over %d", tc.line, one*8/1e6, some*8/1e6, connections)
		if some < tc.least*one || some > tc.most*one || connections > 1 != tc.several {
			t.Errorf("%s: %.2f times as fast over %d connections, want %v to %v times, over several: %v",
				tc.line, some/one, connections, tc.least, tc.most, tc.several)
		}
	}
}
