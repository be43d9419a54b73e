//go:build e2e && linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/netns"
)

// internet is a network of namespaces with a cable on each line:
//
//	home --- core --- relays A and B
//	         /  \
//	     hotel  mobile
//	         \  /
//	         away
//
// The hotel's and the mobile network's routers translate addresses. The device
// prefers the hotel's Wi-Fi, its interface wifi, and has the mobile network on
// its interface mobile.
type internet struct {
	core, home, hotel, mobile, away *netns.Namespace
	relays                          [2]*netns.Namespace

	hotelAddress int // last byte of the hotel's address in 10.77.4.0/24
	wifiAddress  int // last byte of the device's address in 192.168.4.0/24
	counted      int // counters that count has made
}

// deviceLine is how many bits per second reach the device through each of its
// networks, until unshape.
const deviceLine = 100_000_000

// namespaces makes network namespaces that end with the test.
func namespaces(t *testing.T, all ...**netns.Namespace) {
	t.Helper()
	for _, ns := range all {
		made, err := netns.New()
		if err != nil {
			unable(t, err)
		}
		t.Cleanup(func() { made.Close() })
		*ns = made
	}
}

func newInternet(t *testing.T) *internet {
	t.Helper()
	n := &internet{hotelAddress: 2, wifiAddress: 2}
	namespaces(t, &n.core, &n.home, &n.hotel, &n.mobile, &n.away, &n.relays[0], &n.relays[1])
	for _, ns := range []*netns.Namespace{n.core, n.hotel, n.mobile} {
		must(t, ns.Sysctl("net.ipv4.ip_forward", "1"))
	}
	// A device with two networks takes packets from both.
	must(t, n.away.Sysctl("net.ipv4.conf.all.rp_filter", "0"))
	must(t, n.away.Sysctl("net.ipv4.conf.default.rp_filter", "0"))

	n.attach(t, "home", n.home, "eth0", "10.77.1")
	n.attach(t, "relayA", n.relays[0], "eth0", "10.77.2")
	n.attach(t, "relayB", n.relays[1], "eth0", "10.77.3")
	n.attach(t, "hotel", n.hotel, "wan", "10.77.4")
	n.attach(t, "mobile", n.mobile, "wan", "10.77.5")
	n.access(t, n.hotel, "wifi", "192.168.4", 100)
	n.access(t, n.mobile, "mobile", "192.168.5", 600)
	for _, r := range n.relays {
		must(t, r.Nft(`table inet watch {
			counter out_udp {}
			counter out_tcp {}
			chain out {
				type filter hook output priority 0
				oifname "eth0" meta l4proto udp counter name out_udp
				oifname "eth0" meta l4proto tcp counter name out_tcp
			}
		}`))
	}
	must(t, n.core.Nft(`table inet watch {
		chain pass { type filter hook forward priority 0; }
	}`))
	n.shape(t, deviceLine)
	return n
}

// unable ends a test on a machine that cannot make namespaces: with a failure
// where everything has to be tested.
func unable(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("the machine of a CI run has to bring root, ip, tc and nft: %v", err)
	}
	t.Skipf("NOT TESTED: network namespaces need root, ip, tc and nft: %v", err)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// attach joins a namespace to the core, as address .2 of a network.
func (n *internet) attach(t *testing.T, name string, ns *netns.Namespace, device, network string) {
	t.Helper()
	must(t, netns.Join(n.core, name, ns, device))
	// One packet at a time: a loss is of one, as on a real line.
	must(t, n.core.IP(
		"link set "+name+" gso_max_segs 1",
		"addr add "+network+".1/24 dev "+name,
		"link set "+name+" up"))
	must(t, ns.IP(
		"addr add "+network+".2/24 dev "+device,
		"link set "+device+" gso_max_segs 1",
		"link set "+device+" up",
		"route add default via "+network+".1"))
}

// access joins the device to a router that translates its addresses.
func (n *internet) access(t *testing.T, router *netns.Namespace, device, network string, metric int) {
	t.Helper()
	must(t, netns.Join(router, "lan", n.away, device))
	must(t, router.IP("addr add "+network+".1/24 dev lan", "link set lan up"))
	must(t, router.Nft(`table ip nat {
		chain post {
			type nat hook postrouting priority srcnat
			oifname "wan" masquerade fully-random
		}
	}
	table inet line {
		counter dropped {}
		chain pass { type filter hook forward priority 0; }
	}`))
	must(t, n.away.IP(
		"addr add "+network+".2/24 dev "+device,
		"link set "+device+" gso_max_segs 1",
		"link set "+device+" up",
		fmt.Sprintf("route add default via %s.1 dev %s metric %d", network, device, metric)))
}

// shape sets how many bits per second reach the device through each of its
// networks; 0: no bound.
func (n *internet) shape(t *testing.T, rate int) {
	t.Helper()
	for _, line := range []string{"hotel", "mobile"} {
		args := []string{"qdisc", "replace", "dev", line, "root", "tbf", "rate", fmt.Sprint(rate), "burst", "64kb", "latency", "50ms"}
		if rate == 0 {
			args = []string{"qdisc", "del", "dev", line, "root"}
		}
		_, err := n.core.Output("", "tc", args...)
		must(t, err)
	}
}

// rebind gives the hotel's router another address, with which it forgets every
// translation. The device does not notice. The returned name counts bytes that
// come from the new address.
func (n *internet) rebind(t *testing.T) (counter string) {
	t.Helper()
	old := n.hotelAddress
	n.hotelAddress++
	counter = n.count(t, "hotel", fmt.Sprintf("10.77.4.%d", n.hotelAddress))
	must(t, n.hotel.IP(
		fmt.Sprintf("addr del 10.77.4.%d/24 dev wan", old),
		fmt.Sprintf("addr add 10.77.4.%d/24 dev wan", n.hotelAddress),
		"route add default via 10.77.4.1"))
	return counter
}

// leaveWiFi takes the device's Wi-Fi away; the mobile network is left. The
// returned name counts bytes that come from there.
func (n *internet) leaveWiFi(t *testing.T) (counter string) {
	t.Helper()
	counter = n.count(t, "mobile", "10.77.5.2")
	must(t, n.away.IP("link set wifi down"))
	return counter
}

// joinWiFi brings the device into the hotel's Wi-Fi, with another address. The
// returned name counts bytes that come from there.
func (n *internet) joinWiFi(t *testing.T) (counter string) {
	t.Helper()
	counter = n.count(t, "hotel", fmt.Sprintf("10.77.4.%d", n.hotelAddress))
	old := n.wifiAddress
	n.wifiAddress++
	must(t, n.away.IP(
		fmt.Sprintf("addr del 192.168.4.%d/24 dev wifi", old),
		fmt.Sprintf("addr add 192.168.4.%d/24 dev wifi", n.wifiAddress),
		"link set wifi up",
		"route add default via 192.168.4.1 dev wifi metric 100"))
	return counter
}

// count makes a counter of what comes to the core through an interface from an
// address.
func (n *internet) count(t *testing.T, device, address string) (counter string) {
	t.Helper()
	n.counted++
	counter = fmt.Sprintf("from_%d", n.counted)
	must(t, n.core.Nft(fmt.Sprintf(`add counter inet watch %[1]s
		add rule inet watch pass iifname "%[2]s" ip saddr %[3]s counter name %[1]s`, counter, device, address)))
	return counter
}

// drop makes the hotel's router drop what a rule of nftables matches, both
// ways, until the returned function is called, which says how many bytes that
// were.
func (n *internet) drop(t *testing.T, rule string) (end func() int64) {
	t.Helper()
	must(t, n.hotel.Nft("add rule inet line pass "+rule+" counter name dropped drop"))
	return func() int64 {
		must(t, n.hotel.Nft("flush chain inet line pass"))
		return counters(t, n.hotel)["dropped"]
	}
}

// counters returns the bytes of a namespace's counters, by their names.
func counters(t *testing.T, ns *netns.Namespace) map[string]int64 {
	t.Helper()
	text, err := ns.Output("", "nft", "--json", "list", "counters")
	must(t, err)
	var list struct {
		Nftables []struct {
			Counter struct {
				Name  string
				Bytes int64
			}
		}
	}
	must(t, json.Unmarshal([]byte(text), &list))
	bytes := make(map[string]int64)
	for _, e := range list.Nftables {
		bytes[e.Counter.Name] = e.Counter.Bytes
	}
	return bytes
}

// sent returns how many bytes a relay has sent to endpoints.
func (n *internet) sent(t *testing.T, relay int) (udp, tcp int64) {
	t.Helper()
	c := counters(t, n.relays[relay])
	return c["out_udp"], c["out_tcp"]
}

// startIn runs a program in a namespace until the test ends.
func startIn(t *testing.T, ns *netns.Namespace, name string, cmd *exec.Cmd) *process {
	t.Helper()
	return startBy(t, func() error { return ns.Start(cmd) }, name, cmd)
}

// placedRelay is a relay in a namespace of its own.
type placedRelay struct {
	*process
	net     *internet
	index   int
	state   string
	args    []string
	address string // as it printed it
}

// startRelay starts relay 0 or 1, which admits every agent.
func (n *internet) startRelay(t *testing.T, index int, args ...string) *placedRelay {
	t.Helper()
	r := &placedRelay{net: n, index: index, state: newState(t), args: args}
	r.start(t)
	r.address = r.firstLine(t)
	return r
}

func (r *placedRelay) start(t *testing.T) {
	t.Helper()
	args := append([]string{"serve", "--state", r.state, "--admit", "open",
		"--listen", fmt.Sprintf("10.77.%d.2:4433", 2+r.index)}, r.args...)
	cmd := command(context.Background(), t, "blindrelay", args...)
	r.process = startIn(t, r.net.relays[r.index], r.name(), cmd)
}

func (r *placedRelay) name() string { return "relay " + string(rune('A'+r.index)) }

// again starts the relay anew after it ended.
func (r *placedRelay) again(t *testing.T) {
	t.Helper()
	r.start(t)
	if address := r.firstLine(t); address != r.address {
		t.Fatalf("%s printed %q before and %q now", r.name(), r.address, address)
	}
}

// terminate sends SIGTERM.
func (r *placedRelay) terminate(t *testing.T) {
	t.Helper()
	r.told = true
	must(t, r.cmd.Process.Signal(syscall.SIGTERM))
}

// drain runs `blindrelay drain` where the relay runs.
func (r *placedRelay) drain(t *testing.T) {
	t.Helper()
	r.told = true
	cmd := command(context.Background(), t, "blindrelay", "drain")
	cmd.Env = append(cmd.Env, "BLINDRELAY_STATE="+r.state)
	p := startIn(t, r.net.relays[r.index], "drain", cmd)
	p.wantExit(t, readyTimeout, 0)
}

// agents returns how many agents are connected, as the relay counts them.
func (r *placedRelay) agents() (int, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, DialContext: r.net.relays[r.index].Dial,
	}}
	res, err := client.Get("http://127.0.0.1:9464/metrics")
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	var n float64
	_, rest, _ := strings.Cut(string(text), "\nblindrelay_sessions{role=\"agent\"} ")
	if _, err := fmt.Sscan(rest, &n); err != nil {
		return 0, fmt.Errorf("metrics hold no number of agents: %w", err)
	}
	return int(n), nil
}

// household is the agent at home and the device away.
type household struct{ agent, device *process }

// deviceURL is the device's port, in away.
const deviceURL = "http://127.0.0.1:8096/"

// settle shares a server at home, opens it away, and returns when the device's
// port is there.
func (n *internet) settle(t *testing.T, origin http.Handler, relays ...*placedRelay) household {
	t.Helper()
	server := &http.Server{Handler: origin}
	l, err := n.home.Listen("tcp", "127.0.0.1:8080")
	must(t, err)
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })

	a := agent{state: newState(t)}
	args := []string{"share", "--to", "http://127.0.0.1:8080", "--state", a.state}
	for _, r := range relays {
		args = append(args, "--relay", r.address)
	}
	a.process = startIn(t, n.home, "agent", command(context.Background(), t, "blindlink", args...))
	a.firstLine(t)
	args = []string{"open", "--listen", "127.0.0.1:8096", "--state", newState(t), a.invite(t)}
	device := startIn(t, n.away, "device", command(context.Background(), t, "blindlink", args...))
	if line := device.firstLine(t); line != deviceURL {
		t.Fatalf("the device's line is %q, want %s", line, deviceURL)
	}
	return household{agent: a.process, device: device}
}

// client returns an HTTP client in the device's namespace and the number of
// connections that it has made.
func (n *internet) client(t *testing.T) (*http.Client, *atomic.Int64) {
	made := new(atomic.Int64)
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		made.Add(1)
		return n.away.Dial(ctx, network, address)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}, made
}

// stop ends the programs of a household before the relays end, which would
// wait for them.
func (h household) stop(t *testing.T) {
	h.device.stop(t)
	h.agent.stop(t)
}
