package netwatch

import (
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestNamespace changes the network of a namespace of its own, as root.
func TestNamespace(t *testing.T) {
	if unix.Geteuid() != 0 {
		t.Skip("NOT TESTED: what the kernel reports; this needs root")
	}
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Skip("NOT TESTED: what the kernel reports; this needs ip (iproute2)")
	}
	runtime.LockOSThread() // for good: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skip("NOT TESTED: what the kernel reports; no network namespace here: ", err)
	}
	run := func(command string) {
		t.Helper()
		if out, err := exec.Command(ip, strings.Fields(command)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", command, err, out)
		}
	}
	run("link add wifi type veth peer name wifi1")
	run("link add mobile type veth peer name mobile1")
	for _, name := range []string{"wifi", "wifi1", "mobile", "mobile1"} {
		run("link set " + name + " up")
	}
	run("addr add 10.1.0.2/24 dev wifi")
	run("route add default via 10.1.0.1")
	const settle = 50 * time.Millisecond
	w := New(Config{Settle: settle})
	defer w.Close()
	for _, c := range []struct {
		command string
		want    bool
	}{
		{"neigh add 10.1.0.9 lladdr 02:00:00:00:00:09 dev wifi", false},
		{"route add 10.9.0.0/16 via 10.1.0.1", false},
		{"addr change 10.1.0.2/24 dev wifi valid_lft 100 preferred_lft 100", false},
		{"link set wifi mtu 1400", false},
		{"link add container type veth peer name container1", false},
		{"link set container up", false},
		{"addr add 10.2.0.2/24 dev mobile", true},
		{"route add default via 10.2.0.1 metric 5", true},
		{"route del default via 10.1.0.1", true},
		{"addr del 10.1.0.2/24 dev wifi", true},
		{"addr add 2001:db8::2/64 dev mobile nodad", true},
		{"link set mobile1 down", true},
		{"link set mobile1 up", true},
		{"link set mobile down", true},
		{"link del container", false},
	} {
		begin := time.Now()
		run(c.command)
		select {
		case e := <-w.Changes():
			if !c.want || e != Network {
				t.Errorf("ip %s: %v", c.command, e)
			}
			t.Logf("ip %s: reported after %v", c.command, time.Since(begin).Round(time.Millisecond))
		case <-time.After(5 * settle):
			if c.want {
				t.Errorf("ip %s was not reported", c.command)
			}
		}
		for settled := false; !settled; { // of what came later
			select {
			case <-w.Changes():
			case <-time.After(2 * settle):
				settled = true
			}
		}
	}
}
