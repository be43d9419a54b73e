package netns

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/blindrelay/blindrelay/transport/netsim"
)

// queueLength is how many packets an interface holds for the emulator, which
// takes them out at once. It is long, so that only the emulated queue is ever
// full.
const queueLength = 4096

// JoinEmulated lays an emulated line between two namespaces: a TUN interface in
// each, which are down, with an MTU of 1500. What a sends crosses the path's
// uplink, what b sends its downlink. The kernel's TCP and the programs in both
// namespaces meet rate, delay, queue and loss as on a real line; the kernel cuts
// what it offloads into packets before the line sees them. Close of the line
// takes both interfaces away.
func JoinEmulated(a *Namespace, nameA string, b *Namespace, nameB string, cfg netsim.Config) (*netsim.Line, error) {
	near, err := a.tun(nameA)
	if err != nil {
		return nil, err
	}
	far, err := b.tun(nameB)
	if err != nil {
		near.Close()
		return nil, err
	}
	line, err := netsim.New(cfg)
	if err == nil {
		if err = line.Join(near, far); err == nil {
			return line, nil
		}
		line.Close()
	}
	near.Close()
	far.Close()
	return nil, err
}

// tun makes a TUN interface in the namespace. Each Read of the file takes one IP
// packet that the namespace sends, each Write gives it one. The interface goes
// when the file is closed.
func (n *Namespace) tun(name string) (*os.File, error) {
	var file *os.File
	err := n.inside(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		request, err := unix.NewIfreq(name)
		if err == nil {
			request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
		}
		if err != nil {
			unix.Close(fd)
			return err
		}
		// Only now may the runtime's poller see it: before, it was no device.
		file = os.NewFile(uintptr(fd), "tun "+name)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("make the TUN interface %s: %w", name, err)
	}
	if err := n.IP(fmt.Sprintf("link set %s mtu 1500 txqueuelen %d", name, queueLength)); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}
