package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// ops is the operator's HTTP server: /status, /metrics, /healthz, /readyz.
type ops struct {
	ready  atomic.Bool // /readyz
	server http.Server
	wait   sync.WaitGroup
}

// listenOps serves until close. It is not ready at first.
func listenOps(addr string, metrics prometheus.Gatherer, log *slog.Logger) (*ops, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for --ops: %w: choose another address, or --ops \"\" for none", err)
	}
	o := &ops{}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	mux.HandleFunc("GET /status", statusPage(metrics, o.ready.Load))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !o.ready.Load() {
			http.Error(w, "not listening, or being emptied", http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "ok\n")
	})
	o.server = http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          stdlog.New(io.Discard, "", 0), // its lines name addresses
	}
	o.wait.Go(func() {
		if err := o.server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics and health are no longer served", "err", err)
		}
	})
	return o, nil
}

// close ends the server after the requests that run, within half a second.
func (o *ops) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if o.server.Shutdown(ctx) != nil {
		o.server.Close()
	}
	o.wait.Wait()
}

// newRegistry returns a registry with the metrics of the process itself.
func newRegistry() *prometheus.Registry {
	version, revision := build()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "blindrelay_build_info", Help: "What runs here; the value is always 1.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision, "goversion": runtime.Version()},
	})
	info.Set(1)
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		info,
	)
	return r
}
