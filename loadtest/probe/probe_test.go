package probe

import (
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const stat = "42 (a (nasty) name 1 2 3) S 1 42 42 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 100 123456 " +
		"1000 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0\n"
	u, err := parseStat(stat)
	if err != nil || u.CPU != 2*time.Second || u.Memory != 1000*int64(os.Getpagesize()) {
		t.Errorf("%+v, %v; want 2 s and 1000 pages", u, err)
	}
	for _, bad := range []string{"", "42", "42 (x) S 1 2", strings.Replace(stat, " 150 ", " x ", 1)} {
		if u, err := parseStat(bad); err == nil {
			t.Errorf("%q is %+v", bad, u)
		}
	}
}

func TestSelf(t *testing.T) {
	u, err := Self{}.Usage(t.Context())
	if err != nil || u.Goroutines == 0 {
		t.Errorf("%+v, %v", u, err)
	}
	if runtime.GOOS == "linux" && u.Memory < 1<<20 {
		t.Errorf("this process has %d bytes", u.Memory)
	}
	if _, err := Process(1 << 30).Usage(t.Context()); err == nil {
		t.Error("a process that is not there has a usage")
	}
}

func TestOps(t *testing.T) {
	const metrics = `# TYPE blindrelay_streams gauge
blindrelay_streams 7
# TYPE blindrelay_buffer_used_bytes gauge
blindrelay_buffer_used_bytes 1.5e+06
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 12.5
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 4e+07
# TYPE go_goroutines gauge
go_goroutines 99
# TYPE blindrelay_packets_total counter
blindrelay_packets_total{direction="in"} 10
blindrelay_packets_total{direction="out"} 20
`
	body, status := metrics, http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		w.Write([]byte(body))
	}))
	defer server.Close()
	u, err := Ops(server.URL).Usage(t.Context())
	if err != nil || u.Streams != 7 || u.Buffered != 1_500_000 || u.CPU != 12500*time.Millisecond || u.Memory != 40_000_000 || u.Goroutines != 99 || u.Packets != 30 {
		t.Errorf("%+v, %v", u, err)
	}
	for name, set := range map[string]func(){
		"another service": func() { body = "# TYPE up gauge\nup 1\n" },
		"not metrics":     func() { body = "<html>" },
		"an error":        func() { body, status = metrics, http.StatusServiceUnavailable },
	} {
		body, status = metrics, http.StatusOK
		set()
		if u, err := Ops(server.URL).Usage(t.Context()); err == nil {
			t.Errorf("%s: %+v", name, u)
		}
	}
}
