package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/quic-go/quic-go/testutils/simnet"
)

// flow sends numbered bytes over a stream, some every 10 ms, and notes the
// longest time between two reads at its end.
type flow struct {
	t    *testing.T
	stop chan struct{}
	done chan struct{}
	gap  time.Duration
	last time.Time
}

const flowPart = 2 << 10

func startFlow(t *testing.T, from, to Stream) *flow {
	f := &flow{t: t, stop: make(chan struct{}), done: make(chan struct{}), last: time.Now()}
	go func() {
		rng := rand.NewChaCha8([32]byte{})
		p := make([]byte, flowPart)
		for {
			select {
			case <-f.stop:
				from.CloseWrite()
				return
			case <-time.After(10 * time.Millisecond):
			}
			rng.Read(p)
			if _, err := from.Write(p); err != nil {
				t.Errorf("a stream in flight: %v", err)
				return
			}
		}
	}()
	go func() {
		defer close(f.done)
		rng := rand.NewChaCha8([32]byte{})
		want, got := make([]byte, flowPart), make([]byte, flowPart)
		for {
			_, err := io.ReadFull(to, got)
			now := time.Now()
			f.gap = max(f.gap, now.Sub(f.last))
			f.last = now
			if err == io.EOF {
				return
			}
			if rng.Read(want); err != nil || !bytes.Equal(got, want) {
				t.Errorf("a stream in flight: wrong bytes, or %v", err)
				return
			}
		}
	}()
	return f
}

// end ends the flow and returns its longest gap.
func (f *flow) end() time.Duration {
	close(f.stop)
	<-f.done
	return f.gap
}

func within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

// TestMigrate takes a session with a stream in either direction from socket to
// socket; each time nothing passes at the old address any more.
func TestMigrate(t *testing.T) {
	for _, down := range []bool{true, false} {
		simulate(t, nil, func(w *world) {
			endpoint, relay := w.dial(nil)
			a, b := open(t, endpoint, relay)
			f := startFlow(t, b, a)
			if !down {
				close(f.stop)
				<-f.done
				f = startFlow(t, a, b)
			}
			seen := map[string]bool{relay.RemoteAddr().String(): true}
			for range maxMoves {
				time.Sleep(500 * time.Millisecond)
				old := relay.RemoteAddr().String()
				if !down {
					// An upload soon fills the window of a dead path; here it
					// dies with the migration.
					time.AfterFunc(2*oneWay, func() { w.net.lose(touches(old)) })
				} else {
					w.net.lose(touches(old))
				}
				ctx, cancel := within(3 * time.Second)
				if err := endpoint.Migrate(ctx); err != nil {
					t.Fatalf("Migrate: %v", err)
				}
				cancel()
				time.Sleep(3 * oneWay)
				if now := relay.RemoteAddr().String(); seen[now] {
					t.Errorf("the relay still sees %s", now)
				} else {
					seen[now] = true
				}
			}
			ctx, cancel := within(time.Second)
			defer cancel()
			if err := endpoint.Migrate(ctx); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("migration %d: %v", maxMoves+1, err)
			}
			gap := f.end()
			t.Logf("to the endpoint: %v, %d migrations, round trip %v, longest gap %v", down, maxMoves, 2*oneWay, gap)
			if gap > time.Second {
				t.Errorf("a gap of %v", gap)
			}
		})
	}
}

func touches(addr string) func(simnet.Packet) bool {
	return func(p simnet.Packet) bool { return p.From.String() == addr || p.To.String() == addr }
}

// TestMigrateFails tries to move where nothing gets through, and stays.
func TestMigrateFails(t *testing.T) {
	simulate(t, nil, func(w *world) {
		endpoint, relay := w.dial(nil)
		a, b := open(t, endpoint, relay)
		f := startFlow(t, b, a)
		w.net.lose(func(p simnet.Packet) bool {
			return p.From.String() != endpointAddr.String() && p.To.String() != endpointAddr.String()
		})
		for range 4 { // more than there are connection IDs
			ctx, cancel := within(500 * time.Millisecond)
			if err := endpoint.Migrate(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Migrate: %v", err)
			}
			cancel()
			time.Sleep(time.Second)
		}
		if gap := f.end(); gap > 100*time.Millisecond {
			t.Errorf("a migration that failed stopped a stream for %v", gap)
		}
		w.net.lose(func(simnet.Packet) bool { return false })
		ctx, cancel := within(time.Second)
		defer cancel()
		if err := endpoint.Migrate(ctx); err != nil {
			t.Errorf("Migrate after the way is free: %v", err)
		}
		open(t, endpoint, relay)
		if n := len(w.net.others); n != 1 {
			t.Errorf("5 migrations opened %d sockets", n)
		}
		w.dialer.open = func() (net.PacketConn, error) { return nil, errors.New("no socket") }
		if err := endpoint.Migrate(ctx); err == nil || endpoint.Err() != nil {
			t.Errorf("Migrate without a socket: %v, %v", err, endpoint.Err())
		}
		time.Sleep(time.Minute)
		open(t, endpoint, relay)
	})
}

// TestMigrateFromDeadNetwork has no network for a while, in which migrations and
// checks are tried over and over. Then there is another one.
func TestMigrateFromDeadNetwork(t *testing.T) {
	simulate(t, nil, func(w *world) {
		endpoint, relay := w.dial(nil)
		time.Sleep(time.Second) // the handshake is confirmed
		w.net.cut.Store(true)
		for i := range 12 {
			ctx, cancel := within(500 * time.Millisecond)
			try := endpoint.Migrate
			if i%2 == 1 {
				try = endpoint.Check
			}
			if try(ctx) == nil {
				t.Error("an answer came through a dead network")
			}
			cancel()
		}
		w.net.cut.Store(false)
		w.net.lose(touches(endpointAddr.String()))
		ctx, cancel := within(500 * time.Millisecond)
		defer cancel()
		if err := endpoint.Migrate(ctx); err != nil {
			t.Fatal(err)
		}
		open(t, endpoint, relay)
	})
}

func TestMigrateUnsupported(t *testing.T) {
	simulate(t, nil, func(w *world) {
		endpoint, relay := w.dial(nil)
		w.dialer.open = nil // as with a socket that was given
		for what, err := range map[string]error{
			"Migrate without sockets": endpoint.Migrate(context.Background()),
			"Migrate at the relay":    relay.Migrate(context.Background()),
			"Check at the relay":      relay.Check(context.Background()),
		} {
			if !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%s: %v", what, err)
			}
		}
		open(t, endpoint, relay)
	})
}

// TestMigrateAtTheEnd ends the session, or the dialer, while it moves and after
// it has: everything ends, and no goroutine is left.
func TestMigrateAtTheEnd(t *testing.T) {
	for _, after := range []time.Duration{0, oneWay, 3 * oneWay, time.Second} {
		for what, end := range map[string]func(w *world, endpoint, relay Session){
			"the endpoint closes": func(_ *world, e, _ Session) { e.Close(wire.CodeNone, "") },
			"the relay closes":    func(_ *world, _, r Session) { r.Close(wire.CodeOff, "") },
			"the dialer closes":   func(w *world, _, _ Session) { w.dialer.Close() },
		} {
			simulate(t, nil, func(w *world) {
				endpoint, relay := w.dial(nil)
				time.Sleep(time.Second)
				moved := make(chan error, 1)
				go func() { moved <- endpoint.Migrate(context.Background()) }()
				time.Sleep(after)
				end(w, endpoint, relay)
				err := <-moved
				if err != nil && endpoint.Err() == nil {
					t.Errorf("%s after %v: %v", what, after, err)
				}
				<-endpoint.Done()
				ctx, cancel := within(time.Second)
				defer cancel()
				if err := endpoint.Migrate(ctx); err == nil || ctx.Err() != nil {
					t.Errorf("%s after %v: Migrate says %v", what, after, err)
				}
				if err := endpoint.Check(ctx); err == nil || ctx.Err() != nil {
					t.Errorf("%s after %v: Check says %v", what, after, err)
				}
			})
		}
	}
}

// TestRestartAfterMigrate restarts the relay after a migration: its stateless
// resets are not recognized, but the silence is.
func TestRestartAfterMigrate(t *testing.T) {
	simulate(t, nil, func(w *world) {
		endpoint, _ := w.dial(nil)
		ctx, cancel := within(time.Second)
		defer cancel()
		if err := endpoint.Migrate(ctx); err != nil {
			t.Fatal(err)
		}
		endpoint.Silent()
		time.Sleep(10 * time.Second)
		start := time.Now()
		w.restart(0)
		for endpoint.Silent() == 0 && endpoint.Err() == nil {
			time.Sleep(250 * time.Millisecond)
		}
		d := time.Since(start)
		t.Logf("noticed after %v: silent for %v, Err %v", d, endpoint.Silent(), endpoint.Err())
		if d > DeviceKeepAlive+Patience(2*oneWay)+DeviceKeepAlive {
			t.Error("too late")
		}
	})
}

// TestAddressChanges has the endpoint's packets leave from another address
// without its doing, as behind a NAT that forgets or after the default route
// has changed: streams go on as soon as the relay sees a packet.
func TestAddressChanges(t *testing.T) {
	for _, check := range []bool{false, true} {
		simulate(t, nil, func(w *world) {
			endpoint, relay := w.dial(nil)
			a, b := open(t, endpoint, relay)
			f := startFlow(t, b, a)
			for i := range 10 {
				time.Sleep(2 * time.Second)
				alias := &net.UDPAddr{IP: net.IPv4(2, 0, 0, byte(i)).To4(), Port: 5000}
				w.net.alias.Store(alias)
				if check {
					ctx, cancel := within(3 * time.Second)
					if err := endpoint.Check(ctx); err != nil {
						t.Errorf("Check: %v", err)
					}
					cancel()
				}
				time.Sleep(3 * time.Second)
				if now := relay.RemoteAddr().String(); now != alias.String() {
					t.Errorf("the relay sees %v, want %v", now, alias)
				}
			}
			gap := f.end()
			t.Logf("10 changes, with a check: %v, round trip %v, longest gap %v", check, 2*oneWay, gap)
			if check && gap > time.Second {
				t.Errorf("a gap of %v", gap)
			}
		})
	}
}
