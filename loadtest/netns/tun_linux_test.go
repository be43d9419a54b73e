package netns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport/netsim"
)

// emulated returns two namespaces, 10.0.0.1 and 10.0.0.2, with an emulated line
// that is the same both ways.
func emulated(t *testing.T, link netsim.Link) (a, b *Namespace, line *netsim.Line) {
	t.Helper()
	a, b = empty(t), empty(t)
	line, err := JoinEmulated(a, "left", b, "right", netsim.Config{Path: netsim.Path{Name: "test", Up: link, Down: link}, Seed: 1})
	if err != nil {
		unable(t, err)
	}
	t.Cleanup(func() { line.Close() })
	for _, n := range []*Namespace{a, b} { // only what the tests send shall cross
		if err := n.Sysctl("net.ipv6.conf.all.disable_ipv6", "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := a.IP("addr add 10.0.0.1/24 dev left", "link set left up"); err != nil {
		t.Fatal(err)
	}
	if err := b.IP("addr add 10.0.0.2/24 dev right", "link set right up"); err != nil {
		t.Fatal(err)
	}
	return a, b, line
}

// TestEmulatedLoss sends numbered datagrams: as many arrive as the line says
// that it did not lose, in order, and the line loses what it was told to lose.
func TestEmulatedLoss(t *testing.T) {
	const n, loss = 5000, 0.03
	a, b, line := emulated(t, netsim.Link{Delay: 5 * time.Millisecond, Loss: loss})
	to, err := b.listenPacket("10.0.0.2:9")
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	from, err := a.Dial(t.Context(), "udp", "10.0.0.2:9")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()

	var got, expect int
	read := func() bool {
		to.SetReadDeadline(time.Now().Add(time.Minute))
		buf := make([]byte, 100)
		size, _, err := to.ReadFrom(buf)
		if err != nil {
			return false
		}
		if i := int(binary.BigEndian.Uint64(buf)); size != 8 || i < expect {
			t.Fatalf("%d bytes, number %d after %d", size, i, expect-1)
		} else {
			expect = i + 1
		}
		got++
		return true
	}
	// Few at once, so that no buffer of the kernel is ever full.
	for i := range n {
		if _, err := from.Write(binary.BigEndian.AppendUint64(nil, uint64(i))); err != nil {
			t.Fatal(err)
		}
		if i%50 == 49 {
			for begin := time.Now(); line.Stats().Up.Packets < uint64(i+1); {
				if time.Since(begin) > time.Minute {
					t.Fatalf("%d datagrams went, the line has seen %+v", i+1, line.Stats())
				}
				time.Sleep(time.Millisecond)
			}
			for s := line.Stats().Up; got < int(s.Packets-s.Lost); {
				if !read() {
					t.Fatalf("%d of %d datagrams arrived; %+v", got, i+1, s)
				}
			}
		}
	}
	s := line.Stats().Up
	if got != int(s.Packets-s.Lost) || s.Packets != n || s.Dropped != 0 {
		t.Errorf("%d arrived of %d; %+v", got, n, s)
	}
	// 3.3 standard deviations hold 99.9% of all seeds, and the seed is fixed.
	if off, most := math.Abs(float64(s.Lost)-n*loss), 3.3*math.Sqrt(n*loss*(1-loss)); off > most {
		t.Errorf("%d lost of %d, want %v within %.0f", s.Lost, n, n*loss, most)
	}
}

// TestEmulatedRate downloads over the kernel's TCP through a narrow line: no
// packet is longer than the MTU, although the kernel is free to offload, and
// they come no sooner than the rate and the delay allow.
func TestEmulatedRate(t *testing.T) {
	const (
		size  = 2 << 20
		rate  = 20_000_000
		delay = 10 * time.Millisecond
	)
	a, b, line := emulated(t, netsim.Link{Rate: rate, Delay: delay, QueueTime: time.Second})
	l, err := b.Listen("tcp", "10.0.0.2:80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			c.Write(make([]byte, size)) // the reader counts
			c.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	begin := time.Now()
	c, err := a.Dial(ctx, "tcp", "10.0.0.2:80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if took := time.Since(begin); took < 2*delay {
		t.Errorf("connecting took %v, less than a round trip", took)
	}
	c.SetDeadline(begin.Add(time.Minute))
	got, err := io.Copy(io.Discard, c)
	took := time.Since(begin)
	if err != nil || got != size {
		t.Fatalf("%d bytes, %v", got, err)
	}
	down := line.Stats().Down
	if down.Dropped != 0 || down.Bytes < size {
		t.Errorf("%d bytes crossed the line as %+v", size, down)
	}
	if link, err := a.Output("", "ip", "-oneline", "link", "show", "left"); err != nil || !strings.Contains(link, "mtu 1500 ") {
		t.Errorf("the interface is %q, %v, want an MTU of 1500", link, err)
	}
	if least := time.Duration(float64(down.Bytes*8) / rate * float64(time.Second)); took < least {
		t.Errorf("%d bytes took %v, at %d bit/s they take %v", down.Bytes, took, rate, least)
	}
	t.Logf("%.1f Mbit/s of %d; %+v", float64(down.Bytes*8)/took.Seconds()/1e6, rate/1_000_000, down)
}

// TestEmulatedEnds closes a line: its interfaces are gone, and TestMain sees
// that its goroutines are.
func TestEmulatedEnds(t *testing.T) {
	a, b, line := emulated(t, netsim.Link{Delay: time.Hour})
	c, err := a.Dial(t.Context(), "udp", "10.0.0.2:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("never arrives")); err != nil {
		t.Fatal(err)
	}
	line.Close()
	for n, name := range map[*Namespace]string{a: "left", b: "right"} {
		if links, err := n.Output("", "ip", "-oneline", "link"); err != nil || strings.Contains(links, name) {
			t.Errorf("the interfaces are %q, %v, want no %s", links, err, name)
		}
	}
	if _, err := JoinEmulated(a, "left", b, "right", netsim.Config{Path: netsim.Path{BlockUDP: true}}); err == nil {
		t.Error("a line that cannot block UDP says that it does")
	}
	if _, err := JoinEmulated(a, "left", b, "right", netsim.Config{Path: netsim.Path{Up: netsim.Link{Loss: 2}}}); err == nil {
		t.Error("a loss of 2 is taken")
	}
	if _, err := JoinEmulated(a, "a name that is too long", b, "right", netsim.Config{}); err == nil {
		t.Error("a name that is too long is taken")
	}
}

// listenPacket is Listen for datagrams.
func (n *Namespace) listenPacket(address string) (pc net.PacketConn, err error) {
	err = n.inside(func() (err error) {
		pc, err = net.ListenPacket("udp", address)
		return err
	})
	return pc, err
}
