package endpoint

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

const (
	// maxForwards is how many streams ServeTCP forwards at a time. Each takes
	// two buffers of copyLen and a connection of the origin.
	maxForwards = 1024
	// originDial is how long connecting to the media server may take.
	originDial = 5 * time.Second
)

// ServeTCP forwards every connection that l accepts from devices, as an
// Agent's listener does, to the TCP service at addr (host:port). Each half ends
// on its own, and an abort on one side is an abort on the other. A service that
// cannot be reached aborts the device's connection and is logged once. At most
// 1,024 connections are forwarded at a time. log may be nil.
//
// ServeTCP returns nil after ctx has ended or l was closed, when nothing of it
// runs any more. It closes l.
func ServeTCP(ctx context.Context, l net.Listener, addr string, log *slog.Logger) error {
	f := tcpForward{addr: addr, health: health{log: logOr(log), origin: addr}}
	return acceptor{maxForwards, f.health.log, f.serve}.run(ctx, l)
}

type tcpForward struct {
	addr   string
	health health
}

func (f *tcpForward) serve(ctx context.Context, c net.Conn) {
	device, ok := c.(sealed)
	if !ok {
		abortPlain(c)
		return
	}
	d := net.Dialer{Timeout: originDial}
	origin, err := d.DialContext(ctx, "tcp", f.addr)
	if err != nil {
		if ctx.Err() == nil {
			f.health.fail(err)
		}
		device.Reset(wire.CodeCancelled)
		return
	}
	f.health.answers()
	s := splice{plain: origin.(*net.TCPConn), sealed: device}
	if err := s.run(ctx); err != nil {
		f.health.log.Debug("a forwarded connection was aborted", "reason", err)
	}
}

// health logs when the media server stops answering and when it is back, once
// each.
type health struct {
	log    *slog.Logger
	origin string
	down   atomic.Bool
}

func (h *health) fail(err error) {
	if !h.down.Swap(true) {
		h.log.Warn("the media server does not answer; is it running, and is the address right?", "server", h.origin, "error", err)
	}
}

func (h *health) answers() {
	if h.down.Load() && h.down.Swap(false) {
		h.log.Info("the media server answers again", "server", h.origin)
	}
}
