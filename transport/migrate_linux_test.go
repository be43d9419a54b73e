package transport

import (
	"net"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
	"golang.org/x/sys/unix"
)

// namespace puts the calling goroutine into a network namespace of its own, for
// good, and returns its ID and a function that runs ip in it.
func namespace(t *testing.T) (id string, ip func(commands ...string), err error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return "", nil, err
	}
	ip = func(commands ...string) {
		for _, c := range commands {
			if out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil {
				t.Errorf("ip %s: %v: %s", c, err, out)
			}
		}
	}
	return strconv.Itoa(unix.Gettid()), ip, nil
}

// TestDefaultRouteChanges has an endpoint with two interfaces leave one for the
// other while a stream is in flight, in namespaces of the kernel: with the
// interface gone and no route at all for a while, or with both there.
func TestDefaultRouteChanges(t *testing.T) {
	if unix.Geteuid() != 0 {
		t.Skip("NOT TESTED: changes of the route; this needs root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("NOT TESTED: changes of the route; this needs ip (iproute2)")
	}
	for _, leave := range []string{"interface down, no route for 300 ms", "route replaced"} {
		for _, then := range []string{"nothing", "Check", "Migrate"} {
			t.Run(leave+", then "+then, func(t *testing.T) {
				t.Parallel()
				changeRoute(t, leave == "route replaced", then)
			})
		}
	}
}

func changeRoute(t *testing.T, replace bool, then string) {
	cert := transporttest.Certificate(t)
	type relaySide struct {
		id string
		ln *Listener
	}
	ready, linked, stop, stopped := make(chan relaySide, 1), make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() { // the relay's thread
		defer close(stopped)
		defer close(ready)
		id, ip, err := namespace(t)
		if err != nil {
			return
		}
		pc, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 4433})
		if err != nil {
			t.Error(err)
			return
		}
		defer pc.Close()
		ln, err := Listen(ListenConfig{Sockets: []Socket{{Conn: pc}}, Certificate: cert})
		if err != nil {
			t.Error(err)
			return
		}
		defer ln.Close()
		ready <- relaySide{id, ln}
		<-linked
		ip("addr add 10.9.0.1/32 dev lo", "link set lo up",
			"addr add 10.1.0.1/24 dev wifi1", "link set wifi1 up", "addr add 10.2.0.1/24 dev mobile1", "link set mobile1 up")
		ready <- relaySide{}
		<-stop
	}()
	defer func() { <-stopped }()
	defer close(stop)
	r, relayOK := <-ready
	_, ip, err := namespace(t)
	if err != nil {
		close(linked)
		t.Skip("NOT TESTED: changes of the route; no network namespace here: ", err)
	}
	if !relayOK {
		t.Fatal("no relay")
	}
	ip("link add wifi type veth peer name wifi1", "link add mobile type veth peer name mobile1",
		"link set wifi1 netns "+r.id, "link set mobile1 netns "+r.id)
	close(linked)
	<-ready
	ip("addr add 10.1.0.2/24 dev wifi", "link set wifi up", "addr add 10.2.0.2/24 dev mobile", "link set mobile up",
		"route add default via 10.1.0.1")
	d, err := NewDialer(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	ctx, cancel := within(20 * time.Second)
	defer cancel()
	endpoint, err := d.Dial(ctx, wire.Relay{Addr: "10.9.0.1:4433", Pin: PinOf(cert.Leaf)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	relay, err := r.ln.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	a, b := open(t, endpoint, relay)
	f := startFlow(t, b, a)
	time.Sleep(300 * time.Millisecond)
	if replace {
		ip("route replace default via 10.2.0.1")
	} else {
		ip("link set wifi down")
		time.Sleep(300 * time.Millisecond)
		ip("route add default via 10.2.0.1")
	}
	begin := time.Now()
	switch then {
	case "Check":
		err = endpoint.Check(ctx)
	case "Migrate":
		err = endpoint.Migrate(ctx)
	}
	if err != nil {
		t.Errorf("%s: %v", then, err)
	}
	took := time.Since(begin)
	time.Sleep(1500 * time.Millisecond)
	gap := f.end()
	t.Logf("longest gap %v, %s took %v", gap.Round(time.Millisecond), then, took.Round(time.Millisecond))
	if host, _, _ := net.SplitHostPort(relay.RemoteAddr().String()); host != "10.2.0.2" {
		t.Errorf("the relay sees %v", host)
	}
	endpoint.Close(wire.CodeNone, "")
}
