package transport

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTune looks at a connection's settings. Where the kernel grants no BBR, the
// rest is set all the same.
func TestTune(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tune(conn)
	control(conn.(*net.TCPConn), func(fd int) {
		if n, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT); n != unsentBytes || err != nil {
			t.Errorf("the kernel takes %d unsent bytes, %v", n, err)
		}
		name, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
		if granted := BBR(ln.(*net.TCPListener)) == nil; (name == "bbr") != granted || err != nil {
			t.Errorf("the congestion control is %q, %v; BBR is granted: %v", name, err, granted)
		}
	})
	if kernelRTT(conn) <= 0 {
		t.Error("the kernel says no round trip time")
	}
}
