package model

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"os"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// maxFailures is how many pairings may fail in a minute before all are refused.
const maxFailures = 5

// real is the agent and the devices that the model describes.
type real struct {
	t           *testing.T
	broken      mistake
	path        string // of the Home
	home        *pair.Home
	id          *e2e.Identity
	server      *e2e.Server
	invite      *pair.Invite // the latest
	failures    int          // pairings that failed
	attachments uint64       // so far
	devices     [2]*realDevice
	wg          sync.WaitGroup // everything that is started here

	mu    sync.Mutex
	gates map[e2e.Pin]*gate // for the next question about a device
}

// mistake is one in how the real packages are put together, as a control.
type mistake uint8

const (
	none       mistake = iota
	noRevoke           // sessions of a revoked device are not ended
	admitAll           // the device list is not asked
	noSessions         // off does not end sessions
)

type realDevice struct {
	id         *e2e.Identity
	s          *e2e.Session // nil: none
	link       *e2e.Link    // the latest
	attachment uint64       // of the latest link
	hops       []end        // that may work; guarded by real.mu
	gone       uint64       // the latest attachment that was cut; likewise
	begun      []byte       // what made the latest link
	first      end          // the latest stream's first carrier
	call       *gate
	conn       *talk // the device's end of the latest stream
	served     *talk // the agent's
	opened     int   // streams
	accepted   int
}

// gate holds the agent up where it asks about a device: before it looks, and
// before it acts on what it saw.
type gate struct{ look, act chan struct{} }

func newGate() *gate { return &gate{make(chan struct{}), make(chan struct{})} }

func newID(t *testing.T) *e2e.Identity {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := e2e.NewIdentity(key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// talk is one end of a stream with all that was read on it.
type talk struct {
	*e2e.Conn
	mu  sync.Mutex
	got []byte
}

func (r *real) listen(c *e2e.Conn) *talk {
	t := &talk{Conn: c}
	r.wg.Go(func() {
		for p := make([]byte, 10); ; {
			n, err := c.Read(p)
			t.mu.Lock()
			t.got = append(t.got, p[:n]...)
			t.mu.Unlock()
			if err != nil {
				c.Close()
				return
			}
		}
	})
	return t
}

func (t *talk) read() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.got)
}

// start opens the Home and serves.
func (r *real) start() {
	r.t.Helper()
	var err error
	if r.home, err = pair.OpenHome(r.path); err != nil {
		r.t.Fatal(err)
	}
	if r.id, err = e2e.NewIdentity(r.home.Identity()); err != nil {
		r.t.Fatal(err)
	}
	home := r.home
	r.server, err = e2e.NewServer(e2e.ServerConfig{
		Identity: r.id,
		Admit:    func(p e2e.Pin) (e2e.Welcome, error) { return e2e.Welcome{}, r.admit(home, p) },
		Pair: func(ctx context.Context, c *e2e.PairingConn) {
			home.Serve(ctx, c, c.Peer(), c.Binding(), func(ctx context.Context, _, _ string) bool { return r.approve(ctx, c.Peer()) })
		},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	server := r.server
	r.wg.Go(func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			if d := r.deviceOf(c.Peer()); d != nil {
				d.served = r.listen(c)
				d.accepted++
			}
		}
	})
}

func (r *real) deviceOf(p e2e.Pin) *realDevice {
	for _, d := range r.devices {
		if d.id.Pin() == p {
			return d
		}
	}
	return nil
}

var errUnlisted = errors.New("not on the list")

// gate returns what the next question about a device has to wait for, or nil.
func (r *real) gate(p e2e.Pin) *gate {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.gates[p]
	delete(r.gates, p)
	return g
}

// arm makes the agent wait at the next question about a device.
func (r *real) arm(d *realDevice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d.call = newGate()
	r.gates[d.id.Pin()] = d.call
}

func (r *real) admit(home *pair.Home, p e2e.Pin) error {
	g := r.gate(p)
	if g != nil {
		<-g.look
	}
	_, ok := home.Admit(p)
	if g != nil {
		<-g.act
	}
	if !ok && r.broken != admitAll {
		return errUnlisted
	}
	return nil
}

func (r *real) approve(ctx context.Context, p e2e.Pin) bool {
	g := r.gate(p)
	if g == nil {
		return true
	}
	select {
	case <-g.act:
		return true
	case <-ctx.Done():
		return false
	}
}

// release lets a call go on to its end.
func (d *realDevice) release() {
	if d.call == nil {
		return
	}
	for _, c := range []chan struct{}{d.call.look, d.call.act} {
		select {
		case <-c:
		default:
			close(c)
		}
	}
	d.call = nil
}

// attach gives a device a new connection to the relay.
func (r *real) attach(d *realDevice) (st end, opener func(context.Context) (e2e.Stream, error)) {
	r.attachments++
	at := r.attachments
	opener = func(context.Context) (e2e.Stream, error) {
		mine, theirs := newHop()
		r.mu.Lock()
		defer r.mu.Unlock()
		if at <= d.gone {
			return nil, errGone
		}
		d.hops = append(d.hops, mine)
		r.server.Handle(at, theirs)
		return mine, nil
	}
	first, err := opener(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	return first.(end), opener
}

var errGone = errors.New("the relay is gone")

// dial is the relay's own way to the agent.
func (r *real) dial(attachment uint64) end {
	mine, theirs := newHop()
	r.server.Handle(attachment, theirs)
	return mine
}

// cut ends a device's connections to the relay.
func (r *real) cut(d *realDevice) {
	r.mu.Lock()
	hops := d.hops
	d.hops, d.gone = nil, r.attachments
	r.mu.Unlock()
	for _, h := range hops {
		h.Reset(wire.CodeDeviceGone)
	}
}

func (r *real) stop() {
	r.killAgent()
	for _, d := range r.devices {
		if d.s != nil {
			d.s.Close(wire.CodeNone, "")
		}
	}
	r.wg.Wait()
}

// template is a Home with two paired devices, which every path begins with.
type template struct {
	files map[string][]byte
	ids   [2]*e2e.Identity
}

func (m template) begin(t *testing.T, dir string, broken mistake) *real {
	t.Helper()
	r := &real{t: t, broken: broken, path: dir, gates: make(map[e2e.Pin]*gate)}
	for name, b := range m.files {
		if err := os.WriteFile(dir+"/"+name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, id := range m.ids {
		r.devices[i] = &realDevice{id: id}
	}
	r.start()
	return r
}

func newTemplate(t *testing.T) (m template) {
	t.Helper()
	for i := range m.ids {
		m.ids[i] = newID(t)
	}
	dir := t.TempDir()
	os.Chmod(dir, 0o700)
	synctest.Test(t, func(t *testing.T) {
		r := m.begin(t, dir, none)
		defer r.stop()
		if err := r.home.SetRelays([]wire.Relay{{Addr: "relay.example.org:4433"}}); err != nil {
			t.Fatal(err)
		}
		for i := range r.devices {
			for _, a := range []action{newInvite, pairBegin, pairEnd} {
				r.take(step{a, uint8(i)}, state{})
			}
		}
		if broken := r.differs(paired()); broken != "" {
			t.Fatal(broken)
		}
	})
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	m.files = make(map[string][]byte)
	for _, e := range entries {
		if m.files[e.Name()], err = os.ReadFile(dir + "/" + e.Name()); err != nil {
			t.Fatal(err)
		}
	}
	return m
}
