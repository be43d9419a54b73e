//go:build unix

package netsim

import (
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// cpuTime is what all threads of this process have used, kernel included.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSocket is what a datagram costs from one socket to another on the
// loopback, bare and through a line that holds nothing back: the difference is
// the emulator's cost. A window of 64 datagrams keeps the kernel's buffers from
// overflowing.
func BenchmarkSocket(b *testing.B) {
	for _, name := range []string{"bare", "up", "down"} {
		b.Run(name, func(b *testing.B) {
			line := newLine(b, Config{Path: plain(Link{Rate: 100_000 * mbit, Delay: 1, Queue: maxQueue})})
			var from, to net.PacketConn = listenUDP(b), listenUDP(b)
			switch name {
			case "up":
				from = wrapPacketConn(b, line, from)
			case "down":
				to = wrapPacketConn(b, line, to)
			}
			p, buf, addr := make([]byte, 1200), make([]byte, 2000), to.LocalAddr()
			b.SetBytes(1200)
			b.ReportAllocs()
			b.ResetTimer()
			before := cpuTime(b)
			for sent := 0; sent < b.N; {
				n := min(64, b.N-sent)
				for range n {
					if _, err := from.WriteTo(p, addr); err != nil {
						b.Fatal(err)
					}
				}
				for range n {
					if _, _, err := to.ReadFrom(buf); err != nil {
						b.Fatal(err)
					}
				}
				sent += n
			}
			b.StopTimer()
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
			from.Close()
			to.Close()
			line.Close()
		})
	}
}

// BenchmarkStream is what 64 KiB cost over a TCP connection on the loopback,
// bare and through a line that holds nothing back.
func BenchmarkStream(b *testing.B) {
	for _, name := range []string{"bare", "up", "down"} {
		b.Run(name, func(b *testing.B) {
			ln, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			from, err := net.Dial("tcp4", ln.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			to, err := ln.Accept()
			if err != nil {
				b.Fatal(err)
			}
			ln.Close()
			line := newLine(b, Config{Path: plain(Link{})})
			switch name {
			case "up":
				from = wrapConn(b, line, from)
			case "down":
				to = wrapConn(b, line, to)
			}
			const block = 64 << 10
			b.SetBytes(block)
			b.ReportAllocs()
			b.ResetTimer()
			before := cpuTime(b)
			go func() {
				p := make([]byte, block)
				for range b.N {
					if _, err := from.Write(p); err != nil {
						b.Error(err)
						break
					}
				}
				from.Close()
			}()
			n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{to}, make([]byte, block))
			if err != nil || n != int64(b.N)*block {
				b.Fatal(n, err)
			}
			b.StopTimer()
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
			to.Close()
			line.Close()
		})
	}
}
