package transport

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/quic-go/quic-go/testutils/simnet"
)

// TestStorm has many endpoints come at once, as after a restart of their relay,
// while nobody accepts their sessions. With the default limits none is refused:
// not by the limits, whose burst they are, and not by a queue that is full,
// quic-go's of 32 least of all.
func TestStorm(t *testing.T) {
	const (
		homes = 40 // networks
		waves = 11
		each  = 5                     // in a wave, from one home
		all   = homes * waves * each  // 2,200
		pause = 80 * time.Millisecond // between waves
	)
	var failed failures
	cert := transporttest.Certificate(t)
	synctest.Test(t, func(t *testing.T) {
		sim := &simnet.Simnet{Router: &simnet.PerfectRouter{}}
		link := simnet.NodeBiDiLinkSettings{Latency: oneWay}
		socket := sim.NewEndpoint(relayAddr, link)
		var dialers []*Dialer
		for i := range homes {
			d, err := NewDialer(sim.NewEndpoint(&net.UDPAddr{IP: net.IPv4(2, byte(i), 0, 1).To4(), Port: 5000}, link))
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			dialers = append(dialers, d)
		}
		if err := sim.Start(); err != nil {
			t.Fatal(err)
		}
		ln, err := Listen(ListenConfig{Sockets: []Socket{{Conn: socket}}, Certificate: cert, Failed: failed.add})
		if err != nil {
			t.Fatal(err)
		}

		at := wire.Relay{Addr: relayAddr.String(), Pin: PinOf(cert.Leaf)}
		var wait sync.WaitGroup
		var refused atomic.Int64
		for range waves {
			for _, d := range dialers {
				for range each {
					wait.Go(func() {
						if _, err := d.DialQUIC(t.Context(), at, nil); err != nil && refused.Add(1) == 1 {
							t.Error(err)
						}
					})
				}
			}
			time.Sleep(pause)
		}
		wait.Wait()
		time.Sleep(time.Second)
		if n := len(ln.sessions); n != all || refused.Load() != 0 {
			t.Errorf("%d of %d sessions wait to be accepted, %d were refused", n, all, refused.Load())
		}
		for range len(ln.sessions) {
			s, err := ln.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if s.Err() != nil {
				t.Errorf("a session that waited is over: %v", s.Err())
			}
		}
		// Where quic-go lost a Retry, a second Initial may have begun a handshake
		// beside the one that went on.
		if n := failed.count(wire.CodeHandshakeLimit); n != 0 {
			t.Errorf("%d handshakes were refused", n)
		}
		for _, d := range dialers {
			d.Close()
		}
		ln.Close()
		socket.Close()
		sim.Close()
		time.Sleep(time.Minute) // quic-go forgets closed connections by timers
	})
}
