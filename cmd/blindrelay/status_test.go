package main

import (
	"fmt"
	"github.com/blindrelay/blindrelay/transport/wire"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/blindrelay/blindrelay/relay"
	"github.com/prometheus/client_golang/prometheus"
)

// TestStatusPage reads the page as a person would, with a metric whose name for
// a value is not to be trusted.
func TestStatusPage(t *testing.T) {
	r, err := relay.New(relay.Config{BufferMemory: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	reg := newRegistry()
	reg.MustRegister(r.Collectors()...)
	odd := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "blindrelay_odd_bytes_total", Help: "<b>Odd</b>."}, []string{"code"})
	odd.WithLabelValues("<script>").Add(3 << 20)
	odd.WithLabelValues("plain").Add(512)
	for _, zero := range []string{"a", "b"} {
		odd.WithLabelValues(zero)
	}
	reg.MustRegister(odd)
	o, err := listenOps("127.0.0.1:0", reg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	get := func() (http.Header, string) {
		w := httptest.NewRecorder()
		o.server.Handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/status", nil))
		if w.Code != http.StatusOK {
			t.Errorf("status %d", w.Code)
		}
		return w.Header(), w.Body.String()
	}
	header, page := get()
	if !strings.HasPrefix(header.Get("Content-Security-Policy"), "default-src 'none'; style-src 'unsafe-inline';") {
		t.Errorf("the page may load what it likes: %q", header.Get("Content-Security-Policy"))
	}
	if m := regexp.MustCompile(`(?i)<script|<link|<img|<b>|src=|https?:`).FindString(page); m != "" {
		t.Errorf("the page holds %q", m)
	}
	for _, want := range []string{
		"This relay does not listen.", "&lt;b&gt;Odd&lt;/b&gt;. 2 values are 0.", "code &lt;script&gt; 3.0 MiB<br>code plain 512 B",
		"blindrelay_streams_refused_total", fmt.Sprintf("by code. %d values are 0.", len(wire.Codes())+1), "<dt>agents</dt><dd>0</dd>", "role agent 0<br>role device 0", "buffer_memory_bytes</code>",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	o.ready.Store(true)
	if _, page = get(); !strings.Contains(page, "This relay takes endpoints.") {
		t.Error("the page does not say that the relay is ready")
	}
	r.Drain(t.Context(), 0)
	if _, page = get(); !strings.Contains(page, "is being emptied") {
		t.Error("the page does not say that the relay is being emptied")
	}
	if t.Failed() {
		t.Log(page)
	}
}
