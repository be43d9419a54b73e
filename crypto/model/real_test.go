package model

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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

// settle lets everything happen that takes no time, and what soon follows.
func settle() {
	synctest.Wait()
	time.Sleep(10 * time.Millisecond)
	synctest.Wait()
}

// take takes a step of the model with the real packages.
func (r *real) take(st step, was state) {
	r.t.Helper()
	d := r.devices[st.d]
	switch st.action {
	case newInvite:
		inv, err := r.home.NewInvite("", 0, true)
		if err != nil {
			r.t.Fatal(err)
		}
		r.invite = &inv
	case revokeFile:
		for _, l := range r.home.Devices() {
			if l.Pin == d.id.Pin() {
				if err := r.home.Revoke(l.Name); err != nil {
					r.t.Fatal(err)
				}
			}
		}
	case revokeSessions:
		if r.broken != noRevoke {
			r.server.Revoke(d.id.Pin())
		}
	case offFile, turnOn:
		if err := r.home.SetEnabled(st.action == turnOn); err != nil {
			r.t.Fatal(err)
		}
	case offSessions:
		if r.broken != noSessions {
			r.server.CloseSessions(wire.CodeOff, "off")
		}
	case killAgent:
		r.killAgent()
		r.start()
	case killRelay:
		for _, d := range r.devices {
			r.cut(d)
		}
	case expire:
		time.Sleep(70 * time.Second)
		r.failures = 0
	case pairBegin:
		r.pair(d)
	case connect:
		r.arm(d)
		st, opener := r.attach(d)
		s, err := e2e.Connect(context.Background(), st, e2e.ClientConfig{Identity: d.id, Server: r.id.Pin(), Open: opener})
		if err != nil {
			r.t.Fatal(err)
		}
		d.s, d.link, d.attachment = s, s.First(), r.attachments
		synctest.Wait()
		d.begun = st.sent()
	case join:
		r.arm(d)
		st, opener := r.attach(d)
		s := d.s
		d.link, d.attachment = nil, r.attachments
		r.wg.Go(func() {
			if l, err := s.Join(context.Background(), st, opener); err == nil {
				d.link = l
			}
		})
		synctest.Wait()
		d.begun = st.sent()
		if d.s.Err() != nil { // the agent did not have to ask
			r.gate(d.id.Pin())
			d.call = nil
		}
	case open:
		r.arm(d)
		c, err := d.s.OpenStream(context.Background())
		if err != nil {
			r.t.Fatal(err)
		}
		if _, err := c.Write(nil); err != nil {
			r.t.Fatal(err)
		}
		d.conn, d.served, d.first = r.listen(c), nil, d.hops[len(d.hops)-1]
		d.opened++
	case lookup:
		close(d.call.look)
	case pairEnd, finish:
		d.release()
		synctest.Wait()
		time.Sleep(time.Second) // in which streams resume
	case say:
		for _, c := range []*talk{d.conn, d.served} {
			if _, err := c.Write([]byte{was.devices[st.d].said}); err != nil {
				r.t.Errorf("write: %v", err)
			}
		}
	case drop:
		r.cut(d)
	case killDevice:
		r.cut(d)
		if d.s != nil {
			d.s.Close(wire.CodeNone, "")
			d.s = nil
		}
	case replayStream:
		r.dial(d.attachment).Write(d.first.sent())
	case replayLink:
		if d.begun != nil {
			r.attachments++
			h := r.dial(r.attachments)
			h.Write(d.begun)
			settle()
			h.Reset(wire.CodeDeviceGone)
		}
	case stranger:
		r.stranger()
	}
	settle()
	for i := range r.devices { // what the agent holds up without a device is let go by its end
		if d := r.devices[i]; was.devices[i].call.kind == pairing && len(d.hops) == 0 {
			d.call = nil
		}
	}
}

func (r *real) killAgent() {
	for _, d := range r.devices {
		r.cut(d)
	}
	settle()
	for _, d := range r.devices {
		d.release()
	}
	r.server.Close()
	if err := r.home.Close(); err != nil {
		r.t.Fatal(err)
	}
}

// pair has a device show the latest invite. The agent waits where the owner is
// asked.
func (r *real) pair(d *realDevice) {
	if r.invite == nil {
		return
	}
	r.arm(d)
	st, _ := r.attach(d)
	c, err := e2e.ConnectPairing(context.Background(), st, e2e.ClientConfig{Identity: d.id, Server: r.id.Pin()})
	if err != nil {
		r.t.Fatal(err)
	}
	refused := make(chan struct{}) // closed when it is over
	inv := *r.invite
	r.wg.Go(func() {
		defer close(refused)
		pair.Request(context.Background(), c, inv, "a device")
		c.Close()
	})
	synctest.Wait()
	select {
	case <-refused:
		r.gate(d.id.Pin())
		d.call = nil
		r.failures++
	default:
	}
}

// stranger connects with a key that is on no list.
func (r *real) stranger() {
	r.attachments++
	at := r.attachments
	opener := func(context.Context) (e2e.Stream, error) { return r.dial(at), nil }
	st, _ := opener(context.Background())
	s, err := e2e.Connect(context.Background(), st, e2e.ClientConfig{Identity: newID(r.t), Server: r.id.Pin(), Open: opener})
	if err != nil {
		r.t.Fatal(err)
	}
	settle()
	if s.Err() == nil && r.broken == none {
		r.t.Error("a stranger has a session")
	}
	s.Close(wire.CodeNone, "")
}

// differs says in what the real packages are not in the model's state, or "".
func (r *real) differs(s state) string {
	sessions := make(map[e2e.Pin]int)
	for _, i := range r.server.Sessions() {
		sessions[i.Device]++
	}
	listed := 0
	for i, d := range r.devices {
		v := &s.devices[i]
		if v.listed {
			listed++
		}
		say := func(format string, args ...any) string {
			return fmt.Sprintf("device %d ", i) + fmt.Sprintf(format, args...)
		}
		want := int(v.ghosts)
		if v.here {
			want++
		}
		if n := sessions[d.id.Pin()]; n != want {
			return say("has %d sessions at the agent, want %d", n, want)
		}
		if _, ok := r.home.Admit(d.id.Pin()); ok != (v.listed && s.on) {
			return say("is admitted: %v", ok)
		}
		if has := d.s != nil && d.s.Err() == nil; has != v.has {
			return say("has a session: %v", has)
		}
		if linked := d.linked(); linked != v.linked {
			return say("has a link: %v", linked)
		}
		if d.accepted > d.opened {
			return say("opened %d streams, and the agent accepted %d", d.opened, d.accepted)
		}
		if !v.stream && d.conn != nil {
			if _, err := d.conn.Write(nil); err == nil {
				return say("has a stream")
			}
		}
		if !v.stream || !v.here || v.call.kind == opening {
			continue
		}
		for end, c := range map[string]*talk{"device": d.conn, "agent": d.served} {
			if c == nil {
				return say("has no stream at the %s", end)
			}
			got := c.read()
			for j, b := range got {
				if int(b) != j {
					return say("reads %v at the %s", got, end)
				}
			}
			if len(got) != int(v.got) {
				return say("has read %d records at the %s, want %d", len(got), end, v.got)
			}
		}
	}
	if s.on {
		if s.invite {
			listed++
		}
		if n := len(r.home.Tokens()); n != listed {
			return fmt.Sprintf("%d devices and invites are open, want %d", n, listed)
		}
	}
	return ""
}

// linked reports whether the agent answers over the device's latest link.
func (d *realDevice) linked() bool {
	if d.s == nil || d.link == nil || d.link.Err() != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if _, err := d.s.Welcome(ctx); err != nil {
		return false
	}
	_, err := d.link.Probe(ctx)
	return err == nil
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
