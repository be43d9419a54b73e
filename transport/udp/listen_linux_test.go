package udp

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The steering program, in a virtual machine, picks the socket whose generator
// made the destination connection ID.
func TestSteering(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := 1; n <= maxSockets; n++ {
		vm, err := bpf.NewVM(steering(n))
		if err != nil {
			t.Fatal(err)
		}
		for range 500 {
			i := rng.IntN(n)
			id, err := newGenerator(i, n).GenerateConnectionID()
			if err != nil {
				t.Fatal(err)
			}
			p := make([]byte, 30+rng.IntN(1400))
			for k := range p {
				p[k] = byte(rng.Uint32())
			}
			p[0] &= 0x7f
			copy(p[1:], id.Bytes()) // short header: RFC 8999 section 5.2
			if got, err := vm.Run(p); got != i || err != nil {
				t.Fatalf("short header of socket %d of %d went to %d, %v", i, n, got, err)
			}
			p[0] |= 0x80
			p[5] = byte(id.Len())
			copy(p[6:], id.Bytes()) // long header: RFC 8999 section 5.1
			if got, err := vm.Run(p); got != i || err != nil {
				t.Fatalf("long header of socket %d of %d went to %d, %v", i, n, got, err)
			}
		}
		for _, p := range [][]byte{{}, {0x40}, {0xc0}, {0xc0, 0, 0, 0, 1, 8}} {
			if got, err := vm.Run(p); got != 0 || err != nil {
				t.Errorf("% x went to socket %d of %d, %v", p, got, n, err)
			}
		}
	}
}

// receive says at which of the sockets a packet with this content arrives.
func receive(t *testing.T, conns []*net.UDPConn, content string) int {
	t.Helper()
	buf := make([]byte, 100)
	for range 1000 {
		for i, c := range conns {
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			n, _, err := c.ReadFromUDPAddrPort(buf)
			if err == nil && string(buf[:n]) == content {
				return i
			}
		}
	}
	t.Fatal("a packet got lost")
	return 0
}

func TestKernelSteers(t *testing.T) {
	for _, tt := range []struct{ addr, local, from string }{
		{"127.0.0.1:0", "127.0.0.1", "127.0.0.1"},
		{"0.0.0.0:0", "0.0.0.0", "127.0.0.1"},
		{"[::1]:0", "::1", "::1"},
		{"[::]:0", "::", "::1"},
		{":0", "::", "::1"},
		{":0", "::", "127.0.0.1"},
		{"localhost:0", "", "localhost"},
	} {
		t.Run(tt.addr+" from "+tt.from, func(t *testing.T) {
			if ip := net.ParseIP(tt.from); ip.To4() == nil && ip != nil {
				c, err := net.ListenUDP("udp6", &net.UDPAddr{IP: ip})
				if err != nil {
					t.Skip("no IPv6 here: ", err)
				}
				c.Close()
			}
			g := listen(t, Config{Addr: tt.addr, Sockets: 3})
			if ip := addrOf(g).IP.String(); tt.local != "" && ip != tt.local {
				t.Errorf("listens on %s, want %s", ip, tt.local)
			}
			for _, c := range g.Conns() {
				if c.LocalAddr().String() != addrOf(g).String() {
					t.Errorf("%v and %v", c.LocalAddr(), addrOf(g))
				}
			}
			to := net.JoinHostPort(tt.from, strconv.Itoa(addrOf(g).Port))
			for i := range 12 {
				c, err := net.Dial("udp", to) // each from another port
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				content := fmt.Sprintf("\x40%c-%d", i, i)
				if i%2 == 0 {
					content = fmt.Sprintf("\xc0\x00\x00\x00\x01\x08%c-%d", i, i)
				}
				if _, err := c.Write([]byte(content)); err != nil {
					t.Fatal(err)
				}
				if got := receive(t, g.Conns(), content); got != i%3 {
					t.Errorf("packet for socket %d arrived at %d", i%3, got)
				}
			}
		})
	}
}

func TestFamilies(t *testing.T) {
	probe, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 here: ", err)
	}
	probe.Close()
	v4 := listen(t, Config{Addr: "0.0.0.0:0", Sockets: 2})
	// The same port of the other family is free, so each has its own only.
	v6, err := Listen(Config{Addr: fmt.Sprintf("[::]:%d", addrOf(v4).Port), Sockets: 2})
	if err != nil {
		t.Fatal(err)
	}
	v6.Close()
	if g, err := Listen(Config{Addr: fmt.Sprintf(":%d", addrOf(v4).Port), Sockets: 2}); err == nil {
		g.Close()
		t.Error("both families listen where IPv4 is taken")
	}
}

func TestForeignSocketOnThePort(t *testing.T) {
	lc := net.ListenConfig{Control: joinGroup}
	t.Run("before", func(t *testing.T) {
		c, err := lc.ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, sockets := range []int{1, 2} {
			if g, err := Listen(Config{Addr: c.LocalAddr().String(), Sockets: sockets}); err == nil {
				g.Close()
				t.Errorf("%d sockets joined a port that another program shares", sockets)
			}
		}
	})
	t.Run("after", func(t *testing.T) {
		g := listen(t, Config{Addr: "127.0.0.1:0", Sockets: 2})
		late, err := lc.ListenPacket(t.Context(), "udp4", addrOf(g).String())
		if err != nil {
			t.Fatal(err) // the kernel lets it in; it must get nothing
		}
		defer late.Close()
		all := append(g.Conns(), late.(*net.UDPConn))
		for i := range 30 {
			c, err := net.Dial("udp", addrOf(g).String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			content := fmt.Sprintf("\x40%c", i)
			c.Write([]byte(content))
			if got := receive(t, all, content); got != i%2 {
				t.Fatalf("packet for socket %d arrived at %d", i%2, got)
			}
		}
	})
}

func TestOneSocketIsNotShared(t *testing.T) {
	g := listen(t, Config{Addr: "127.0.0.1:0", Sockets: 1})
	lc := net.ListenConfig{Control: joinGroup}
	if c, err := lc.ListenPacket(t.Context(), "udp4", addrOf(g).String()); err == nil {
		c.Close()
		t.Error("another socket joined the port")
	}
}

func TestDefaults(t *testing.T) {
	g := listen(t, Config{Addr: "127.0.0.1:0"})
	if got, want := len(g.Conns()), min(runtime.GOMAXPROCS(0), maxSockets); got != want {
		t.Errorf("%d sockets, want one per core, %d", got, want)
	}
	for _, c := range g.Conns() {
		control(c, func(fd int) error {
			if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR); on != 0 || err != nil {
				t.Errorf("SO_REUSEADDR is %d, %v: programs of others could take the port", on, err)
			}
			return nil
		})
	}
}

func sysctl(t *testing.T, name string) int {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/net/core/" + name)
	if err != nil {
		t.Skip(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Without any capability the sockets open, steering works, and what the kernel
// did not give is said with the sysctl that gives it.
func TestUnprivileged(t *testing.T) {
	rmem, wmem := sysctl(t, "rmem_max"), sysctl(t, "wmem_max")
	want := max(rmem, wmem) + 1<<20
	type result struct {
		g   *Group
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // for good: the thread without capabilities ends with this goroutine
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&hdr, &none[0]); err != nil {
			done <- result{err: err}
			return
		}
		g, err := Listen(Config{Addr: "127.0.0.1:0", Sockets: 2, Buffer: want})
		done <- result{g, err}
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	defer r.g.Close()
	for name, limit := range map[string]int{"rmem_max": rmem, "wmem_max": wmem} {
		sentence := fmt.Sprintf("sysctl -w net.core.%s=%d", name, want)
		i := slices.IndexFunc(r.g.Warnings(), func(w string) bool { return strings.Contains(w, sentence) })
		if i < 0 {
			t.Fatalf("no warning with %q: %q", sentence, r.g.Warnings())
		}
		if w := r.g.Warnings()[i]; !strings.Contains(w, fmt.Sprintf("have %d KiB of the %d KiB", limit>>10, want>>10)) {
			t.Errorf("%q does not say that %d bytes were given", w, limit)
		}
	}
	small := listen(t, Config{Addr: "127.0.0.1:0", Sockets: 2, Buffer: 64 << 10})
	for _, w := range small.Warnings() {
		if strings.Contains(w, "sysctl") {
			t.Errorf("64 KiB were wanted: %s", w)
		}
	}
}
