package netsim

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// pattern is n bytes that do not repeat soon.
func pattern(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

func TestStreamKeepsBytesRateAndDelay(t *testing.T) {
	for _, down := range []bool{false, true} {
		name := map[bool]string{false: "up", true: "down"}[down]
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				line := newLine(t, Config{Seed: 1, Path: plain(Link{Rate: 12 * mbit, Delay: 35 * ms, Jitter: 3 * ms})})
				a, b := net.Pipe()
				near := wrapConn(t, line, a)
				from, to := near, net.Conn(b)
				if down {
					from, to = to, from
				}
				data := pattern(3 << 20)
				start := time.Now()
				go func() {
					for rest := data; len(rest) > 0; {
						n := min(len(rest), 10_000)
						if _, err := from.Write(rest[:n]); err != nil {
							t.Error(err)
						}
						rest = rest[n:]
					}
					from.Close()
				}()
				var got []byte
				var first time.Duration
				buf := make([]byte, 4000)
				for {
					n, err := to.Read(buf)
					if got = append(got, buf[:n]...); first == 0 {
						first = time.Since(start)
					}
					if err == io.EOF {
						break
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				d := time.Since(start)
				if !bytes.Equal(got, data) {
					t.Fatalf("%d bytes arrived, not the %d that were sent", len(got), len(data))
				}
				segments := float64(len(data)) / segmentSize
				rate := (float64(len(data)) + segments*headerTCP) * 8 / (d - first).Seconds()
				within(t, "rate", rate, 12e6, 0.02*12e6)
				within(t, "first byte after ms", first.Seconds()*1000, 36, 3.3*3)
				t.Logf("%.0f bit/s, first byte after %v", rate, first)
				to.Close()
				line.Close()
			})
		})
	}
}

func TestStreamDelayIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := newLine(t, Config{Path: Path{Up: Link{Delay: 30 * ms}, Down: Link{Delay: 50 * ms, Rate: 8 * mbit}}})
		defer line.Close()
		a, far := net.Pipe()
		defer far.Close()
		near := wrapConn(t, line, a)
		start := time.Now()
		near.Write([]byte("ping"))
		buf := make([]byte, 2000)
		n, _ := far.Read(buf)
		if d := time.Since(start); string(buf[:n]) != "ping" || d != 30*ms {
			t.Errorf("%q after %v", buf[:n], d)
		}
		start = time.Now()
		far.Write(make([]byte, 960)) // with headers 1 ms
		n, _ = near.Read(buf)
		if d := time.Since(start); n != 960 || d != 51*ms {
			t.Errorf("%d bytes after %v", n, d)
		}
	})
}

func TestStreamStandsStill(t *testing.T) {
	for name, tt := range map[string]struct {
		up   Link
		want time.Duration // until the second write arrives
	}{
		"outage":             {Link{Delay: 20 * ms, Outages: Outages{Windows: []Window{{100 * ms, time.Second}}}}, 1120 * ms},
		"outage that loses":  {Link{Delay: 20 * ms, Outages: Outages{Windows: []Window{{100 * ms, time.Second}}, Lose: true}}, 1140 * ms},
		"a lost segment":     {Link{Delay: 20 * ms, Loss: 0.5}, 240 * ms},
		"an overtaken one":   {Link{Delay: 20 * ms, Reorder: 1, ReorderBy: 7 * ms}, 227 * ms},
		"nothing to wait on": {Link{Delay: 20 * ms}, 220 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				seed := uint64(1)
				if tt.up.Loss > 0 { // the first passes, the second is lost once
					for ; ; seed++ {
						l := newLink(tt.up, seed, 1, 0)
						if !l.lose() && l.lose() && !l.lose() {
							break
						}
					}
				}
				line := newLine(t, Config{Seed: seed, Path: Path{Up: tt.up}})
				defer line.Close()
				a, far := net.Pipe()
				defer far.Close()
				near := wrapConn(t, line, a)
				start := time.Now()
				near.Write([]byte("one"))
				far.Read(make([]byte, 10))
				time.Sleep(200*ms - time.Since(start))
				near.Write([]byte("two"))
				far.Read(make([]byte, 10))
				if d := time.Since(start); d != tt.want {
					t.Errorf("after %v, want %v", d, tt.want)
				}
			})
		})
	}
}

func TestStreamBackpressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := newLine(t, Config{Path: plain(Link{Rate: 8 * mbit, Queue: 100_000, Delay: 10 * ms})})
		defer line.Close()
		a, far := net.Pipe() // nobody reads from far
		near := wrapConn(t, line, a)
		near.SetWriteDeadline(time.Now().Add(time.Minute))
		n, err := near.Write(make([]byte, 1<<20))
		if limit := 110_000 + chunk + segmentSize; !isTimeout(err) || n < 100_000 || n > limit {
			t.Errorf("%d bytes were taken, want at most %d; %v", n, limit, err)
		}
		// and the other way: near does not read
		far.SetWriteDeadline(time.Now().Add(time.Minute))
		n, err = far.Write(make([]byte, 1<<20))
		if limit := 110_000 + 2*chunk; !isTimeout(err) || n < 100_000 || n > limit {
			t.Errorf("%d bytes were taken, want at most %d; %v", n, limit, err)
		}
		near.SetReadDeadline(time.Now().Add(-1))
		if _, err := near.Read(make([]byte, 10)); !isTimeout(err) {
			t.Errorf("read: %v", err)
		}
		near.SetDeadline(time.Time{})
		if n, err := near.Read(make([]byte, 10)); n != 10 || err != nil {
			t.Errorf("read: %d, %v", n, err)
		}
		start := time.Now()
		line.Close() // must not wait for far for ever
		if d := time.Since(start); d > linger+ms {
			t.Errorf("the line closed after %v", d)
		}
		if _, err := near.Read(make([]byte, 10)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after close: %v", err)
		}
		if _, err := near.Write(make([]byte, 10)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after close: %v", err)
		}
		if _, err := line.WrapConn(far); !errors.Is(err, net.ErrClosed) {
			t.Errorf("wrap after close: %v", err)
		}
	})
}

func TestShortSegmentsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := newLine(t, Config{Path: plain(Link{Delay: time.Minute})})
		a, far := net.Pipe()
		near := wrapConn(t, line, a)
		near.SetWriteDeadline(time.Now().Add(time.Second))
		n := 0
		for ; n <= maxSegments; n++ {
			if _, err := near.Write([]byte("x")); err != nil {
				break
			}
		}
		if n != maxSegments {
			t.Errorf("%d segments were taken, want %d", n, maxSegments)
		}
		far.Close()
		line.Close()
	})
}

// TestConnectionsShareTheLink: two connections of one line get half each.
func TestConnectionsShareTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := newLine(t, Config{Path: plain(Link{Rate: 8 * mbit, Delay: 10 * ms})})
		got := make(chan int, 2) // one from each reader
		for range 2 {
			a, far := net.Pipe()
			near := wrapConn(t, line, a)
			go func() {
				near.SetWriteDeadline(time.Now().Add(10 * time.Second))
				near.Write(make([]byte, 100<<20))
				near.Close()
			}()
			go func() {
				far.SetReadDeadline(time.Now().Add(10 * time.Second))
				n, _ := io.Copy(io.Discard, far)
				far.Close()
				got <- int(n)
			}()
		}
		one, two := <-got, <-got
		share := 10e6 * segmentSize / mtu / 2
		within(t, "one's bytes", float64(one), share, 0.03*share)
		within(t, "two's bytes", float64(two), share, 0.03*share)
		line.Close()
	})
}

func TestRebindResetsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := newLine(t, Config{})
		a, far := net.Pipe()
		near := wrapConn(t, line, a)
		done := make(chan error, 1) // sent to once
		go func() {
			_, err := near.Read(make([]byte, 1))
			done <- err
		}()
		synctest.Wait()
		line.Rebind()
		if err := <-done; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v", err)
		}
		if _, err := near.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write: %v", err)
		}
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("far end: %v", err)
		}
		near.Close()
		line.Close()
	})
}

func TestPipeHasNoCloseWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := newLine(t, Config{})
		a, far := net.Pipe()
		near := wrapConn(t, line, a)
		if err := near.(interface{ CloseWrite() error }).CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%v", err)
		}
		far.Close()
		if _, err := near.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read: %v", err)
		}
		if _, err := near.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read again: %v", err)
		}
		line.Close()
	})
}
