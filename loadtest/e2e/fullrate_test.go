//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// silence is how long after the owner's command has returned bytes may still
// come: what the agent had sent before is on its way.
const silence = time.Second

// untold is how long a stream may stand still at a device that did not hear the
// agent's goodbye, which has a second: its session waits for a minute.
const untold = 75 * time.Second

// ratePattern is what endless flows repeat. Its length has no factor in common with
// that of a record, so that a byte at another place is another byte.
var ratePattern = func() []byte {
	b := make([]byte, 1_000_003)
	for i, r := 0, rand.New(rand.NewPCG(1, 2)); i < len(b); i++ {
		b[i] = byte(r.Uint32())
	}
	return b
}()

// rateSource reads the pattern again and again.
type rateSource struct {
	at   int
	stop chan struct{} // closed: there is no more
}

func (e *rateSource) Read(p []byte) (int, error) {
	select {
	case <-e.stop:
		return 0, io.EOF
	default:
	}
	n := copy(p, ratePattern[e.at:])
	e.at = (e.at + n) % len(ratePattern)
	return n, nil
}

// rateFlow is what arrives of an endless pattern at one end.
type rateFlow struct {
	came  atomic.Int64 // bytes
	last  atomic.Int64 // when the latest of them did, in Unix nanoseconds
	wrong atomic.Bool  // not those of the pattern
	ended chan error   // gets the error that ended it, nil for a clean end
}

func newRateFlow() *rateFlow { return &rateFlow{ended: make(chan error, 1)} } // one value, from read

func (f *rateFlow) read(r io.Reader) {
	b := make([]byte, 256<<10)
	for at := 0; ; {
		n, err := r.Read(b)
		for got := b[:n]; len(got) > 0; {
			want := ratePattern[at:min(len(ratePattern), at+len(got))]
			if !bytes.Equal(got[:len(want)], want) {
				f.wrong.Store(true)
			}
			got = got[len(want):]
			at = (at + len(want)) % len(ratePattern)
		}
		f.came.Add(int64(n))
		if n > 0 {
			f.last.Store(time.Now().UnixNano())
		}
		if err == io.EOF {
			err = nil
		}
		if err != nil || n == 0 {
			f.ended <- err
			return
		}
	}
}

func (f *rateFlow) lastAfter(t time.Time) time.Duration {
	return time.Unix(0, f.last.Load()).Sub(t).Round(time.Millisecond)
}

// wantMuch waits until so many bytes have come since now.
func (f *rateFlow) wantMuch(t *testing.T, bytes int64) {
	t.Helper()
	goal := f.came.Load() + bytes
	eventually(t, readyTimeout, fmt.Sprintf("%d bytes come", bytes), func() error {
		if n := f.came.Load(); n < goal {
			return fmt.Errorf("%d are missing", goal-n)
		}
		return nil
	})
}

// wantCut waits until the flow has ended, which it must do with an error: a clean end
// would tell the reader that it has all.
func (f *rateFlow) wantCut(t *testing.T, what string) {
	t.Helper()
	select {
	case err := <-f.ended:
		if err == nil {
			t.Errorf("the %s ended as if it were complete", what)
		}
		t.Logf("the %s ended after %d MiB: %v", what, f.came.Load()>>20, err)
	case <-time.After(untold):
		t.Errorf("the %s has not ended", what)
	}
	if f.wrong.Load() {
		t.Errorf("the %s brought wrong bytes", what)
	}
}

// fullRate is an origin that sends and takes the pattern as fast as it can.
type fullRate struct {
	url     string
	uploads chan *rateFlow // each as it begins; room for all of a test
}

func startFullRate(t *testing.T) *fullRate {
	t.Helper()
	o := &fullRate{uploads: make(chan *rateFlow, 8)}
	mux := http.NewServeMux()
	mux.HandleFunc("/", sayHello)
	mux.HandleFunc("GET /film", func(w http.ResponseWriter, r *http.Request) {
		io.CopyBuffer(struct{ io.Writer }{w}, &rateSource{}, make([]byte, 256<<10))
	})
	mux.HandleFunc("POST /film", func(w http.ResponseWriter, r *http.Request) {
		f := newRateFlow()
		o.uploads <- f
		f.read(r.Body)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	o.url = s.URL
	return o
}

// rateClient makes requests to a device's port.
func rateClient(t *testing.T) *http.Client {
	c := &http.Client{Transport: &http.Transport{WriteBufferSize: 256 << 10}}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// download begins an endless response.
func (o *fullRate) download(t *testing.T, d device) *rateFlow {
	t.Helper()
	res, err := rateClient(t).Get(d.url + "film")
	if err != nil {
		t.Fatal(err)
	}
	f := newRateFlow()
	done := make(chan struct{}) // closed when nothing reads any more
	go func() {
		defer close(done)
		f.read(res.Body)
	}()
	t.Cleanup(func() { res.Body.Close(); <-done })
	return f
}

// upload begins an endless request and returns what arrives at the origin.
func (o *fullRate) upload(t *testing.T, d device) *rateFlow {
	t.Helper()
	e := &rateSource{stop: make(chan struct{})}
	done := make(chan struct{}) // closed when the request is over
	go func() {
		defer close(done)
		res, err := rateClient(t).Post(d.url+"film", "application/octet-stream", struct{ io.Reader }{e})
		if err == nil {
			res.Body.Close()
		}
	}()
	t.Cleanup(func() { close(e.stop); <-done })
	select {
	case f := <-o.uploads:
		return f
	case <-time.After(readyTimeout):
		t.Fatal("the upload has not begun")
		return nil
	}
}

// TestOwnerAtFullRate takes rights away while films run at full rate in both
// directions: from one second after the command has returned not a byte arrives
// at either end, what has arrived is right, nobody who may stay notices, and who
// was shut out is told so whenever he comes back.
func TestOwnerAtFullRate(t *testing.T) {
	for _, c := range []struct {
		name    string
		command []string
		says    string // to who was shut out
		spares  bool   // the other device
	}{
		{"revoke", []string{"devices", "revoke", "tv"}, "revoked", true},
		{"off", []string{"off"}, "remote access", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := startFullRate(t)
			a := share(t, openRelay(t), o.url)
			tv, phone := open(t, a, "--name", "tv"), open(t, a, "--name", "phone")
			down, up, other := o.download(t, tv), o.upload(t, tv), o.download(t, phone)
			for _, f := range []*rateFlow{down, up, other} {
				f.wantMuch(t, 16<<20)
			}

			a.link(t, c.command...).want(t, 0)
			returned := time.Now()
			time.Sleep(time.Until(returned.Add(silence)))
			atClient, atOrigin := down.came.Load(), up.came.Load()
			began := other.came.Load()
			time.Sleep(2 * silence)
			if n, m := down.came.Load()-atClient, up.came.Load()-atOrigin; n > 0 || m > 0 {
				t.Errorf("later than %v after the command returned, %d bytes came to the client and %d to the media server", silence, n, m)
			}
			t.Logf("the last bytes came to the client %v and to the media server %v after the command returned", down.lastAfter(returned), up.lastAfter(returned))
			down.wantCut(t, "download")
			up.wantCut(t, "upload")
			if c.spares {
				other.wantMuch(t, 16<<20)
				if other.wrong.Load() {
					t.Error("the other device got wrong bytes")
				}
				t.Logf("meanwhile the other device got %d MiB", (other.came.Load()-began)>>20)
				wantNoPage(t, tv, c.says)
			} else {
				other.wantCut(t, "other device's download")
			}
			tv.stop(t)
			again := startDevice(t, tv.state)
			if c.spares {
				again.wantExit(t, readyTimeout, 1)
			}
			again.wantSaid(t, c.says)
			if out := again.stdout.String(); out != "" {
				t.Errorf("a device that was shut out prints %q", out)
			}
		})
	}
}
