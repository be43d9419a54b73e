package netsim

import (
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// tap is a device of packets, in memory. Tests send into out what its namespace
// would send, and receive from in what the line brings it.
type tap struct {
	out, in chan []byte // never closed; a full in is an error of the test
	closed  chan struct{}
	once    sync.Once
	down    error // of every Write, set before the line is joined
}

func newTap() *tap {
	return &tap{out: make(chan []byte), in: make(chan []byte, 1<<14), closed: make(chan struct{})}
}

func (t *tap) Read(b []byte) (int, error) {
	select {
	case p := <-t.out:
		return copy(b, p), nil
	case <-t.closed:
		return 0, net.ErrClosed
	}
}

func (t *tap) Write(b []byte) (int, error) {
	if t.down != nil {
		return 0, t.down
	}
	select {
	case t.in <- slices.Clone(b):
	default:
		panic("in is full")
	}
	return len(b), nil
}

func (t *tap) Close() error {
	t.once.Do(func() { close(t.closed) })
	return nil
}

// join returns the two ends of a cable.
func join(t testing.TB, l *Line) (near, far *tap) {
	t.Helper()
	near, far = newTap(), newTap()
	if err := l.Join(near, far); err != nil {
		t.Fatal(err)
	}
	return near, far
}

func TestCableCrossesBothLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := newLine(t, Config{Path: Path{Up: Link{Delay: 30 * ms}, Down: Link{Delay: 50 * ms, Rate: 8 * mbit}}})
		defer line.Close()
		near, far := join(t, line)
		start := time.Now()
		near.out <- []byte("ping")
		if got := <-far.in; string(got) != "ping" || time.Since(start) != 30*ms {
			t.Errorf("%q after %v", got, time.Since(start))
		}
		start = time.Now()
		for i := range 3 {
			far.out <- append(make([]byte, 999), byte(i)) // 1 ms each
		}
		for i := range 3 {
			got := <-near.in
			if want := time.Duration(51+i) * ms; len(got) != 1000 || got[999] != byte(i) || time.Since(start) != want {
				t.Errorf("%d bytes that end with %d after %v, want number %d after %v", len(got), got[999], time.Since(start), i, want)
			}
		}
		for _, n := range []int{1500, 1501, 2048} {
			near.out <- make([]byte, n)
		}
		time.Sleep(time.Second)
		if len(far.in) != 1 || len(<-far.in) != 1500 {
			t.Error("not only the packet of 1500 bytes passed")
		}
		if s := line.Stats(); s.Up.Packets != 2 || s.Up.Bytes != 1504 || s.Up.Dropped != 2 || s.Down.Bytes != 3000 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestCableKeepsRateLossAndOrder sends 10% more than the line carries.
func TestCableKeepsRateLossAndOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := newLine(t, Config{Seed: 3, Path: plain(Link{Rate: 12 * mbit, Delay: 20 * ms, Jitter: 5 * ms, Loss: 0.01})})
		near, far := join(t, line)
		const n, size = 10_000, 1200
		for i := range n {
			near.out <- binary.BigEndian.AppendUint64(make([]byte, 0, size), uint64(i))[:size]
			time.Sleep(727 * time.Microsecond)
		}
		time.Sleep(time.Second)
		line.Close()
		s := line.Stats().Up
		sent := time.Duration(n) * 727 * time.Microsecond
		// The queue of 250 ms is full at the end, and empties after it.
		within(t, "rate", float64(s.Packets)*size*8/(sent+250*ms).Seconds(), 12e6, 0.02*12e6)
		within(t, "lost", float64(s.Lost), float64(s.Packets)*0.01, 3.3*10)
		if got := uint64(len(far.in)); got != s.Packets-s.Lost || s.Packets+s.Dropped != n || s.LateMax != 0 {
			t.Errorf("%d arrived; %+v", got, s)
		}
		for expect := uint64(0); len(far.in) > 0; {
			i := binary.BigEndian.Uint64(<-far.in)
			if i < expect {
				t.Fatalf("packet %d after packet %d", i, expect-1)
			}
			expect = i + 1
		}
	})
}

// TestCableEnds by Close and by a device that fails; goroutines that stay would
// keep the bubble.
func TestCableEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := newLine(t, Config{Path: plain(Link{Delay: time.Hour})})
		near, far := join(t, line)
		other, failing := join(t, line)
		near.out <- []byte("never arrives")
		failing.Close()
		synctest.Wait()
		<-other.closed
		select {
		case <-near.closed:
			t.Error("one cable's end cut another")
		default:
		}
		if err := line.Rebind(); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("rebind: %v", err)
		}
		start := time.Now()
		line.Close()
		if d := time.Since(start); d != 0 || len(far.in) != 0 {
			t.Errorf("the line closed after %v, %d packets came", d, len(far.in))
		}
		<-near.closed
		<-far.closed
		if err := line.Join(newTap(), newTap()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("join after close: %v", err)
		}
	})
	line := newLine(t, Config{Path: Path{BlockUDP: true}})
	defer line.Close()
	if err := line.Join(newTap(), newTap()); err == nil {
		t.Error("a cable that should block UDP is laid")
	}
}

// TestCableIntoAnInterfaceThatIsDown counts what it does not take.
func TestCableIntoAnInterfaceThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := newLine(t, Config{})
		defer line.Close()
		near, far := newTap(), newTap()
		far.down = errors.New("down")
		if err := line.Join(near, far); err != nil {
			t.Fatal(err)
		}
		near.out <- []byte("x")
		far.out <- []byte("y")
		synctest.Wait()
		if s := line.Stats(); s.Up.Lost != 1 || len(near.in) != 1 {
			t.Errorf("%d came the other way; %+v", len(near.in), s)
		}
	})
}

// sink is a device that allocates nothing.
type sink struct {
	*tap
	took chan int // what Write was given, taken by the test
}

func (s *sink) Write(b []byte) (int, error) {
	s.took <- len(b)
	return len(b), nil
}

func TestCableAllocatesNothing(t *testing.T) {
	line := newLine(t, Config{})
	defer line.Close()
	near := newTap()
	far := &sink{tap: newTap(), took: make(chan int)}
	if err := line.Join(near, far); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 1200)
	if n := testing.AllocsPerRun(1000, func() {
		near.out <- p
		<-far.took
	}); n != 0 {
		t.Errorf("%v allocations for each packet", n)
	}
}

func BenchmarkCable(b *testing.B) {
	line := newLine(b, Config{Path: plain(Link{Rate: 100_000 * mbit, Delay: 1, Queue: maxQueue})})
	defer line.Close()
	near := newTap()
	far := &sink{tap: newTap(), took: make(chan int, 64)}
	if err := line.Join(near, far); err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 1200)
	b.SetBytes(1200)
	b.ReportAllocs()
	for sent := 0; sent < b.N; {
		n := min(64, b.N-sent)
		for range n {
			near.out <- p
		}
		for range n {
			<-far.took
		}
		sent += n
	}
}
