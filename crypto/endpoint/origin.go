package endpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// Limits of requests. There is none on how long a response or an upload may
// take: it lives as long as both sides hold on to it.
const (
	// headerTime is how long a device may take to send a request's header.
	headerTime = 30 * time.Second
	// callerIdle is how long a connection waits for the device's next request.
	callerIdle = 2 * time.Minute
	// originHeaderTime is how long the media server may take before the first
	// byte of an answer. It is long: servers start transcoders and hold
	// requests back until there is news.
	originHeaderTime = 5 * time.Minute
	// originIdle is below the 5 s after which some servers close an idle
	// connection, just when a request that cannot be repeated uses it.
	originIdle = 4 * time.Second
	// continueTime is how long an upload that asks first waits for the media
	// server's word before it starts anyway.
	continueTime  = 2 * time.Second
	maxHeader     = 256 << 10 // bytes of a request's or response's header
	maxOriginIdle = 32        // connections
)

// HTTPOrigin is a reverse proxy to a media server for the devices of an Agent.
//
// The media server sees each device under an address of its own out of
// 100.64.0.0/10 in X-Forwarded-For, with X-Forwarded-Proto and -Host as the
// device's browser sees them; what a device says in such headers is dropped.
// Behind an http target, Host is what the device's browser sent, because media
// servers build links from it. Behind an https target, Host is the target's, the
// name that its certificate and its virtual host have.
//
// A media server that does not answer is a 502 or 504 with one sentence. A
// response that breaks off at the media server is an aborted connection at the
// device, whatever its framing. Nothing that is logged names a request.
type HTTPOrigin struct {
	target    *url.URL
	transport *http.Transport
	proxy     *httputil.ReverseProxy
	health    health
}

// NewHTTPOrigin returns a proxy to target: http or https, a host, and perhaps a
// path under which the media server is. An https target needs a certificate
// that the machine trusts. log may be nil.
func NewHTTPOrigin(target *url.URL, log *slog.Logger) (*HTTPOrigin, error) {
	if err := checkTarget(target); err != nil {
		return nil, err
	}
	clone := *target
	o := &HTTPOrigin{
		target: &clone,
		transport: &http.Transport{ // Proxy is nil: home is never behind one
			DialContext:            (&net.Dialer{Timeout: originDial}).DialContext,
			TLSHandshakeTimeout:    originDial,
			DisableCompression:     true,
			MaxIdleConns:           maxOriginIdle,
			MaxIdleConnsPerHost:    maxOriginIdle,
			IdleConnTimeout:        originIdle,
			ResponseHeaderTimeout:  originHeaderTime,
			ExpectContinueTimeout:  continueTime,
			MaxResponseHeaderBytes: maxHeader,
			WriteBufferSize:        copyLen, // of uploads
		},
		health: health{log: logOr(log), origin: target.Host},
	}
	o.proxy = &httputil.ReverseProxy{
		Rewrite:       o.rewrite,
		Transport:     o.transport,
		FlushInterval: -1,
		ErrorLog:      discardLog(), // its lines may quote what the media server sent
		BufferPool:    newCopyPool(),
		ModifyResponse: func(*http.Response) error {
			o.health.answers()
			return nil
		},
		ErrorHandler: o.failed,
	}
	return o, nil
}

func checkTarget(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%q is not a media server's address: it begins with http:// or https://", u.Redacted())
	case u.Hostname() == "":
		return fmt.Errorf("%q has no host: write for example http://127.0.0.1:8096", u.Redacted())
	case u.User != nil, u.RawQuery != "", u.Fragment != "":
		return fmt.Errorf("%q has more than scheme, host, port and path", u.Redacted())
	}
	return nil
}

// Serve answers the requests of the devices whose connections l accepts: those
// of an Agent. It returns nil after ctx has ended or l was closed, when nothing
// of it runs any more; responses that were still going are aborted. It closes l.
func (o *HTTPOrigin) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer onEnd(ctx, func() { l.Close() })()
	defer cancel()
	callers := newCallers()
	srv := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { o.serve(w, r, callers) }),
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       callerIdle,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(o.health.log.Handler(), slog.LevelError),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withCaller,
		ConnState:         callers.state,
	}
	err := srv.Serve(l)
	ended := ctx.Err() != nil || errors.Is(err, net.ErrClosed)
	cancel()
	callers.abort()
	o.transport.CloseIdleConnections()
	if ended {
		return nil
	}
	return fmt.Errorf("serve devices: %w", err)
}

// caller is the connection that a request came on.
type caller struct {
	conn    sealed
	address string
}

type callerKey struct{}

// withCaller leaves the context alone if c is not a device's connection.
func withCaller(ctx context.Context, c net.Conn) context.Context {
	conn, ok := c.(interface {
		sealed
		Peer() e2e.Pin
	})
	if !ok {
		return ctx
	}
	return context.WithValue(ctx, callerKey{}, caller{conn, deviceAddress(conn.Peer()).String()})
}

// serve answers one request. If it does not come to a proper end, neither must
// the connection: a response without a length ends with it.
func (o *HTTPOrigin) serve(w http.ResponseWriter, r *http.Request, callers *callers) {
	who, ok := r.Context().Value(callerKey{}).(caller)
	if !ok {
		panic(http.ErrAbortHandler) // nobody knows whose connection this is
	}
	finished := false
	u := &upgradable{ResponseWriter: w}
	defer func() {
		if u.conn != nil {
			callers.remove(who.conn)
		}
		if finished {
			return
		}
		if r.Context().Err() == nil {
			o.health.log.Warn("the media server broke off a response")
		}
		who.conn.Reset(wire.CodeCancelled)
	}()
	o.proxy.ServeHTTP(u, r)
	finished = true
}

func (o *HTTPOrigin) rewrite(r *httputil.ProxyRequest) {
	who := r.In.Context().Value(callerKey{}).(caller)
	r.Out.URL.Opaque = "" // of "GET a:b HTTP/1.1": it would be sent as it is, in place of the path
	r.SetURL(o.target)
	r.Out.URL.RawQuery = r.In.URL.RawQuery // byte for byte, also what Go cannot parse
	if strings.Contains(strings.ToLower(r.Out.Header.Get("Upgrade")), "h2c") {
		// Inside it the device would write the headers below by itself.
		r.Out.Header.Del("Upgrade")
		r.Out.Header.Del("Connection")
	}
	if o.target.Scheme == "http" {
		r.Out.Host = r.In.Host
	}
	stripForwarded(r.Out.Header)
	r.Out.Header.Set("X-Forwarded-For", who.address)
	r.Out.Header.Set("X-Forwarded-Proto", "http")
	if r.In.Host != "" {
		r.Out.Header.Set("X-Forwarded-Host", r.In.Host)
	}
}

// failed answers a request that the media server did not.
func (o *HTTPOrigin) failed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // the device has gone
	}
	status, text, kind := failure(err)
	o.health.fail(kind)
	http.Error(w, text, status)
}

// failure returns what the device is told of an error, and what may be logged:
// nothing that the media server sent.
func failure(err error) (status int, text string, kind error) {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return http.StatusBadGateway, "The media server at home does not answer: it is not running, or not where blindlink looks for it.", op
	}
	if t, ok := errors.AsType[net.Error](err); ok && t.Timeout() {
		return http.StatusGatewayTimeout, "The media server at home did not answer in time.", os.ErrDeadlineExceeded
	}
	if strings.Contains(err.Error(), "x509: ") || strings.Contains(err.Error(), "tls: ") {
		return http.StatusBadGateway, "The agent at home cannot verify the media server's certificate.", err
	}
	return http.StatusBadGateway, "The media server at home broke off before it answered.", errors.New("its answer was cut off or is not HTTP")
}

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }

// copyPool lends the buffers that responses pass through.
type copyPool struct{ pool sync.Pool }

func newCopyPool() *copyPool {
	return &copyPool{sync.Pool{New: func() any { return new([copyLen]byte) }}}
}

func (p *copyPool) Get() []byte  { return p.pool.Get().(*[copyLen]byte)[:] }
func (p *copyPool) Put(b []byte) { p.pool.Put((*[copyLen]byte)(b)) }
