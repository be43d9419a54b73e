// Package netns makes networks of Linux network namespaces in which tests run
// real processes. It needs root, and the programs ip and nft; emulated lines
// between namespaces need /dev/net/tun.
//
//	home, err := netns.New()
//	relay, err := netns.New()
//	err = netns.Join(home, "eth0", relay, "eth0")
//	err = home.IP("addr add 10.0.0.1/24 dev eth0", "link set eth0 up")
//	err = home.Start(exec.Command("blindlink", "share"))
//	c, err := home.Dial(ctx, "tcp", "127.0.0.1:80")
//
// A namespace here has no name and no file: it is there for as long as it is
// not closed and for as long as a process or a connection is in it. So two
// runs cannot meet, and one that was killed leaves nothing behind.
package netns

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Namespace is a network of its own: interfaces, addresses, routes, filters
// and ports. Its methods may be called from several goroutines at once, but
// not after Close.
type Namespace struct {
	file *os.File
}

// New returns a namespace with nothing in it but its loopback interface, which
// is up.
func New() (*Namespace, error) {
	n := &Namespace{}
	err := onThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			n.file, err = os.Open(threadFile)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	if err := n.IP("link set lo up"); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// Close gives the namespace up. Who is still in it stays there.
func (n *Namespace) Close() error { return n.file.Close() }

// threadFile is the network namespace of the thread that opens it.
const threadFile = "/proc/thread-self/ns/net"

// onThread calls f on a thread of its own whose namespace f may change.
func onThread(f func() error) error {
	done := make(chan error, 1) // one value, by the goroutine below
	go func() {
		runtime.LockOSThread()
		before, err := os.Open(threadFile)
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer before.Close()
		err = f()
		// A thread that cannot go back stays locked, and ends with this goroutine.
		if unix.Setns(int(before.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// inside calls f on a thread in the namespace. What f makes there, sockets and
// processes, stays there. Goroutines that f starts are elsewhere.
func (n *Namespace) inside(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

// Start starts a program in the namespace. The caller waits for it.
func (n *Namespace) Start(cmd *exec.Cmd) error { return n.inside(cmd.Start) }

// Output runs a program in the namespace to its end and returns what it wrote
// on stdout. The error holds what it wrote on stderr.
func (n *Namespace) Output(stdin, program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := n.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// IP runs commands of iproute2's ip in the namespace, each without the "ip" in
// front, until one of them fails.
func (n *Namespace) IP(commands ...string) error {
	batch := strings.Join(commands, "\n") + "\n"
	if _, err := n.Output(batch, "ip", "-batch", "-"); err != nil {
		return fmt.Errorf("%w, in:\n%s", err, batch)
	}
	return nil
}

// Nft runs a script of nftables' nft in the namespace, all of it or nothing.
func (n *Namespace) Nft(script string) error {
	_, err := n.Output(script, "nft", "-f", "-")
	return err
}

// Sysctl sets a kernel parameter of the namespace, such as net.ipv4.ip_forward.
func (n *Namespace) Sysctl(name, value string) error {
	return n.inside(func() error {
		path := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
		return os.WriteFile(path, []byte(value), 0)
	})
}

// Listen listens in the namespace, on an address and not a name.
func (n *Namespace) Listen(network, address string) (l net.Listener, err error) {
	err = n.inside(func() (err error) {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// Dial connects in the namespace, to an address and not a name.
func (n *Namespace) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = n.inside(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Join lays a cable between two namespaces: a pair of interfaces, one in each,
// which are down.
func Join(a *Namespace, nameA string, b *Namespace, nameB string) error {
	return a.IP(fmt.Sprintf("link add %s type veth peer name %s netns /proc/%d/fd/%d", nameA, nameB, os.Getpid(), b.file.Fd()))
}
