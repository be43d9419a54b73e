package udp

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if addr := os.Getenv("UDP_TEST_LISTEN"); addr != "" { // a second process of TestSecondProcessIsRefused
		_, err := Listen(Config{Addr: addr, Sockets: 2})
		fmt.Println(err)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func listen(t *testing.T, cfg Config) *Group {
	t.Helper()
	g, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

func addrOf(g *Group) *net.UDPAddr { return g.Conns()[0].LocalAddr().(*net.UDPAddr) }

func TestListenRefuses(t *testing.T) {
	taken := addrOf(listen(t, Config{Addr: "127.0.0.1:0"})).String()
	for _, tt := range []struct {
		name string
		cfg  Config
		want []string
	}{
		{"no port", Config{Addr: "127.0.0.1"}, []string{"127.0.0.1", "HOST:PORT"}},
		{"no number", Config{Addr: "127.0.0.1:quic4"}, []string{"quic4"}},
		{"port too high", Config{Addr: ":70000"}, []string{":70000"}},
		{"not our address", Config{Addr: "192.0.2.1:0"}, []string{"192.0.2.1", "does not have that address"}},
		{"taken", Config{Addr: taken}, []string{taken, "another relay has this port", "choose another"}},
		{"taken on all addresses", Config{Addr: taken[strings.LastIndexByte(taken, ':'):]}, []string{"another relay has this port"}},
		{"too many sockets", Config{Addr: "127.0.0.1:0", Sockets: 65}, []string{"set 1 to 64"}},
		{"negative sockets", Config{Addr: "127.0.0.1:0", Sockets: -1}, []string{"set 1 to 64"}},
		{"negative buffer", Config{Addr: "127.0.0.1:0", Buffer: -1}, []string{"buffers of -1 bytes"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, err := Listen(tt.cfg)
			if err == nil {
				g.Close()
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q says nothing about %q", err, want)
				}
			}
		})
	}
}

func TestHints(t *testing.T) {
	for errno, want := range map[syscall.Errno]string{
		syscall.EADDRINUSE:    "choose another port",
		syscall.EACCES:        "CAP_NET_BIND_SERVICE",
		syscall.EADDRNOTAVAIL: "does not have that address",
	} {
		err := &net.OpError{Op: "listen", Net: "udp", Err: os.NewSyscallError("bind", errno)}
		if got := hint(err); !strings.Contains(got, want) {
			t.Errorf("hint for %v: %q", errno, got)
		}
	}
	if got := hint(errors.New("other")); got != "" {
		t.Errorf("hint for another error: %q", got)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	for _, sockets := range []int{1, 4} {
		addr := addrOf(listen(t, Config{Addr: "127.0.0.1:0", Sockets: sockets})).String()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "UDP_TEST_LISTEN="+addr)
		out, err := cmd.Output()
		if err != nil || !strings.Contains(string(out), addr) || !strings.Contains(string(out), "another relay has this port") {
			t.Errorf("%d sockets: the second process says %q, %v", sockets, out, err)
		}
	}
}

// However many start at once, one gets the port.
func TestRaceForAPort(t *testing.T) {
	for range 50 {
		probe := listen(t, Config{Addr: "127.0.0.1:0", Sockets: 1})
		addr := addrOf(probe).String()
		probe.Close()
		probe.conns = nil
		var won atomic.Int32
		var wait sync.WaitGroup
		start := make(chan struct{})
		groups := make([]*Group, 4)
		for i := range groups {
			wait.Go(func() {
				<-start
				g, err := Listen(Config{Addr: addr, Sockets: 3, Buffer: 64 << 10})
				switch {
				case err == nil:
					won.Add(1)
					groups[i] = g
				case !errors.Is(err, syscall.EADDRINUSE):
					t.Error(err)
				}
			})
		}
		close(start)
		wait.Wait()
		for _, g := range groups {
			if g != nil {
				g.Close()
			}
		}
		if won.Load() != 1 {
			t.Fatalf("%d of %d got the port", won.Load(), len(groups))
		}
	}
}

// An ID's first byte is of the socket, uniform among the values of the socket,
// and the rest is random.
func TestConnectionIDs(t *testing.T) {
	const draws = 400 // per value of the first byte
	for _, n := range []int{1, 2, 3, 4, 7, 48, 64} {
		for _, i := range []int{0, n / 2, n - 1} {
			gen := newGenerator(i, n)
			values := 256 / n
			var first [256]int
			seen := map[string]bool{}
			for range draws * values {
				id, err := gen.GenerateConnectionID()
				if err != nil || id.Len() != 8 || gen.ConnectionIDLen() != 8 {
					t.Fatalf("%d of %d: %v, %v", i, n, id, err)
				}
				first[id.Bytes()[0]]++
				seen[string(id.Bytes()[1:])] = true
			}
			for b, count := range first {
				switch {
				case b%n != i || b >= values*n:
					if count != 0 {
						t.Errorf("socket %d of %d: first byte %d", i, n, b)
					}
				case count < draws/2 || count > draws*3/2: // ten standard deviations
					t.Errorf("socket %d of %d: first byte %d came %d times, want about %d", i, n, b, count, draws)
				}
			}
			if len(seen) != draws*values {
				t.Errorf("socket %d of %d: IDs repeat", i, n)
			}
		}
	}
}
