package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/blindrelay/blindrelay/relay/jitter"
	"github.com/blindrelay/blindrelay/relay/share"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// errCut wakes both sides of a buffer whose direction ended early.
var errCut = errors.New("direction ended")

// end is one of the two ends of a forwarded stream.
type end struct {
	stream  transport.Stream
	session context.Context // done once the session is over
	gone    wire.Code       // says that the session is over
}

// joint is a device's stream joined to an agent's.
type joint struct {
	device, agent end
	up, down      direction
	relay         *Relay
	slot          *slot

	mu    sync.Mutex
	isCut bool
	code  wire.Code // why it was cut; CodeNone if both directions ended on their own
}

// direction is one half of a joint: what src sends goes through the buffer to
// dst. One goroutine fills the buffer, one drains it, as fast as its share of
// the line lets it: a full buffer then stops the reading.
type direction struct {
	joint    *joint
	src, dst end
	buffer   *jitter.Buffer
	share    *share.Half
	total    *atomic.Int64 // bytes
}

func newJoint(device, agent end, up, down *jitter.Buffer, s *slot, r *Relay) *joint {
	j := &joint{device: device, agent: agent, relay: r, slot: s}
	toAgent, toDevice := s.flow.Halves()
	j.up = direction{j, device, agent, up, toAgent, &r.metrics.bytesUp}
	j.down = direction{j, agent, device, down, toDevice, &r.metrics.bytesDown}
	return j
}

// forward runs both directions until they are over and returns how they ended.
// It takes the streams over; the buffers and the slot stay the caller's.
func (j *joint) forward() wire.Code {
	// A goroutine that waits for room in a full buffer does not see its stream
	// end: these calls wake it.
	for _, stop := range []func() bool{
		context.AfterFunc(j.device.session, func() { j.cut(j.device.gone) }),
		context.AfterFunc(j.agent.session, func() { j.cut(j.agent.gone) }),
		j.device.stream.OnStop(j.down.unwanted),
		j.agent.stream.OnStop(j.up.unwanted),
	} {
		defer stop()
	}
	var wait sync.WaitGroup
	wait.Go(j.up.fill)
	wait.Go(j.down.fill)
	wait.Go(j.up.drain)
	j.down.drain()
	wait.Wait()
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.code
}

// fill reads ahead from src until the buffer is full, and so on.
func (d *direction) fill() {
	for {
		p, err := d.buffer.Reserve()
		if err != nil {
			return // the direction was ended
		}
		n, err := d.src.stream.Read(p)
		d.buffer.Commit(n)
		switch {
		case err == nil:
		case err == io.EOF:
			d.buffer.CloseWrite()
			return
		case errors.Is(err, net.ErrClosed):
			return // the reading was stopped here
		default:
			code := codeOf(err, d.src.gone)
			if code == wire.CodeNone {
				code = wire.CodeCancelled // a reset is never an orderly end
			}
			d.joint.cut(code)
			return
		}
	}
}

// batch is how many bytes drain counts by itself before it tells the metric and
// the route's volume.
const batch = 256 << 10

// count tells them, and reports whether the route may forward more.
func (d *direction) count(bytes int) bool {
	d.total.Add(int64(bytes))
	return d.joint.relay.registry.spend(d.joint.slot.group, int64(bytes))
}

// drain writes what the buffer holds to dst.
func (d *direction) drain() {
	count := 0
	defer func() { d.count(count) }()
	for {
		p, err := d.buffer.Next()
		if err == io.EOF {
			d.dst.stream.CloseWrite() // fails only if dst reads no more
			return
		}
		if err != nil {
			return // the direction was ended
		}
		if d.share.Take(len(p)) != nil {
			return // the stream was cut, or dst reads no more
		}
		n, err := d.dst.stream.Write(p)
		d.buffer.Release(n)
		if count += n; count >= batch {
			if !d.count(count) {
				d.joint.cut(wire.CodeVolumeLimit)
			}
			count = 0
		}
		if err != nil {
			d.unwanted(err)
			return
		}
	}
}

// unwanted ends the direction because dst reads no more, and the other one too
// unless dst did so in an orderly way. err is what a Write to dst returned.
func (d *direction) unwanted(err error) {
	if code := codeOf(err, d.dst.gone); code != wire.CodeNone {
		d.joint.cut(code)
		return
	}
	d.src.stream.StopRead()
	d.buffer.Abort(errCut)
	d.share.Leave() // its turn may never come
}

// cut ends both streams with the first code that it is given.
func (j *joint) cut(code wire.Code) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.isCut {
		return
	}
	j.isCut, j.code = true, code
	j.device.stream.Reset(code)
	j.agent.stream.Reset(code)
	j.up.buffer.Abort(errCut)
	j.down.buffer.Abort(errCut)
	j.slot.flow.Leave()
}

// codeOf is the code to pass on for an error of one stream: what its endpoint
// said, if an endpoint may say that, or that the endpoint is gone.
func codeOf(err error, gone wire.Code) wire.Code {
	if reset, ok := errors.AsType[*wire.ResetError](err); ok {
		if reset.Code == wire.CodeNone || reset.Code.FromEndpoint() {
			return reset.Code
		}
		return wire.CodeCancelled
	}
	return gone
}
