package udp

import (
	"fmt"
	"net"
	"syscall"

	"github.com/libp2p/go-reuseport"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// open opens cfg.Sockets sockets on one port.
//
// The first is bound without SO_REUSEPORT, so the kernel refuses it if anybody
// has the port, sharing or not. SO_REUSEPORT is set on it afterwards, which
// lets the others join. Between two programs that both open their sockets this
// way there is no race: whoever binds second is not sharing yet and is
// refused. What the kernel cannot prevent is a program of the same user that
// binds with SO_REUSEPORT from the start while the group is open; it would
// join at the end, as a socket that no connection ID points to, and the filter
// would hand it nothing.
func (g *Group) open(network string, cfg Config) error {
	first, err := listenOne(network, cfg.Addr, nil)
	if err != nil {
		return err
	}
	g.conns = append(g.conns, first)
	if cfg.Sockets > 1 {
		if err := g.share(network, cfg.Sockets-1); err != nil {
			return err
		}
	}
	return g.tune(cfg.Buffer)
}

// share opens n more sockets on the port of the first and has the kernel steer
// packets between all of them. The kernel numbers them in the order of binding.
func (g *Group) share(network string, n int) error {
	first := g.conns[0]
	if err := control(first, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}); err != nil {
		return fmt.Errorf("share the port between sockets: %w", err)
	}
	for range n {
		c, err := listenOne(network, first.LocalAddr().String(), joinGroup)
		if err != nil {
			return fmt.Errorf("share the port between sockets: %w", err)
		}
		g.conns = append(g.conns, c)
	}
	prog, err := bpf.Assemble(steering(len(g.conns)))
	if err != nil {
		return fmt.Errorf("steer packets by connection ID: %w", err)
	}
	filter := make([]unix.SockFilter, len(prog))
	for i, ins := range prog {
		filter[i] = unix.SockFilter{Code: ins.Op, Jt: ins.Jt, Jf: ins.Jf, K: ins.K}
	}
	if err := control(first, func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
			&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	}); err != nil {
		return fmt.Errorf("steer packets by connection ID: %w", err)
	}
	return nil
}

// joinGroup prepares a socket that will share its port. go-reuseport also sets
// SO_REUSEADDR, which on Linux lets programs of other users bind a UDP port
// that is in use: that goes off again.
func joinGroup(network, address string, c syscall.RawConn) error {
	if err := reuseport.Control(network, address, c); err != nil {
		return err
	}
	var err error
	if cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 0)
	}); cerr != nil {
		return cerr
	}
	return err
}

// steering is the classic BPF program that picks one of n sockets: the first
// byte of the destination connection ID modulo n. That byte is at offset 1 of
// a packet with a short header and at offset 6 of one with a long header
// (RFC 8999 section 5). A packet too short for it goes to socket 0.
func steering(n int) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x80, SkipFalse: 2},
		bpf.LoadAbsolute{Off: 6, Size: 1},
		bpf.Jump{Skip: 1},
		bpf.LoadAbsolute{Off: 1, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: uint32(n)},
		bpf.RetA{},
	}
}

// tune raises the buffers of every socket and notes what the kernel refused.
func (g *Group) tune(want int) error {
	rcv, snd, gso := want, want, true
	for _, c := range g.conns {
		if err := control(c, func(fd int) error {
			got, err := raise(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, want)
			if err != nil {
				return err
			}
			rcv = min(rcv, got)
			if got, err = raise(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, want); err != nil {
				return err
			}
			snd = min(snd, got)
			_, err = unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
			gso = gso && err == nil
			return nil
		}); err != nil {
			return fmt.Errorf("raise the socket buffers: %w", err)
		}
	}
	if rcv < want {
		g.warnings = append(g.warnings, bufferWarning("receive", "rmem_max", rcv, want))
	}
	if snd < want {
		g.warnings = append(g.warnings, bufferWarning("send", "wmem_max", snd, want))
	}
	if !gso {
		g.warnings = append(g.warnings, "the kernel cannot split UDP packets (UDP_SEGMENT, Linux 4.18): sending will cost about twice the CPU; use a newer kernel")
	}
	return nil
}

// raise sets a buffer to want bytes and returns what the kernel gave, without
// the same amount again that it adds for its own bookkeeping (socket(7)). The
// forced option needs CAP_NET_ADMIN, the other stays below the sysctl.
func raise(fd, forced, plain, want int) (int, error) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, forced, want) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, want); err != nil {
			return 0, err
		}
	}
	got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, plain)
	return got / 2, err
}

func bufferWarning(which, sysctl string, got, want int) string {
	return fmt.Sprintf("the UDP %s buffers have %d KiB of the %d KiB wanted, bursts may be lost: run `sysctl -w net.core.%s=%d` or grant CAP_NET_ADMIN, then restart",
		which, got>>10, want>>10, sysctl, want)
}

func control(c *net.UDPConn, f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}
