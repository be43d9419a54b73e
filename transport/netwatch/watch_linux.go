package netwatch

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// groups are what the kernel reports to the socket: interfaces, addresses and
// routes (rtnetlink(7)). Neighbours are not among them.
const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR |
	unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE

// watchSystem asks the kernel, and polls if it may not.
func watchSystem(every time.Duration) func(ctx context.Context, moved func()) {
	socket, err := openNetlink()
	if err != nil {
		return poll(every)
	}
	seen := known()
	return func(ctx context.Context, moved func()) { listen(ctx, socket, seen, moved) }
}

// known is what the kernel says of interfaces and addresses now. Without it the
// first report of each would look like a change.
func known() *state {
	s := new(state)
	for _, request := range []int{unix.RTM_GETLINK, unix.RTM_GETADDR} {
		if b, err := syscall.NetlinkRIB(request, unix.AF_UNSPEC); err == nil {
			s.apply(b)
		}
	}
	return s
}

func openNetlink() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

// listen calls moved for each change that matters until the context ends.
func listen(ctx context.Context, socket *os.File, seen *state, moved func()) {
	defer socket.Close()
	defer context.AfterFunc(ctx, func() { socket.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, 64<<10) // the kernel's reports are 8 KiB at most
	for ctx.Err() == nil {
		n, err := socket.Read(buf)
		switch {
		case errors.Is(err, unix.ENOBUFS): // there were more than the socket holds
			seen = known()
			moved()
		case err != nil:
			return
		case seen.apply(buf[:n]):
			moved()
		}
	}
}
