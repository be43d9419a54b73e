package viewer

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/origin"
	"github.com/blindrelay/blindrelay/loadtest/result"
)

// web is net/http on both ends of connections in memory, which a bubble can
// hold.
type web struct {
	server *http.Server
	pipes  chan net.Conn // from dial to Accept; unbuffered; nobody closes it
	done   chan struct{} // closed by Close
	once   sync.Once
	open   atomic.Int64 // connections of the client
}

func (w *web) Accept() (net.Conn, error) {
	select {
	case c := <-w.pipes:
		return c, nil
	case <-w.done:
		return nil, net.ErrClosed
	}
}

func (w *web) Close() error   { w.once.Do(func() { close(w.done) }); return nil }
func (w *web) Addr() net.Addr { return &net.TCPAddr{} }

func (w *web) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case w.pipes <- there:
		w.open.Add(1)
		return &counted{Conn: here, open: &w.open}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// counted is a connection that knows when it is closed.
type counted struct {
	net.Conn
	once sync.Once
	open *atomic.Int64
}

func (c *counted) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

// serve returns a client whose requests go to a handler, and what ends both.
func serve(h http.Handler) (*web, *http.Client, func()) {
	w := &web{server: &http.Server{Handler: h}, pipes: make(chan net.Conn), done: make(chan struct{})}
	var wait sync.WaitGroup
	wait.Go(func() { w.server.Serve(w) })
	transport := &http.Transport{DialContext: w.dial}
	return w, &http.Client{Transport: transport}, func() {
		transport.CloseIdleConnections()
		w.server.Close()
		wait.Wait()
	}
}

// watchWeb watches over net/http and checks that all requests ended.
func watchWeb(t *testing.T, cfg Config, h http.Handler, during time.Duration) (*result.Result, *origin.Origin) {
	t.Helper()
	w, client, stop := serve(h)
	defer stop()
	rec := result.NewRecorder()
	cfg.URL, cfg.Client, cfg.Recorder = "http://home"+cfg.Kind.Path(rungRate), client, rec
	v, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := contextFor(during)
	defer cancel()
	v.Run(ctx)
	client.CloseIdleConnections()
	time.Sleep(time.Second)
	if n := w.open.Load(); n != 0 {
		t.Errorf("%s: %d connections are still open", cfg.Kind, n)
	}
	return rec.Result(), cfg.Verify
}

// TestOverHTTP: each kind over net/http leaves no connection open and no
// goroutine running, also when jumps, pauses and the end abort requests.
func TestOverHTTP(t *testing.T) {
	for _, kind := range []Kind{VOD, Live, Seek, Progressive, Music} {
		bubble(t, func(t *testing.T) {
			o := mustOrigin(t, 1)
			r, _ := watchWeb(t, Config{Kind: kind, Bitrate: rungRate, Verify: o, Seed: 2, PauseEvery: 20 * second}, o, 2*time.Minute)
			if v := r.Viewers; v.Started != 1 || v.Stalls != 0 || v.Bytes == 0 || v.Verified != v.Bytes || v.Corrupt != 0 || len(r.Errors) != 0 {
				t.Errorf("%s: %+v, errors %v", kind, v, r.Errors)
			}
		})
	}
}

// TestTruncatedOverHTTP: a connection that ends in a response is an error also
// when nobody knows the content.
func TestTruncatedOverHTTP(t *testing.T) {
	for _, path := range []string{"/vod/master.m3u8", "/vod/200000/media.m3u8", "/vod/200000/1.m4s"} {
		bubble(t, func(t *testing.T) {
			h := once(path, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", "400000")
				w.Write([]byte("#EXTM3U\n#EXT-X-TARGETDURATION:4\n"))
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			})(mustOrigin(t, 1))
			r, _ := watchWeb(t, Config{Kind: VOD}, h, time.Minute)
			if v := r.Viewers; r.Errors["truncated"] != 1 || len(r.Errors) != 1 || v.Stalls != 0 || v.Verified != 0 {
				t.Errorf("%s: %+v, errors %v", path, v, r.Errors)
			}
		})
	}
}

// TestByteRanges: all segments are ranges of one file, as ffmpeg writes with
// -hls_flags single_file.
func TestByteRanges(t *testing.T) {
	const list = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-MAP:URI=\"/film/200000.mp4\",BYTERANGE=\"1000@0\"\n" +
		"#EXTINF:4,\n#EXT-X-BYTERANGE:400000@1000\n/film/200000.mp4\n#EXTINF:4,\n#EXT-X-BYTERANGE:300001\n/film/200000.mp4\n#EXT-X-ENDLIST\n"
	for _, ignored := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			o := mustOrigin(t, 1)
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, ".m3u8") {
					io.WriteString(w, list)
					return
				}
				if ignored {
					r.Header.Del("Range")
				}
				o.ServeHTTP(w, r)
			})
			r, _ := watchWeb(t, Config{Kind: VOD, Verify: o, Retries: 2}, h, time.Minute)
			v := r.Viewers
			if !ignored && (v.Bytes != 701_001 || v.Verified != v.Bytes || v.Corrupt != 0 || v.Watched != 8*second || len(r.Errors) != 0) {
				t.Errorf("%+v, errors %v", v, r.Errors)
			}
			if ignored && (v.Started != 0 || r.Errors["no_range"] != 3) {
				t.Errorf("Range ignored: %+v, errors %v", v, r.Errors)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for _, test := range []struct {
		err  error
		code string
	}{
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, "connection_refused"},
		{&net.OpError{Op: "read", Err: syscall.ECONNRESET}, "connection_lost"},
		{&net.DNSError{Err: "no such host"}, "name"},
		{io.EOF, "connection_lost"},
		{context.DeadlineExceeded, "timeout"},
		{errors.New("x"), "other"},
	} {
		bubble(t, func(t *testing.T) {
			client := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) { return nil, test.err })}
			r := view{viewer: Config{Kind: Live, Client: client}, during: 4500 * ms}.run(t)
			if r.Errors[test.code] != 5 || len(r.Errors) != 1 {
				t.Errorf("errors %v, want five %s", r.Errors, test.code)
			}
		})
	}
}
