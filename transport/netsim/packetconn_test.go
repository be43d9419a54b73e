package netsim

import (
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// plain is a path with the same link both ways.
func plain(l Link) Path { return Path{Name: "test", Up: l, Down: l} }

// readFor reads for d and returns the sizes and times of what came.
func readFor(t *testing.T, pc net.PacketConn, d time.Duration) (sizes []int, at []time.Duration) {
	t.Helper()
	start := time.Now()
	pc.SetReadDeadline(start.Add(d))
	buf := make([]byte, payload)
	for {
		n, _, err := pc.ReadFrom(buf)
		if isTimeout(err) {
			pc.SetReadDeadline(time.Time{})
			return sizes, at
		}
		if err != nil {
			t.Fatal(err)
		}
		sizes, at = append(sizes, n), append(at, time.Since(start))
	}
}

func TestDatagramsCrossBothLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newMemory()
		far := net.socket()
		defer far.Close()
		line := newLine(t, Config{Path: Path{Up: Link{Delay: 30 * ms}, Down: Link{Delay: 50 * ms, Rate: 8 * mbit}}})
		defer line.Close()
		near := wrapPacketConn(t, line, net.socket())
		if near.LocalAddr().String() != "10.0.0.1:2" {
			t.Errorf("address %v", near.LocalAddr())
		}

		start := time.Now()
		near.WriteTo([]byte("ping"), far.LocalAddr())
		buf := make([]byte, 2000)
		n, from, _ := far.ReadFrom(buf)
		if got := time.Since(start); string(buf[:n]) != "ping" || got != 30*ms || from.String() != near.LocalAddr().String() {
			t.Errorf("%q from %v after %v", buf[:n], from, got)
		}
		for range 3 {
			far.WriteTo(make([]byte, 1000-headerUDP), from) // 1 ms each
		}
		_, at := readFor(t, near, time.Second)
		if want := []time.Duration{51 * ms, 52 * ms, 53 * ms}; !slices.Equal(at, want) {
			t.Errorf("arrivals %v, want %v", at, want)
		}
		s := line.Stats()
		if s.Up.Packets != 1 || s.Up.Bytes != 32 || s.Down.Packets != 3 || s.Down.Bytes != 3000 || s.Down.LateMax != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestSocketKeepsRateAndLoss measures at the far socket what TestRateWithin2Percent
// and TestLossWithinItsConfidenceInterval measure at the link.
func TestSocketKeepsRateAndLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newMemory()
		far := net.socket()
		line := newLine(t, Config{Seed: 3, Path: plain(Link{Rate: 12 * mbit, Delay: 35 * ms, Jitter: 5 * ms, Loss: 0.01})})
		near := wrapPacketConn(t, line, net.socket())
		const n, size = 10_000, 1200
		go func() {
			p := make([]byte, size)
			for i := range n {
				binary.BigEndian.PutUint64(p, uint64(i))
				near.WriteTo(p, far.LocalAddr())
				time.Sleep(740 * time.Microsecond) // 10% above 12 Mbit/s with headers
			}
			line.Close()
			far.Close()
		}()
		var first, last time.Time
		got, expect := 0, uint64(0)
		buf := make([]byte, 2000)
		for {
			if _, _, err := far.ReadFrom(buf); err != nil {
				break
			}
			if last = time.Now(); got == 0 {
				first = last
			}
			if i := binary.BigEndian.Uint64(buf); i < expect {
				t.Fatalf("packet %d after packet %d", i, expect)
			} else {
				expect = i
			}
			got++
		}
		s := line.Stats()
		rate := float64(s.Up.Packets-1) * (size + headerUDP) * 8 / last.Sub(first).Seconds() // lost ones took their time
		within(t, "rate", rate, 12e6, 0.02*12e6)
		within(t, "lost", float64(s.Up.Lost), float64(s.Up.Packets)*0.01, 3.3*10)
		if uint64(got) != s.Up.Packets-s.Up.Lost || s.Up.Packets+s.Up.Dropped != n {
			t.Errorf("%d arrived; %+v", got, s.Up)
		}
	})
}

func TestReadDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newMemory()
		line := newLine(t, Config{Path: plain(Link{Delay: 50 * ms})})
		defer line.Close()
		far, near := net.socket(), wrapPacketConn(t, line, net.socket())
		defer far.Close()
		far.WriteTo([]byte("x"), near.LocalAddr())
		if sizes, _ := readFor(t, near, 49*ms); len(sizes) != 0 {
			t.Error("a packet came before its time")
		}
		// a deadline that is set while a read waits ends it, as quic-go does
		done := make(chan error, 1) // sent to once
		go func() {
			readFor(t, near, 10*ms) // takes x
			_, _, err := near.ReadFrom(make([]byte, 10))
			done <- err
		}()
		time.Sleep(time.Minute)
		near.SetReadDeadline(time.Now())
		if err := <-done; !isTimeout(err) {
			t.Errorf("error %v", err)
		}
		// two readers at once
		near.SetDeadline(time.Now().Add(time.Second))
		for range 2 {
			go func() {
				_, _, err := near.ReadFrom(make([]byte, 10))
				done <- err
			}()
		}
		for range 2 {
			if err := <-done; !isTimeout(err) {
				t.Errorf("error %v", err)
			}
		}
	})
}

func TestCloseSendsWhatWasWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newMemory()
		far := net.socket()
		defer far.Close()
		line := newLine(t, Config{Path: plain(Link{Delay: 300 * ms})})
		near := wrapPacketConn(t, line, net.socket())
		near.WriteTo([]byte("goodbye"), far.LocalAddr())
		start := time.Now()
		near.Close()
		if d := time.Since(start); d != 0 {
			t.Errorf("Close took %v", d)
		}
		if _, err := near.WriteTo([]byte("late"), far.LocalAddr()); !errors.Is(err, errClosed) {
			t.Errorf("write after close: %v", err)
		}
		if _, _, err := near.ReadFrom(make([]byte, 10)); !errors.Is(err, errClosed) {
			t.Errorf("read after close: %v", err)
		}
		near.Close()
		line.Close()
		if d := time.Since(start); d != 300*ms {
			t.Errorf("the line closed after %v", d)
		}
		buf := make([]byte, 100)
		if n, _, err := far.ReadFrom(buf); err != nil || string(buf[:n]) != "goodbye" {
			t.Errorf("%q, %v", buf[:n], err)
		}
		if _, err := line.WrapPacketConn(far); !errors.Is(err, errClosed) {
			t.Errorf("wrap after close: %v", err)
		}

		// what would take longer than 5 s is given up at once
		line = newLine(t, Config{Path: plain(Link{Outages: Outages{Windows: []Window{{0, time.Hour}}}})})
		near = wrapPacketConn(t, line, net.socket())
		near.WriteTo([]byte("never"), far.LocalAddr())
		start = time.Now()
		line.Close()
		if d := time.Since(start); d != 0 {
			t.Errorf("the line closed after %v", d)
		}
		if len(far.inbox) != 0 {
			t.Error("a packet crossed an outage")
		}
	})
}

func TestOvertakenDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newMemory()
		far := net.socket()
		defer far.Close()
		line := newLine(t, Config{Seed: 2, Path: plain(Link{Delay: 20 * ms, Reorder: 0.3, ReorderBy: 5 * ms})})
		defer line.Close()
		near := wrapPacketConn(t, line, net.socket())
		const n = 200
		go func() {
			for i := range n {
				far.WriteTo([]byte{byte(i)}, near.LocalAddr())
				time.Sleep(ms)
			}
		}()
		overtakes, last := 0, -1
		start := time.Now()
		for range n {
			buf := make([]byte, 10)
			if _, _, err := near.ReadFrom(buf); err != nil {
				t.Fatal(err)
			}
			i := int(buf[0])
			if d := time.Since(start) - time.Duration(i)*ms; d != 20*ms && d != 25*ms {
				t.Fatalf("packet %d took %v", i, d)
			}
			if i < last {
				overtakes++
			}
			last = max(last, i)
		}
		if overtakes < n/10 {
			t.Errorf("%d of %d came late", overtakes, n)
		}
	})
}

func TestBlockedAndTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newMemory()
		far := net.socket()
		defer far.Close()
		hotel, err := ParseProfile("hotel")
		if err != nil {
			t.Fatal(err)
		}
		line := newLine(t, Config{Path: hotel})
		near := wrapPacketConn(t, line, net.socket())
		if n, err := near.WriteTo([]byte("up"), far.LocalAddr()); n != 2 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		far.WriteTo([]byte("down"), near.LocalAddr())
		if sizes, _ := readFor(t, near, time.Second); len(sizes) != 0 || len(far.inbox) != 0 {
			t.Error("a datagram passed")
		}
		line.Close()
		if s := line.Stats(); s.Up.Lost != 1 || s.Down.Lost != 1 {
			t.Errorf("%+v", s)
		}

		line = newLine(t, Config{})
		near = wrapPacketConn(t, line, net.socket())
		for _, n := range []int{1472, 1473, 2048, 9000} {
			near.WriteTo(make([]byte, n), far.LocalAddr())
			far.WriteTo(make([]byte, n), near.LocalAddr())
		}
		if sizes, _ := readFor(t, near, time.Second); !slices.Equal(sizes, []int{1472}) || len(far.inbox) != 1 {
			t.Errorf("sizes %v down, %d up", sizes, len(far.inbox))
		}
		line.Close()
		if s := line.Stats(); s.Up.Dropped != 3 || s.Down.Dropped != 3 {
			t.Errorf("%+v", s)
		}
	})
}

func TestHeldDatagramsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newMemory()
		line := newLine(t, Config{Path: plain(Link{Delay: time.Second})})
		far, near := net.socket(), wrapPacketConn(t, line, net.socket())
		far.Close()
		for range maxHeld + 5 {
			near.WriteTo(nil, far.LocalAddr())
		}
		if s := line.Stats(); s.Up.Lost != 5 {
			t.Errorf("%d lost, want 5", s.Up.Lost)
		}
		near.Close()
		line.Close()
	})
}

func TestRebind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newMemory()
		far := net.socket()
		defer far.Close()
		line := newLine(t, Config{Path: plain(Link{Delay: 20 * ms}), Listen: net.listen})
		defer line.Close()
		near := wrapPacketConn(t, line, net.socket())
		old := near.LocalAddr()
		buf := make([]byte, 100)

		near.WriteTo([]byte("on its way"), far.LocalAddr())
		far.WriteTo([]byte("in the emulator"), old)
		synctest.Wait()
		if err := line.Rebind(); err != nil {
			t.Fatal(err)
		}
		if near.LocalAddr().String() == old.String() {
			t.Fatal("the address has not changed")
		}
		far.WriteTo([]byte("lost at the old port"), old)
		if n, from, err := far.ReadFrom(buf); err != nil || string(buf[:n]) != "on its way" || from.String() != near.LocalAddr().String() {
			t.Errorf("%q from %v, %v", buf[:n], from, err)
		}
		far.WriteTo([]byte("new"), near.LocalAddr())
		sizes, _ := readFor(t, near, time.Second)
		if !slices.Equal(sizes, []int{15, 3}) {
			t.Errorf("sizes %v", sizes)
		}
		if n := line.Stats().Rebinds; n != 1 {
			t.Errorf("%d rebinds", n)
		}
	})
}

func TestRebindEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newMemory()
		path := Path{RebindEvery: 10 * time.Second}
		line := newLine(t, Config{Path: path, Listen: net.listen})
		near := wrapPacketConn(t, line, net.socket())
		time.Sleep(35 * time.Second)
		if got := near.LocalAddr().String(); got != "10.0.0.1:4" {
			t.Errorf("address %v after three changes", got)
		}
		line.Close()
		if n := line.Stats().Rebinds; n != 3 {
			t.Errorf("%d rebinds", n)
		}
	})
}

func TestRebindFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory()
		broken := errors.New("no more ports")
		line := newLine(t, Config{Listen: func(net.Addr) (net.PacketConn, error) { return nil, broken }})
		defer line.Close()
		near := wrapPacketConn(t, line, mem.socket())
		if err := line.Rebind(); !errors.Is(err, broken) {
			t.Errorf("rebind: %v", err)
		}
		if _, _, err := near.ReadFrom(make([]byte, 10)); !errors.Is(err, broken) {
			t.Errorf("read: %v", err)
		}
	})
}

func TestSocketFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory()
		line := newLine(t, Config{})
		defer line.Close()
		sock := mem.socket()
		near := wrapPacketConn(t, line, sock)
		sock.Close()
		if _, _, err := near.ReadFrom(make([]byte, 10)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read: %v", err)
		}
		near.WriteTo([]byte("x"), sock.LocalAddr())
		synctest.Wait()
		if s := line.Stats(); s.Up.Lost != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// errClosed is here because tests call their memory network net.
var errClosed = net.ErrClosed

func TestOutageHoldsDatagramsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newMemory()
		far := net.socket()
		defer far.Close()
		up := Link{Delay: 10 * ms, Rate: 8 * mbit, Queue: 3000, Outages: Outages{Windows: []Window{{100 * ms, 300 * ms}}}}
		line := newLine(t, Config{Path: Path{Up: up}})
		near := wrapPacketConn(t, line, net.socket())
		time.Sleep(200 * ms)
		for range 5 {
			near.WriteTo(make([]byte, 972), far.LocalAddr())
		}
		time.Sleep(210 * ms)
		if len(far.inbox) != 0 {
			t.Error("a packet left during the outage")
		}
		time.Sleep(3 * ms)
		synctest.Wait()
		if len(far.inbox) != 3 {
			t.Errorf("%d packets after the outage, want the 3 that the queue holds", len(far.inbox))
		}
		line.Close()
	})
}
