package hop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/quic-go/quic-go/testutils/simnet"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const oneWay = 20 * time.Millisecond

// network passes nothing while it is cut.
type network struct {
	simnet.PerfectRouter
	cut atomic.Bool
}

func (n *network) SendPacket(p simnet.Packet) error {
	if n.cut.Load() {
		return nil
	}
	return n.PerfectRouter.SendPacket(p)
}

// script is a session between the code under test and a relay that a test
// plays by hand.
type script struct {
	t        *testing.T
	net      *network
	endpoint transport.Session // for the code under test
	relay    transport.Session
}

// play runs f in a bubble of virtual time. The bubble fails if f leaves a
// goroutine behind once the network is gone.
func play(t *testing.T, f func(*script)) {
	t.Helper()
	cert := transporttest.Certificate(t)
	synctest.Test(t, func(t *testing.T) {
		s := &script{t: t, net: &network{}}
		sim := &simnet.Simnet{Router: s.net}
		link := simnet.NodeBiDiLinkSettings{Latency: oneWay}
		addr := &net.UDPAddr{IP: net.IPv4(1, 0, 0, 1).To4(), Port: 4433}
		pc := sim.NewEndpoint(addr, link)
		dialer, err := transport.NewDialer(sim.NewEndpoint(&net.UDPAddr{IP: net.IPv4(1, 0, 0, 2).To4(), Port: 5000}, link))
		if err != nil {
			t.Fatal(err)
		}
		sim.Start()
		ln, err := transport.Listen(transport.ListenConfig{Sockets: []transport.Socket{{Conn: pc}}, Certificate: cert})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			dialer.Close()
			ln.Close()
			pc.Close()
			sim.Close()
			time.Sleep(time.Minute) // quic-go forgets closed connections by timers
		}()
		pin := transport.PinOf(cert.Leaf)
		if s.endpoint, err = dialer.Dial(t.Context(), wire.Relay{Addr: addr.String(), Pin: pin}, &cert); err != nil {
			t.Fatal(err)
		}
		if s.relay, err = ln.Accept(t.Context()); err != nil {
			t.Fatal(err)
		}
		f(s)
	})
}

// accept is the relay taking the next stream.
func (s *script) accept() transport.Stream {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	st, err := s.relay.AcceptStream(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

// read is the relay reading frames, which must be the given ones.
func (s *script) read(st transport.Stream, frames ...[]byte) {
	s.t.Helper()
	for _, want := range frames {
		st.SetReadDeadline(time.Now().Add(time.Minute))
		f, err := wire.ReadFrame(st)
		if err != nil {
			s.t.Fatal(err)
		}
		if byte(f.Type) != want[0] || !bytes.Equal(f.Payload, want[wire.HeaderLen:]) {
			s.t.Fatalf("got frame %#x with %x, want %x", f.Type, f.Payload, want)
		}
	}
}

// write is the relay writing frames.
func (s *script) write(st transport.Stream, frames ...[]byte) {
	s.t.Helper()
	if _, err := st.Write(bytes.Join(frames, nil)); err != nil {
		s.t.Fatal(err)
	}
}

// closed returns the ClosedError in err.
func (s *script) closed(err error) wire.ClosedError {
	s.t.Helper()
	closed, ok := errors.AsType[*wire.ClosedError](err)
	if !ok {
		s.t.Fatalf("got %v, want a closed session", err)
	}
	return *closed
}

// relaySees waits for the session's end as the relay learns of it.
func (s *script) relaySees(code wire.Code) {
	s.t.Helper()
	select {
	case <-s.relay.Done():
	case <-time.After(time.Minute):
		s.t.Fatal("the session goes on")
	}
	if got := s.closed(s.relay.Err()); got.Code != code || !got.Remote {
		s.t.Errorf("the relay sees %v, want %v", &got, code)
	}
}

var (
	hello        = wire.Hello{MinVersion: wire.MinVersion, MaxVersion: wire.MaxVersion}.Append(nil)
	welcome      = wire.Welcome{Version: wire.MaxVersion}.Append(nil)
	tokens       = []wire.TokenHash{{1}, {2}}
	registration = wire.Register{Instance: wire.Instance{5}, Tokens: tokens}
	register     = registration.Append(nil)
	registered   = wire.Registered{Route: wire.Route{3}}.Append(nil)
	optional     = []byte{0x80, 0, 1, 'x'}
	target       = wire.Open{Route: wire.Route{3}, Token: wire.Token{4}}
)

// lies are answers that no relay may give where WELCOME or REGISTERED is due,
// and the code that the endpoint then closes the session with.
var lies = []struct {
	name   string
	answer []byte
	then   func(transport.Stream)
	code   wire.Code
}{
	{"an agent's frame", hello, nil, wire.CodeProtocol},
	{"INCOMING", wire.Incoming{}.Append(nil), nil, wire.CodeProtocol},
	{"GOODBYE", wire.Goodbye{Code: wire.CodeShutdown}.Append(nil), nil, wire.CodeProtocol},
	{"LIMIT", wire.Limit{Code: wire.CodeMemory}.Append(nil), nil, wire.CodeProtocol},
	{"RECEIPT", wire.Receipt("r").Append(nil), nil, wire.CodeProtocol},
	{"unknown type", []byte{0x70, 0, 0}, nil, wire.CodeProtocol},
	{"payload too short", []byte{byte(wire.FrameWelcome), 0, 0}, nil, wire.CodeProtocol},
	{"REGISTERED too short", []byte{byte(wire.FrameRegistered), 0, 3, 1, 2, 3}, nil, wire.CodeProtocol},
	{"payload too long", []byte{byte(wire.FrameWelcome), 0xff, 0xff}, nil, wire.CodeFrameTooLarge},
	{"endless optional frames", bytes.Repeat(optional, 100), nil, wire.CodeProtocol},
	{"FIN", nil, func(st transport.Stream) { st.CloseWrite() }, wire.CodeProtocol},
	{"FIN in a frame", []byte{byte(wire.FrameWelcome)}, func(st transport.Stream) { st.CloseWrite() }, wire.CodeProtocol},
	{"reset", nil, func(st transport.Stream) { st.Reset(wire.CodeInternal) }, wire.CodeProtocol},
	{"silence", nil, func(transport.Stream) {}, wire.CodeTimeout},
	{"half a frame", []byte{byte(wire.FrameWelcome), 0}, nil, wire.CodeTimeout},
}

// TestDoc compares the protocol's text with the code.
func TestDoc(t *testing.T) {
	doc, err := os.ReadFile("../wire/PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("| greeting, REGISTER, OPEN, INCOMING due (each side's patience) | %.0f s |", Patience.Seconds())
	if !strings.Contains(string(doc), want) {
		t.Errorf("PROTOCOL.md does not say %q", want)
	}
}

// trickle writes an optional frame each 2 s, which must not buy time.
func trickle(st transport.Stream) {
	for range 6 {
		st.Write(optional)
		time.Sleep(2 * time.Second)
	}
}
