package viewer

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/origin"
	"github.com/blindrelay/blindrelay/loadtest/result"
)

// reading returns a viewer in the middle of a progressive response, and the
// response.
func reading(t testing.TB, body io.Reader) (*Viewer, *response) {
	t.Helper()
	o, err := origin.New(origin.Config{Bitrates: []int64{8_000_000}, Length: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	v, err := New(Config{Kind: VOD, URL: "http://home/film/8000000.mp4", Verify: o, Client: http.DefaultClient, Recorder: result.NewRecorder()})
	if err != nil {
		t.Fatal(err)
	}
	v.buf = make([]byte, chunk)
	ctx, cancel := context.WithCancelCause(context.Background())
	r := &response{Response: &http.Response{Body: io.NopCloser(body)}, ctx: ctx, cancel: cancel, sent: time.Now()}
	r.timer = time.AfterFunc(time.Hour, func() {})
	t.Cleanup(r.close)
	return v, r
}

// TestReadAllocatesNothing reads and verifies a megabyte at a time.
func TestReadAllocatesNothing(t *testing.T) {
	film := make([]byte, 1<<20)
	v, r := reading(t, nil)
	content, _ := v.cfg.Verify.Content(v.base.Path)
	content.ReadAt(film, 0)
	body := bytes.NewReader(film)
	r.Body = io.NopCloser(body)
	took := func(int) error { return nil }
	allocs := testing.AllocsPerRun(50, func() {
		body.Reset(film)
		if n, err := v.read(r, v.base, 0, int64(len(film)), took); n != int64(len(film)) || err != nil {
			t.Fatal(n, err)
		}
	})
	// Content takes the path apart, once a response and not once a chunk.
	if allocs > 3 {
		t.Errorf("%g allocations in %d chunks", allocs, len(film)/chunk)
	}
	if v.counts.corrupt != 0 || v.counts.verified < 50<<20 {
		t.Errorf("%+v", v.counts)
	}
}

// BenchmarkSegment is a viewer's own cost of a 4 s segment of 8 Mbit/s: request,
// reading, verifying and accounting, without a network. The metric viewers is
// how many a core could play in real time.
func BenchmarkSegment(b *testing.B) {
	for _, verify := range []bool{true, false} {
		name := "unverified"
		if verify {
			name = "verified"
		}
		b.Run(name, func(b *testing.B) {
			o, err := origin.New(origin.Config{Bitrates: []int64{8_000_000}, Spread: -1})
			if err != nil {
				b.Fatal(err)
			}
			content, _ := o.Content("/vod/8000000/0.m4s")
			film := make([]byte, content.Size)
			content.ReadAt(film, 0)
			client := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 200, Request: r, ContentLength: int64(len(film)), Body: io.NopCloser(onlyReader{bytes.NewReader(film)})}, nil
			})}
			cfg := Config{Kind: VOD, URL: "http://home/vod/8000000/0.m4s", Client: client, Recorder: result.NewRecorder()}
			if verify {
				cfg.Verify = o
			}
			v, err := New(cfg)
			if err != nil {
				b.Fatal(err)
			}
			v.buf = make([]byte, chunk)
			l := &ladder{variants: []variant{{average: 8_000_000}}, rungs: []rung{{url: v.base}}}
			s := segment{piece: piece{uri: "0.m4s"}, length: 4 * second}
			b.SetBytes(content.Size)
			for b.Loop() {
				if err := v.segment(context.Background(), l, s, time.Time{}, func(int, int64) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
			if v.counts.corrupt != 0 {
				b.Fatal("corrupt")
			}
			b.ReportMetric(4*float64(b.N)/b.Elapsed().Seconds(), "viewers")
		})
	}
}

// onlyReader hides other methods.
type onlyReader struct{ io.Reader }

func TestResolve(t *testing.T) {
	base := &url.URL{Scheme: "http", Host: "home:80", Path: "/a/b.m3u8"}
	for uri, want := range map[string]string{
		"c.ts":               "http://home:80/a/c.ts",
		"/c.ts?x=1":          "http://home:80/c.ts?x=1",
		"../c.ts":            "http://home:80/c.ts",
		"http://home:80/c":   "http://home:80/c",
		"//home:80/c":        "http://home:80/c",
		"http://home/c":      "",
		"https://home:80/c":  "",
		"//elsewhere/c":      "",
		"file:///etc/passwd": "",
		"%zz":                "",
	} {
		u, err := resolve(base, uri)
		if (err == nil) != (want != "") || err == nil && u.String() != want {
			t.Errorf("%s: %v, %v", uri, u, err)
		}
	}
}
