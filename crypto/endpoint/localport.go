package endpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
)

const (
	// maxLocal is how many connections a local port serves at a time: fewer than
	// the 128 streams that an agent allows a device, so that further ones wait
	// instead of being refused.
	maxLocal = 120
	// complainEvery is how often a refused stream is worth a line of the log.
	complainEvery = time.Minute
	// announceAfter is how long a new stream waits for the local program's
	// first bytes to travel with. Some services speak first.
	announceAfter = 20 * time.Millisecond
	// firstBytes is how long a local program that cannot be served has to show
	// that it speaks HTTP.
	firstBytes = time.Second
)

// ServeLocal joins every TCP connection that ln accepts to a connection to the
// media server of its own, which dial makes: (*Dialer).DialContext without its
// network and address. Each half ends on its own; whatever cuts a stream short
// is an abort (RST) to the local program, never an end. If dial fails, a
// program that speaks HTTP is answered 502, or 504 if dial ran out of time,
// with the reason in one line; others are aborted.
//
// Who can connect to ln is the device: ln should listen on a loopback address.
// At most 120 connections are served at a time, further ones wait. log may be
// nil. ServeLocal returns nil after ctx has ended or ln was closed, when
// nothing of it runs any more. It closes ln.
func ServeLocal(ctx context.Context, ln net.Listener, dial func(context.Context) (net.Conn, error), log *slog.Logger) error {
	p := &localPort{dial: dial, log: logOr(log)}
	return acceptor{maxLocal, p.log, p.serve}.run(ctx, ln)
}

type localPort struct {
	dial func(context.Context) (net.Conn, error)
	log  *slog.Logger

	mu   sync.Mutex
	said time.Time // when complain last did
}

// complain tells the user, once a minute, that the relay or the server refuses
// streams, or that somebody tampers with them: the local program sees an abort
// and no reason.
func (p *localPort) complain(err error) {
	if _, refused := hints[codeOf(err)]; !refused && !errors.Is(err, e2e.ErrTampered) {
		p.log.Debug("a local connection was aborted", "reason", err)
		return
	}
	p.mu.Lock()
	quiet := time.Since(p.said) < complainEvery
	if !quiet {
		p.said = time.Now()
	}
	p.mu.Unlock()
	if !quiet {
		p.log.Warn("a connection of a local program was cut", "reason", explain(err))
	}
}

func (p *localPort) serve(ctx context.Context, c net.Conn) {
	local, ok := c.(plain)
	if !ok {
		p.log.Error("the local port is not TCP")
		c.Close()
		return
	}
	server, err := p.open(ctx)
	if err != nil {
		p.log.Debug("a local connection could not be served", "reason", err)
		explainTo(ctx, local, err)
		return
	}
	// A Write of nothing tells the agent of the stream, and does nothing once
	// bytes have gone.
	announced := make(chan struct{}) // closed after the Write
	announce := time.AfterFunc(announceAfter, func() {
		defer close(announced)
		server.Write(nil)
	})
	defer func() {
		if !announce.Stop() {
			<-announced
		}
	}()
	s := splice{plain: local, sealed: server, local: true}
	if err := s.run(ctx); err != nil {
		p.complain(err)
	}
}

func (p *localPort) open(ctx context.Context) (sealed, error) {
	c, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	s, ok := c.(sealed)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("a %T is not a sealed connection", c)
	}
	return s, nil
}

// explainTo answers a local program that cannot be served, with a page if it
// speaks HTTP, and closes its connection.
func explainTo(ctx context.Context, c plain, why error) {
	defer onEnd(ctx, func() { abortPlain(c) })()
	c.SetDeadline(time.Now().Add(firstBytes))
	b := make([]byte, 4096)
	n, _ := c.Read(b)
	method := httpMethod(b[:n])
	if method == "" {
		abortPlain(c)
		return
	}
	if _, err := c.Write(errorPage(method, why)); err != nil || c.CloseWrite() != nil {
		abortPlain(c)
		return
	}
	// What is left unread at the close would abort the page on its way.
	c.SetDeadline(time.Now().Add(lingerTime))
	io.Copy(io.Discard, io.LimitReader(c, 1<<20))
	c.Close()
}

// httpMethod returns the method if b begins as an HTTP/1 request does, else "".
func httpMethod(b []byte) string {
	i := bytes.IndexByte(b, ' ')
	if i < 3 || i > 16 || len(b) < i+2 || b[i+1] != '/' && b[i+1] != '*' {
		return ""
	}
	if method := string(b[:i]); strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "" {
		return method
	}
	return ""
}

func errorPage(method string, why error) []byte {
	status := http.StatusBadGateway
	if errors.Is(why, context.DeadlineExceeded) || errors.Is(why, os.ErrDeadlineExceeded) {
		status = http.StatusGatewayTimeout
	}
	text := "blindlink cannot reach the media server: " + strings.ToValidUTF8(why.Error(), "?") + "\n"
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n", status, http.StatusText(status), len(text))
	b.WriteString("X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nRetry-After: 5\r\nConnection: close\r\n\r\n")
	if method != http.MethodHead {
		b.WriteString(text)
	}
	return b.Bytes()
}
