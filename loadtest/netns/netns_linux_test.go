package netns

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// unable ends a test on a machine that cannot make namespaces: with a failure
// where everything has to be tested.
func unable(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("the machine of a CI run has to bring root, ip, nft and /dev/net/tun: %v", err)
	}
	t.Skipf("NOT TESTED: this needs root, ip, nft and /dev/net/tun: %v", err)
}

// empty returns a namespace until the test ends.
func empty(t *testing.T) *Namespace {
	t.Helper()
	n, err := New()
	if err != nil {
		unable(t, err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// pair returns two namespaces, 10.0.0.1 and 10.0.0.2, with a cable.
func pair(t *testing.T) (a, b *Namespace) {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		unable(t, err)
	}
	a, b = empty(t), empty(t)
	if err := Join(a, "left", b, "right"); err != nil {
		t.Fatal(err)
	}
	if err := a.IP("addr add 10.0.0.1/24 dev left", "link set left up"); err != nil {
		t.Fatal(err)
	}
	if err := b.IP("addr add 10.0.0.2/24 dev right", "link set right up"); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func TestConnection(t *testing.T) {
	a, b := pair(t)
	l, err := b.Listen("tcp", "10.0.0.2:80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			io.WriteString(c, c.RemoteAddr().(*net.TCPAddr).IP.String())
			c.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := a.Dial(ctx, "tcp", "10.0.0.2:80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); err != nil || string(got) != "10.0.0.1" {
		t.Errorf("the listener saw %q, %v, want 10.0.0.1", got, err)
	}
}

// TestInside looks where programs and settings end up, and that this process
// stays where it was.
func TestInside(t *testing.T) {
	before, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	a, b := pair(t)
	if err := a.Sysctl("net.ipv4.ip_forward", "1"); err != nil {
		t.Fatal(err)
	}
	if err := b.Sysctl("net.ipv4.ip_forward", "0"); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[*Namespace][2]string{a: {"left", "1"}, b: {"right", "0"}} {
		links, err := n.Output("", "ip", "-oneline", "link")
		if err != nil || strings.Count(links, "\n") != 2 || !strings.Contains(links, want[0]) {
			t.Errorf("the interfaces are %q, %v, want lo and %s", links, err, want[0])
		}
		forward, err := n.Output("", "cat", "/proc/sys/net/ipv4/ip_forward")
		if err != nil || strings.TrimSpace(forward) != want[1] {
			t.Errorf("ip_forward is %q, %v, want %s", forward, err, want[1])
		}
	}
	if _, err := a.Output("", "ip", "link", "show", "right"); err == nil || !strings.Contains(err.Error(), "right") {
		t.Errorf("an interface of the other namespace: %v, want an error that names it", err)
	}
	if after, err := os.Readlink("/proc/self/ns/net"); err != nil || after != before {
		t.Errorf("the process is in %s, %v, and was in %s", after, err, before)
	}
}

// TestNft drops what goes to one port.
func TestNft(t *testing.T) {
	a, b := pair(t)
	l, err := b.Listen("tcp", "10.0.0.2:80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := b.Nft("table inet f { chain in { type filter hook input priority 0; tcp dport 80 reject with tcp reset; }; }"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if c, err := a.Dial(ctx, "tcp", "10.0.0.2:80"); err == nil {
		c.Close()
		t.Error("the filter lets through what it has to reject")
	}
	if err := b.Nft("delete table inet f"); err != nil {
		t.Fatal(err)
	}
	c, err := a.Dial(ctx, "tcp", "10.0.0.2:80")
	if err != nil {
		t.Fatalf("without the filter: %v", err)
	}
	c.Close()
	if err := b.Nft("delete table inet f"); err == nil {
		t.Error("a table that does not exist can be deleted")
	}
}
