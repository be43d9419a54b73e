// Package probe reads what processes take while a load test runs: a relay by
// its ops address or its process number, and the load test itself.
//
//	p := probe.Ops("http://127.0.0.1:9464/metrics")
//	u, err := p.Usage(ctx)
package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/result"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Probe reads what a process takes. CPU is the total since its start.
type Probe interface {
	Usage(ctx context.Context) (result.Usage, error)
}

// Process is a process of this machine by its number. It knows CPU time and
// resident memory, on Linux.
type Process int

// Usage reads /proc/PID/stat (proc(5)).
func (p Process) Usage(context.Context) (result.Usage, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", int(p)))
	if err != nil {
		return result.Usage{}, fmt.Errorf("process %d: %w", int(p), err)
	}
	return parseStat(string(b))
}

// ticks is the kernel's USER_HZ, 100 on every architecture that Go supports.
const ticks = 100

func parseStat(s string) (result.Usage, error) {
	// The second field is the command in parentheses, which may hold anything.
	end := strings.LastIndexByte(s, ')')
	if end < 0 {
		return result.Usage{}, errors.New("process statistics: no command")
	}
	f := strings.Fields(s[end+1:])
	if len(f) < 22 {
		return result.Usage{}, errors.New("process statistics: too short")
	}
	var v [3]int64
	for i, field := range []int{11, 12, 21} { // utime, stime, rss
		n, err := strconv.ParseInt(f[field], 10, 64)
		if err != nil {
			return result.Usage{}, fmt.Errorf("process statistics: %w", err)
		}
		v[i] = n
	}
	return result.Usage{
		CPU:    time.Duration(v[0]+v[1]) * (time.Second / ticks),
		Memory: v[2] * int64(os.Getpagesize()),
	}, nil
}

// Self is this process.
type Self struct{}

// Usage reads this process's statistics; its memory and CPU are zero where
// there is no /proc.
func (Self) Usage(ctx context.Context) (result.Usage, error) {
	u, err := Process(os.Getpid()).Usage(ctx)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	u.Goroutines = int64(runtime.NumGoroutine())
	return u, err
}

// Ops is the URL of a relay's metrics.
type Ops string

// maxMetrics bounds what is read of an answer, in bytes.
const maxMetrics = 8 << 20

// Usage fetches and reads the metrics, within ctx.
func (o Ops) Usage(ctx context.Context) (result.Usage, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, string(o), nil)
	if err != nil {
		return result.Usage{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return result.Usage{}, fmt.Errorf("relay metrics: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return result.Usage{}, fmt.Errorf("relay metrics: %s answered %s", o, resp.Status)
	}
	return parseMetrics(io.LimitReader(resp.Body, maxMetrics))
}

func parseMetrics(r io.Reader) (result.Usage, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(r)
	if err != nil {
		return result.Usage{}, fmt.Errorf("relay metrics: %w", err)
	}
	if families["blindrelay_streams"] == nil {
		return result.Usage{}, errors.New("relay metrics: there is no blindrelay_streams: is this a relay's ops address?")
	}
	return result.Usage{
		CPU:        time.Duration(sum(families["process_cpu_seconds_total"]) * float64(time.Second)),
		Memory:     int64(sum(families["process_resident_memory_bytes"])),
		Goroutines: int64(sum(families["go_goroutines"])),
		Buffered:   int64(sum(families["blindrelay_buffer_used_bytes"])),
		Streams:    int64(sum(families["blindrelay_streams"])),
		Packets:    int64(sum(families["blindrelay_packets_total"])),
	}, nil
}

// sum adds all series of a family; 0 for none.
func sum(f *dto.MetricFamily) float64 {
	var total float64
	for _, m := range f.GetMetric() {
		total += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
	}
	return total
}
