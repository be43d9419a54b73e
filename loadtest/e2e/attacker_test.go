//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/quic-go/quic-go"
)

// attackerEnv, if set, makes the test binary a program beside the relay that
// TestAttack measures. Its value is an attackPlan.
const attackerEnv = "RUN_AS_ATTACKER"

// attackPlan says what the program does until SIGTERM.
type attackPlan struct {
	Kind  string // one of attackKinds
	Relay string // the relay's line
	// From is a network. A flood forges addresses of it, others have them.
	From  netip.Prefix
	Rate  int // of a flood, packets per second
	Count int // of connections, or of a flood's different packets
}

// attackReport is what it has done.
type attackReport struct {
	Sent    int64           // packets of a flood
	Made    int64           // connections whose handshake was done
	Refused int64           // those that were refused or came to nothing
	Took    []time.Duration // of a visitor, until the relay has greeted it
}

var attackKinds = map[string]func(context.Context, attackPlan, wire.Relay, *attackReport) error{
	"flood":   flood,
	"silent":  silent,
	"trickle": trickle,
	"churn":   churn,
	"visitor": visitor,
}

// attacking runs a plan and prints the report.
func attacking(text string) error {
	var p attackPlan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return err
	}
	at, err := wire.ParseRelay(p.Relay)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var r attackReport
	if err := attackKinds[p.Kind](ctx, p, at, &r); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// addressOf returns address i of a network, each in a /24 of its own as far as
// there are such, and none of them a network's first or last.
func addressOf(p netip.Prefix, i int) netip.Addr {
	b := p.Masked().Addr().As4()
	n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	if p.Bits() >= 24 {
		n += uint32(1 + i%254)
	} else {
		n += uint32(i)<<8&(1<<(32-p.Bits())-1) + 1 + uint32(i>>(24-p.Bits()))%254
	}
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// strangerTLS trusts anybody: an attacker does not care.
var strangerTLS = &tls.Config{InsecureSkipVerify: true, NextProtos: []string{wire.ALPN}, CurvePreferences: []tls.CurveID{tls.X25519}}

// stranger dials from an address of its own.
type stranger struct{ tr *quic.Transport }

func newStranger(from netip.Addr) (stranger, error) {
	pc, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)))
	if err != nil {
		return stranger{}, err
	}
	return stranger{&quic.Transport{Conn: pc}}, nil
}

func (s stranger) close() {
	s.tr.Close()
	s.tr.Conn.Close()
}

// dial tries until it is connected or ctx ends.
func (s stranger) dial(ctx context.Context, at wire.Relay, r *attackReport) *quic.Conn {
	addr := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at.Addr))
	for ctx.Err() == nil {
		c, err := s.tr.Dial(ctx, addr, strangerTLS, &quic.Config{MaxIdleTimeout: time.Minute, DisablePathMTUDiscovery: true})
		if err == nil {
			atomic.AddInt64(&r.Made, 1)
			return c
		}
		atomic.AddInt64(&r.Refused, 1)
		rest(ctx, time.Second)
	}
	return nil
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// each runs f for each connection of a plan, 50 from one address, until ctx ends.
func each(ctx context.Context, p attackPlan, f func(i int, s stranger)) error {
	var wait sync.WaitGroup
	defer wait.Wait()
	for i := 0; i < p.Count; {
		s, err := newStranger(addressOf(p.From, i/50))
		if err != nil {
			return err
		}
		defer s.close()
		for end := min(p.Count, i+50); i < end; i++ {
			wait.Go(func() { f(i, s) })
		}
	}
	<-ctx.Done()
	return nil
}

// silent makes its connections as fast as the relay lets it, and says nothing.
func silent(ctx context.Context, p attackPlan, at wire.Relay, r *attackReport) error {
	room := make(chan struct{}, 200) // a value for each that dials
	return each(ctx, p, func(_ int, s stranger) {
		select {
		case room <- struct{}{}:
			s.dial(ctx, at, r)
			<-room
		case <-ctx.Done():
		}
	})
}

// churn makes connections and ends them at once, over and over.
func churn(ctx context.Context, p attackPlan, at wire.Relay, r *attackReport) error {
	return each(ctx, p, func(_ int, s stranger) {
		for ctx.Err() == nil {
			if c := s.dial(ctx, at, r); c != nil {
				c.CloseWithError(0, "")
			}
		}
	})
}

// trickle has connections that say what they have to byte by byte, so slowly
// that it never ends, and begin anew when they are cut: in turn TLS over TCP,
// HELLO, and OPEN on four streams.
func trickle(ctx context.Context, p attackPlan, at wire.Relay, r *attackReport) error {
	hello, open := wire.Hello{}.Append(nil), wire.Open{}.Append(nil)
	one := []func(s stranger, from netip.Addr){
		func(_ stranger, from netip.Addr) { trickleTCP(ctx, at, from, r) },
		func(s stranger, _ netip.Addr) {
			if c := s.dial(ctx, at, r); c != nil {
				trickleStream(ctx, c, hello)
				c.CloseWithError(0, "")
			}
		},
		func(s stranger, _ netip.Addr) {
			c := s.dial(ctx, at, r)
			if c == nil {
				return
			}
			defer c.CloseWithError(0, "")
			if st, err := c.OpenStream(); err == nil {
				st.Write(hello)
			}
			for range 4 {
				go trickleStream(ctx, c, open)
			}
			select { // its streams are cut, not the connection
			case <-c.Context().Done():
			case <-ctx.Done():
			case <-time.After(12 * time.Second):
			}
		},
	}
	return each(ctx, p, func(i int, s stranger) {
		for ctx.Err() == nil {
			one[i%len(one)](s, addressOf(p.From, i/50))
			rest(ctx, time.Second)
		}
	})
}

// trickleStream writes all bytes but the last, one each 300 ms.
func trickleStream(ctx context.Context, c *quic.Conn, text []byte) {
	st, err := c.OpenStream()
	for i := 0; i < len(text)-1 && err == nil && ctx.Err() == nil; i++ {
		_, err = st.Write(text[i : i+1])
		rest(ctx, 300*time.Millisecond)
	}
	select {
	case <-c.Context().Done():
	case <-ctx.Done():
	case <-time.After(12 * time.Second):
	}
}

// trickleTCP begins a TLS handshake byte by byte.
func trickleTCP(ctx context.Context, at wire.Relay, from netip.Addr, r *attackReport) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: 5 * time.Second}
	c, err := d.DialContext(ctx, "tcp4", at.TCPAddr())
	if err != nil {
		atomic.AddInt64(&r.Refused, 1)
		return
	}
	defer c.Close()
	atomic.AddInt64(&r.Made, 1)
	for _, b := range append([]byte{22, 3, 1, 1, 0}, make([]byte, 100)...) { // a record of 256 bytes
		if _, err := c.Write([]byte{b}); err != nil || ctx.Err() != nil {
			return
		}
		rest(ctx, 300*time.Millisecond)
	}
}

// visitor comes as a device does, four times a second, and leaves again.
func visitor(ctx context.Context, _ attackPlan, at wire.Relay, r *attackReport) error {
	d, err := transport.NewDialer(nil)
	if err != nil {
		return err
	}
	defer d.Close()
	for ctx.Err() == nil {
		begin := time.Now()
		visit, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := func() error {
			s, err := d.Dial(visit, at, nil)
			if err != nil {
				return err
			}
			a, err := hop.Attach(visit, s, wire.Open{})
			if err != nil {
				return err
			}
			a.Close(wire.CodeNone, "")
			return nil
		}()
		cancel()
		switch {
		case err == nil:
			r.Took = append(r.Took, time.Since(begin))
		case ctx.Err() == nil:
			r.Refused++
			fmt.Fprintln(os.Stderr, err)
		}
		rest(ctx, 250*time.Millisecond)
	}
	slices.Sort(r.Took)
	return nil
}

// initials returns packets with which QUIC clients begin, each of another
// connection. quic-go makes them as for a real one.
func initials(at wire.Relay, n int) ([][]byte, error) {
	pc := &firstPackets{came: make(chan []byte), closed: make(chan struct{})}
	tr := &quic.Transport{Conn: pc}
	defer func() { pc.Close(); tr.Close() }()
	var packets [][]byte
	for range n {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			tr.Dial(ctx, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at.Addr)), strangerTLS, &quic.Config{DisablePathMTUDiscovery: true})
		}()
		select {
		case b := <-pc.came:
			packets = append(packets, b)
		case <-time.After(10 * time.Second):
			cancel()
			return nil, errors.New("quic-go sends nothing")
		}
		cancel()
		<-ended
	}
	return packets, nil
}

// firstPackets is a network that keeps what is sent.
type firstPackets struct {
	came   chan []byte // what nobody waits for is lost
	closed chan struct{}
	once   sync.Once
}

func (c *firstPackets) WriteTo(b []byte, _ net.Addr) (int, error) {
	select {
	case c.came <- slices.Clone(b):
	case <-time.After(time.Millisecond):
	}
	return len(b), nil
}

func (c *firstPackets) ReadFrom([]byte) (int, net.Addr, error) {
	<-c.closed
	return 0, nil, net.ErrClosed
}

func (c *firstPackets) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func (c *firstPackets) LocalAddr() net.Addr              { return &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} }
func (c *firstPackets) SetDeadline(time.Time) error      { return nil }
func (c *firstPackets) SetReadDeadline(time.Time) error  { return nil }
func (c *firstPackets) SetWriteDeadline(time.Time) error { return nil }

// flood sends packets that begin connections, each from another forged address
// and port, at a rate.
// Each has a header of IPv4 and UDP of its own, without a checksum of UDP.
func flood(ctx context.Context, p attackPlan, at wire.Relay, r *attackReport) error {
	packets, err := initials(at, p.Count)
	if err != nil {
		return err
	}
	raw, err := newForger(netip.MustParseAddrPort(at.Addr))
	if err != nil {
		return err
	}
	defer raw.close()
	fmt.Println("ready")
	random := rand.New(rand.NewPCG(1, 2))
	begin := time.Now()
	for next := 0; ctx.Err() == nil; {
		due := int(time.Since(begin).Seconds() * float64(p.Rate))
		if due-next < forgedBatch {
			time.Sleep(time.Millisecond)
			continue
		}
		if due-next > p.Rate/5 { // what was missed while the machine did something else stays missed
			begin = begin.Add(time.Duration(float64(due-next) / float64(p.Rate) * float64(time.Second)))
		}
		n, err := raw.send(func(i int) (netip.Addr, uint16, []byte) {
			return forged(p.From, random), uint16(1024 + random.IntN(60000)), packets[(next+i)%len(packets)]
		})
		if err != nil {
			return err
		}
		next += n
		r.Sent += int64(n)
	}
	return nil
}

// forged returns any address of a network.
func forged(p netip.Prefix, random *rand.Rand) netip.Addr {
	b := p.Masked().Addr().As4()
	n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	n += random.Uint32() >> p.Bits()
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}
