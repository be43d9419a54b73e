package main

import (
	"context"
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/relay"
	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestByteSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "65536": 65536, "64K": 64 << 10, "64k": 64 << 10, "256M": 256 << 20, "256MiB": 256 << 20, "2g": 2 << 30, "1T": 1 << 40, "1kb": 1 << 10,
	} {
		var b byteSize
		if err := b.UnmarshalText([]byte(text)); err != nil || int64(b) != want {
			t.Errorf("%q is %d and %v, want %d", text, b, err, want)
		}
	}
	for _, text := range []string{"", "M", "-1", "1.5G", "9223372036854775807K", "1MM", "1 M", "0x10", "ten"} {
		var b byteSize
		if err := b.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken as %d", text, b)
		}
	}
}

func TestMachineMemory(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	meminfo := file("MemFree:  1 kB\nMemTotal:       8388608 kB\n")
	for name, tc := range map[string]struct {
		root fstest.MapFS
		want int64
	}{
		"nothing known": {fstest.MapFS{}, 0},
		"no group":      {fstest.MapFS{"proc/meminfo": meminfo}, 8 << 30},
		"no limit": {fstest.MapFS{"proc/meminfo": meminfo, "proc/self/cgroup": file("0::/a\n"),
			"sys/fs/cgroup/a/memory.max": file("max\n")}, 8 << 30},
		"own limit": {fstest.MapFS{"proc/meminfo": meminfo, "proc/self/cgroup": file("1:cpu:/x\n0::/a/b\n"),
			"sys/fs/cgroup/a/b/memory.max": file("1073741824\n"), "sys/fs/cgroup/a/memory.max": file("max\n")}, 1 << 30},
		"limit above": {fstest.MapFS{"proc/meminfo": meminfo, "proc/self/cgroup": file("0::/a/b\n"),
			"sys/fs/cgroup/a/b/memory.max": file("max\n"), "sys/fs/cgroup/a/memory.max": file("2147483648\n")}, 2 << 30},
		"in a container": {fstest.MapFS{"proc/meminfo": meminfo, "proc/self/cgroup": file("0::/\n"),
			"sys/fs/cgroup/memory.max": file("536870912\n")}, 512 << 20},
		"limit above the machine": {fstest.MapFS{"proc/meminfo": meminfo, "proc/self/cgroup": file("0::/\n"),
			"sys/fs/cgroup/memory.max": file("99999999999999\n")}, 8 << 30},
	} {
		if got := machineMemory(tc.root); got != tc.want {
			t.Errorf("%s: %d bytes, want %d", name, got, tc.want)
		}
	}
}

func TestPublicHostPort(t *testing.T) {
	none, named := &x509.Certificate{}, &x509.Certificate{DNSNames: []string{"*.example.org", "relay.example.org"}}
	for _, tc := range []struct {
		listen string
		cert   *x509.Certificate
		want   string
	}{
		{"127.0.0.1:0", none, "127.0.0.1:77"}, {"localhost:5", named, "localhost:77"}, {"[::1]:5", none, "[::1]:77"},
		{":5", named, "relay.example.org:77"}, {"0.0.0.0:5", named, "relay.example.org:77"}, {"[::]:5", named, "relay.example.org:77"},
	} {
		if got := publicHostPort(tc.listen, 77, tc.cert); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.listen, got, tc.want)
		}
	}
	for _, listen := range []string{":5", "0.0.0.0:5"} {
		got := publicHostPort(listen, 77, none)
		if host, ok := strings.CutSuffix(got, ":77"); !ok || host == "" || host == "0.0.0.0" || host == "[::]" {
			t.Errorf("%s: %s is of no use to anyone", listen, got)
		}
	}
}

func TestDefaultStateDir(t *testing.T) {
	for _, tc := range []struct{ state, xdg, want string }{
		{"/var/lib/blindrelay", "/x", "/var/lib/blindrelay"},
		{"/a:/b", "", "/a"},
		{"", "/x", "/x/blindrelay"},
		{"", "relative", "/home/u/.local/state/blindrelay"},
		{"", "", "/home/u/.local/state/blindrelay"},
	} {
		t.Setenv("HOME", "/home/u")
		env := map[string]string{"STATE_DIRECTORY": tc.state, "XDG_STATE_HOME": tc.xdg}
		if got := defaultStateDir(func(k string) string { return env[k] }); got != tc.want {
			t.Errorf("%+v: %s", tc, got)
		}
	}
}

// TestMetrics checks every metric as promtool would, and that each exists
// before anything has happened.
func TestMetrics(t *testing.T) {
	r, err := relay.New(relay.Config{BufferMemory: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	reg := newRegistry()
	reg.MustRegister(r.Collectors()...)
	reg.MustRegister(handshakeCollectors(handshakeLimits{}.count())...)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	codes := len(wire.Codes()) + 1 // and other
	for name, want := range map[string]int{
		"blindrelay_build_info": 1, "blindrelay_agents": 1, "blindrelay_sessions": 2, "blindrelay_streams": 1,
		"blindrelay_sessions_ended_total": codes, "blindrelay_streams_refused_total": codes, "blindrelay_streams_ended_total": codes,
		"blindrelay_draining": 1, "blindrelay_measurements_total": 2, "blindrelay_measured_bytes_total": 2, "blindrelay_measurements_refused_total": 6,
		"blindrelay_handshakes_failed_total": 4, "blindrelay_handshakes": 1, "blindrelay_retries_total": 1, "blindrelay_forwarded_bytes_total": 2, "go_goroutines": 1, "process_open_fds": 1,
	} {
		if n, err := testutil.GatherAndCount(reg, name); err != nil || n != want {
			t.Errorf("%s has %d values and %v, want %d", name, n, err, want)
		}
	}
}

func TestOpsIsNotReadyAtFirst(t *testing.T) {
	o, err := listenOps("127.0.0.1:0", newRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	get := func(path string) int {
		w := httptest.NewRecorder()
		o.server.Handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		io.Copy(io.Discard, w.Body)
		return w.Code
	}
	if ready, healthy := get("/readyz"), get("/healthz"); ready != 503 || healthy != 200 {
		t.Errorf("readyz %d, healthz %d", ready, healthy)
	}
	o.ready.Store(true)
	if ready := get("/readyz"); ready != 200 {
		t.Errorf("readyz %d", ready)
	}
}

// TestTidy watches the collector's setting as a relay turns busy and idle.
func TestTidy(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	t.Setenv("GOGC", "")
	percent := func() int { // reading it sets it
		p := debug.SetGCPercent(100)
		debug.SetGCPercent(p)
		return p
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var forwarded atomic.Int64
		var wait sync.WaitGroup
		wait.Go(func() { tidy(ctx, forwarded.Load) })
		want := func(after time.Duration, n int) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if p := percent(); p != n {
				t.Errorf("the collector is at %d %%, want %d", p, n)
			}
		}
		want(5*time.Second, idleGC)
		forwarded.Add(2 * busyRate)
		want(time.Second, busyGC)
		want(idleAfter/2, busyGC)
		want(idleAfter, idleGC)
		forwarded.Add(2 * busyRate)
		want(time.Second, busyGC)
		cancel()
		wait.Wait()
	})
}
