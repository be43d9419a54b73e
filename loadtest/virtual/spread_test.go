package virtual

import (
	"io"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/crypto/endpoint"
	"github.com/blindrelay/blindrelay/transport/netsim"
)

// overLine has use get a response of handler over a device's line. It returns
// over how many relay connections the device's streams go a moment later.
func overLine(t *testing.T, line string, carriers int, handler http.HandlerFunc, use func(*endpoint.Dialer, io.Reader)) (connections int) {
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
		go http.Serve(agent.Listen(), handler)
		dialer := w.newDevice(home, agent)
		client := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}
		resp, err := client.Get("http://server/")
		if err != nil {
			t.Error(err)
		} else {
			use(dialer, resp.Body)
			resp.Body.Close()
		}
		time.Sleep(time.Second)
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
	return connections
}

// download returns how many bytes of an endless response come per second over a
// device's line, from 20 s after its beginning on, and over how many relay
// connections in the end.
func download(t *testing.T, line string, carriers int) (perSecond float64, connections int) {
	t.Helper()
	endless := func(w http.ResponseWriter, _ *http.Request) {
		for p := make([]byte, 32<<10); ; {
			if _, err := w.Write(p); err != nil {
				return
			}
		}
	}
	connections = overLine(t, line, carriers, endless, func(_ *endpoint.Dialer, body io.Reader) {
		const begin, end = 20 * time.Second, 30 * time.Second
		n := 0
		for start, p := time.Now(), make([]byte, 64<<10); time.Since(start) < end; {
			m, err := body.Read(p)
			if err != nil {
				t.Error(err)
				break
			}
			if time.Since(start) >= begin {
				n += m
			}
		}
		perSecond = float64(n) / (end - begin).Seconds()
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

// TestEndIsNoGain has downloads end in the middle of a trial on a line where
// several connections bring nothing: what a writer that has ended left in its log
// goes on at the old rate, and does not count for a need that was met.
func TestEndIsNoGain(t *testing.T) {
	for _, size := range []int{8_000_000, 8_250_000, 8_500_000} {
		file := func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(size))
			w.Write(make([]byte, size))
		}
		n := overLine(t, "rate=10M,queue=100ms", 0, file, func(_ *endpoint.Dialer, body io.Reader) {
			if n, err := io.Copy(io.Discard, body); n != int64(size) || err != nil {
				t.Errorf("read %d of %d bytes, %v", n, size, err)
			}
		})
		if n != 1 {
			t.Errorf("after %d bytes large streams go over %d connections, want 1", size, n)
		}
	}
}

// TestNeedIsMet has a writer of its own rate, which is more than one connection
// brings: those that bring it stay for as long as it writes, although it is not
// held back any more.
func TestNeedIsMet(t *testing.T) {
	const perSecond, seconds = 700_000, 60
	live := func(w http.ResponseWriter, _ *http.Request) {
		for range 10 * seconds {
			time.Sleep(time.Second / 10)
			w.Write(make([]byte, perSecond/10))
		}
	}
	fewest := endpoint.MaxCarriers
	overLine(t, "rate=10M,queue=100ms,down.loss=2%", 0, live, func(d *endpoint.Dialer, body io.Reader) {
		start, p := time.Now(), make([]byte, 64<<10)
		for {
			_, err := body.Read(p)
			if err == io.EOF {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			if time.Since(start) > seconds/2*time.Second {
				fewest = min(fewest, len(d.Status().Carriers))
			}
		}
	})
	if fewest < 2 {
		t.Errorf("a stream that needs several connections was left with %d", fewest)
	}
}
