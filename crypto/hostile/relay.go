package hostile

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// relay is a relay that does to what passes whatever its hooks want. Without
// hooks it is an honest one.
type relay struct {
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	// Hooks, set before the first connection. Each may be nil.
	pass  func(f *flow, p piece) (handled bool)                         // sees all that is in streams
	says  func(st *end, to listener, t wire.FrameType, b []byte) []byte // changes what the relay itself says; nil: nothing
	joins func(h *hopStream, home int) int                              // chooses the home
	marks func(h *hopStream) uint64                                     // chooses the attachment's number
	meets func(h *hopStream) (handled bool)                             // takes a device's stream over, and closes it

	struck atomic.Bool // a hook has done what it is for

	mu       sync.Mutex
	homes    map[wire.Route]int
	agents   map[int]*connection // the relay's side
	attached int
	hops     []*hopStream
	open     []*connection
	closed   bool
}

// listener is whom the relay says something to.
type listener int

const (
	toDevice listener = iota
	toAgent
)

// hopStream is a device's stream, joined to an agent's.
type hopStream struct {
	relay         *relay
	n             int // among all hops, from 0
	attachment    int // of the device, from 1
	home          int
	device, agent *end
	up, down      *flow
}

// flow is one half of a hop.
type flow struct {
	hop      *hopStream
	up       bool
	from, to *end
	split    splitter
	cut      bool // nothing more is let through; guarded by relay.mu

	seen []piece // guarded by relay.mu
}

func newRelay() *relay {
	r := &relay{homes: make(map[wire.Route]int), agents: make(map[int]*connection)}
	r.ctx, r.stop = context.WithCancel(context.Background())
	return r
}

func (r *relay) close() {
	r.stop()
	r.mu.Lock()
	open := r.open
	r.closed = true
	r.mu.Unlock()
	for _, c := range open {
		c.Close(wire.CodeShutdown, "")
	}
	r.wg.Wait()
}

// connect returns an endpoint's side of a new connection, which serve serves.
func (r *relay) connect(serve func(*connection) error) *connection {
	endpoint, mine := newConnection()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		endpoint.Close(wire.CodeShutdown, "")
		return endpoint
	}
	r.open = append(r.open, mine)
	r.wg.Go(func() {
		if err := serve(mine); err != nil {
			mine.Close(wire.CodeProtocol, "")
		}
	})
	return endpoint
}

// speak writes a frame of the relay's own.
func (r *relay) speak(st *end, to listener, t wire.FrameType, b []byte) error {
	if r.says != nil {
		b = r.says(st, to, t, b)
	}
	if b == nil {
		return nil
	}
	_, err := st.Write(b)
	return err
}

// greet reads HELLO on the control stream and answers it.
func (r *relay) greet(c *connection, to listener) (*end, error) {
	control, err := c.accept(r.ctx)
	if err != nil {
		return nil, err
	}
	if _, err := wire.ReadFrame(control); err != nil {
		return nil, err
	}
	return control, r.speak(control, to, wire.FrameWelcome, wire.Welcome{Version: wire.MaxVersion}.Append(nil))
}

// agent serves the connection of a home's agent.
func (r *relay) agent(home int, route wire.Route) func(*connection) error {
	return func(c *connection) error {
		control, err := r.greet(c, toAgent)
		if err != nil {
			return err
		}
		if _, err := wire.ReadFrame(control); err != nil {
			return err
		}
		r.mu.Lock()
		r.homes[route], r.agents[home] = home, c
		r.mu.Unlock()
		if err := r.speak(control, toAgent, wire.FrameRegistered, wire.Registered{Route: route}.Append(nil)); err != nil {
			return err
		}
		return r.leave(control, toAgent)
	}
}

// leave says a LIMIT, a RECEIPT and a GOODBYE if a hook wants one: this honest
// relay has no reason.
func (r *relay) leave(control *end, to listener) error {
	if r.says == nil {
		return nil
	}
	for _, t := range []wire.FrameType{wire.FrameLimit, wire.FrameReceipt, wire.FrameGoodbye} {
		if err := r.speak(control, to, t, nil); err != nil {
			return err
		}
	}
	return nil
}

// device serves a device's connection.
func (r *relay) device(c *connection) error {
	r.mu.Lock()
	r.attached++
	attachment := r.attached
	r.mu.Unlock()
	control, err := r.greet(c, toDevice)
	if err == nil {
		err = r.leave(control, toDevice)
	}
	for err == nil {
		var st *end
		if st, err = c.accept(r.ctx); err == nil {
			r.wg.Go(func() { r.join(attachment, st) })
		}
	}
	return err
}

// join carries a device's stream to the agent of the route that it names.
func (r *relay) join(attachment int, device *end) {
	f, err := wire.ReadFrame(device)
	var open wire.Open
	if err == nil {
		open, err = wire.ParseOpen(f.Payload)
	}
	if err != nil {
		device.Reset(wire.CodeProtocol)
		return
	}
	r.mu.Lock()
	h := &hopStream{relay: r, n: len(r.hops), attachment: attachment, device: device, home: r.homes[open.Route]}
	r.hops = append(r.hops, h)
	r.mu.Unlock()
	if r.joins != nil {
		h.home = r.joins(h, h.home)
	}
	if r.meets != nil && r.meets(h) {
		return
	}
	if h.agent, err = r.reach(h); err != nil {
		device.Reset(wire.CodeRouteUnknown)
		return
	}
	r.mu.Lock()
	h.up = &flow{hop: h, up: true, from: device, to: h.agent, split: splitter{up: true}}
	h.down = &flow{hop: h, from: h.agent, to: device}
	r.mu.Unlock()
	r.wg.Go(h.down.pump)
	h.up.pump()
}

// reach opens a stream to a hop's agent.
func (r *relay) reach(h *hopStream) (*end, error) {
	number := uint64(h.attachment)
	if r.marks != nil {
		number = r.marks(h)
	}
	r.mu.Lock()
	agent := r.agents[h.home]
	r.mu.Unlock()
	if agent == nil {
		return nil, errors.New("no agent")
	}
	st, err := agent.OpenStream(r.ctx)
	if err != nil {
		return nil, err
	}
	return st.(*end), r.speak(st.(*end), toAgent, wire.FrameIncoming, wire.Incoming{Attachment: number}.Append(nil))
}

// inject brings the agent a stream that no device has opened, and returns the
// code with which it ended. CodeNone means that the agent took it.
func (r *relay) inject(home, attachment int, b []byte) wire.Code {
	st, err := r.reach(&hopStream{relay: r, attachment: attachment, home: home})
	if err != nil {
		return wire.CodeInternal
	}
	r.struck.Store(true)
	defer st.Reset(wire.CodeCancelled)
	st.Write(b)
	st.SetReadDeadline(time.Now().Add(patience))
	for p := make([]byte, 4096); ; {
		if _, err = st.Read(p); err != nil {
			break
		}
	}
	if reset, ok := errors.AsType[*wire.ResetError](err); ok {
		return reset.Code
	}
	return wire.CodeNone
}

// pump carries a half on, piece by piece.
func (f *flow) pump() {
	b := make([]byte, 4096)
	for {
		n, err := f.from.Read(b)
		f.split.pending = append(f.split.pending, b[:n]...)
		for p, ok := f.split.next(); ok; p, ok = f.split.next() {
			f.handle(p)
		}
		if err == nil {
			continue
		}
		if reset, ok := errors.AsType[*wire.ResetError](err); ok && reset.Code.FromEndpoint() {
			f.hop.reset(reset.Code)
		} else if err != io.EOF {
			f.hop.reset(wire.CodeCancelled)
		} else {
			if len(f.split.pending) > 0 {
				f.handle(f.split.rest())
			}
			f.handle(piece{kind: kindFIN})
		}
		return
	}
}

func (f *flow) handle(p piece) {
	r := f.hop.relay
	r.mu.Lock()
	f.seen = append(f.seen, piece{p.kind, p.index, bytes.Clone(p.b)})
	cut := f.cut
	r.mu.Unlock()
	if cut || r.pass != nil && r.pass(f, p) {
		return
	}
	f.forward(p)
}

// forward is what an honest relay does with a piece.
func (f *flow) forward(p piece) {
	if p.kind == kindFIN {
		f.finish()
	} else {
		f.send(p.b)
	}
}

func (f *flow) send(b []byte) {
	_, err := f.to.Write(b)
	reset, ok := errors.AsType[*wire.ResetError](err)
	switch {
	case err == nil:
	case ok && reset.Code == wire.CodeNone:
		f.from.StopRead()
	case ok:
		f.hop.reset(reset.Code)
	default:
		f.hop.reset(wire.CodeCancelled)
	}
}

func (f *flow) finish() { f.to.CloseWrite() }

// end lets nothing more of the half through and sends a FIN.
func (f *flow) end() {
	f.stop()
	f.finish()
}

// stop lets nothing more of the half through.
func (f *flow) stop() {
	f.hop.relay.mu.Lock()
	defer f.hop.relay.mu.Unlock()
	f.cut = true
}

func (h *hopStream) reset(code wire.Code) {
	h.device.Reset(code)
	h.agent.Reset(code)
}

// half returns the half of a hop in a direction.
func (h *hopStream) half(up bool) *flow {
	if up {
		return h.up
	}
	return h.down
}

// sealed reports whether the hop carries a sealed stream, and its number, as
// the opener's preface shows it to everyone.
func (h *hopStream) sealed() (stream int, further, ok bool) {
	h.relay.mu.Lock()
	defer h.relay.mu.Unlock()
	if h.up == nil || len(h.up.seen) == 0 || h.up.seen[0].kind != kindPreface {
		return 0, false, false
	}
	b := h.up.seen[0].b
	return int(b[8]), b[0] == firstByteAgain, true
}

// control reports whether the hop carries a link.
func (h *hopStream) control() bool {
	h.relay.mu.Lock()
	defer h.relay.mu.Unlock()
	return h.up != nil && len(h.up.seen) > 0 && h.up.seen[0].kind == kindByte
}

// pieces returns what a half has sent so far.
func (f *flow) pieces() []piece {
	f.hop.relay.mu.Lock()
	defer f.hop.relay.mu.Unlock()
	return f.seen[:len(f.seen):len(f.seen)]
}

// bytesOf returns the bytes of pieces.
func bytesOf(pieces []piece) (b []byte) {
	for _, p := range pieces {
		b = append(b, p.b...)
	}
	return b
}

// find returns the first hop that f wants, or nil.
func (r *relay) find(f func(*hopStream) bool) *hopStream {
	var joined []*hopStream
	r.mu.Lock()
	for _, h := range r.hops {
		if h.up != nil {
			joined = append(joined, h)
		}
	}
	r.mu.Unlock()
	for _, h := range joined {
		if f(h) {
			return h
		}
	}
	return nil
}

var _ transport.Session = (*connection)(nil)
