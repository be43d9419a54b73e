package transport

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// BenchmarkTCP moves blocks of 16 KiB, as a relay does, over one stream and the
// kernel's loopback.
func BenchmarkTCP(b *testing.B) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	cert := transporttest.Certificate(b)
	ln := ListenTCP(TCPListenConfig{Socket: socket, Certificate: cert})
	defer ln.Close()
	d, err := NewDialer(nil)
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	from, err := d.DialTCP(ctx, wire.Relay{Addr: socket.Addr().String(), Pin: PinOf(cert.Leaf)}, nil)
	if err != nil {
		b.Fatal(err)
	}
	to, err := ln.Accept(ctx)
	if err != nil {
		b.Fatal(err)
	}
	st, err := from.OpenStream(ctx)
	if err != nil {
		b.Fatal(err)
	}
	arrived := make(chan int64)
	go func() {
		st, err := to.AcceptStream(ctx)
		if err != nil {
			b.Error(err)
			arrived <- 0
			return
		}
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{st}, make([]byte, 16<<10))
		arrived <- n
	}()
	block := make([]byte, 16<<10)
	b.SetBytes(int64(len(block)))
	b.ReportAllocs()
	sent := int64(0)
	for b.Loop() {
		n, err := st.Write(block)
		if sent += int64(n); err != nil {
			b.Fatal(err)
		}
	}
	st.CloseWrite()
	if n := <-arrived; n != sent {
		b.Errorf("%d bytes arrived, %d were sent", n, sent)
	}
}
