package transport

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unsentBytes is how much the kernel takes that it has not sent yet: enough that
// it never waits for this program, and little enough that who writes knows how
// fast the path is. TCP_NOTSENT_LOWAT, tcp(7).
const unsentBytes = 128 << 10

// tune sets a TCP connection up for what it carries. A kernel that lacks a
// setting keeps its own.
func tune(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	control(tcp, func(fd int) {
		_ = setBBR(fd)
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytes)
	})
}

// setBBR asks for a congestion control that keeps its rate where packets are lost
// for other reasons than a full queue, as on the last hop to a device.
func setBBR(fd int) error {
	return unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "bbr")
}

// BBR says why connections of a listener cannot have BBR as their congestion
// control; nil if they can. It is errors.ErrUnsupported on systems other than
// Linux.
func BBR(ln *net.TCPListener) (err error) {
	control(ln, func(fd int) { err = setBBR(fd) })
	return err
}

// kernelRTT returns the smoothed round trip time of a TCP connection, 0 if the
// kernel does not say.
func kernelRTT(conn net.Conn) time.Duration {
	if info := tcpInfo(conn); info != nil {
		return time.Duration(info.Rtt) * time.Microsecond
	}
	return 0
}

// segments returns how many TCP segments went each way, 0 if the kernel does not
// say.
func segments(conn net.Conn) (sent, received uint64) {
	if info := tcpInfo(conn); info != nil {
		return uint64(info.Segs_out), uint64(info.Segs_in)
	}
	return 0, 0
}

func tcpInfo(conn net.Conn) (info *unix.TCPInfo) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	control(tcp, func(fd int) {
		info, _ = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO) // nil: nothing is known
	})
	return info
}

// control runs f on a socket, unless it is closed.
func control(socket syscall.Conn, f func(fd int)) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { f(int(fd)) }) // fails on a closed socket
}
