package result

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func sampleResult() *Result {
	rec := NewRecorder()
	rec.Hist(HistStart).Record(800 * time.Millisecond)
	rec.Add(func(v *Viewers) { v.Arrived, v.Started, v.Watched, v.Bytes = 1, 1, time.Minute, 1<<53+1 })
	rec.Error("503")
	rec.Bitrate(8_000_000)
	rec.Sample(Sample{At: time.Second, Playing: 1, Goodput: 8e6, Buffer: [3]float64{1, 2.5, 30}, Relay: Usage{CPU: time.Millisecond}})
	r := rec.Result()
	r.Started = time.Date(2026, 7, 4, 20, 15, 0, 123, time.UTC)
	r.Took = time.Minute
	r.Title = "1 viewer, vod"
	r.Scenario = map[string]any{"seed": json.Number("18446744073709551615"), "link": "lte"}
	r.Machine = Machine{CPU: "x", Cores: 2, Memory: 1, System: "Linux", Go: "go1", Revision: "r"}
	r.Relay = &Usage{CPU: time.Second, Packets: 5}
	r.RelayAt, r.RelayVersion = "10.0.0.1:9090", "v1"
	r.SLO = []Verdict{{Objective: "stalls<1", Held: true}, {Objective: "start_p95<1s", NoData: true}}
	return r
}

func TestFileRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.json")
	want := sampleResult()
	if err := want.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	got, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, h := range want.Hists {
		if !got.Hists[name].h.Equals(h.h) {
			t.Errorf("histogram %s came back different", name)
		}
	}
	got.Hists, want.Hists = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("wrote %+v\nread  %+v", want, got)
	}
	if err := want.WriteFile(filepath.Join(t.TempDir(), "none", "run.json")); err == nil {
		t.Error("writing into no folder went well")
	}
}

func TestReadFileRefuses(t *testing.T) {
	good, err := json.Marshal(sampleResult())
	if err != nil {
		t.Fatal(err)
	}
	replaced := func(old, new string) string {
		t.Helper()
		if !strings.Contains(string(good), old) {
			t.Fatalf("no %s in %s", old, good)
		}
		return strings.Replace(string(good), old, new, 1)
	}
	for name, c := range map[string]struct{ text, want string }{
		"another schema":    {replaced(`"schema":1`, `"schema":2`), "schema 2, but this blindload reads schema 1: use the version that wrote the file"},
		"no schema":         {`{"title":"x"}`, "no schema number"},
		"no JSON":           {"viewers,stalls\n", "not a result of blindload"},
		"empty":             {"", "not a result of blindload"},
		"more behind":       {string(good) + "{}", "not a result of blindload"},
		"another field":     {replaced(`"took_ns"`, `"took_s"`), "took_s"},
		"another histogram": {replaced(`"start":{`, `"begin":{`), `unknown histogram "begin"`},
		"damaged histogram": {replaced(`"count":1,`, `"count":3,`), "damaged"},
		"negative total":    {replaced(`"bytes":9007199254740993`, `"bytes":-1`), "never negative"},
		"too many samples":  {replaced(`"samples":[`, `"samples":[`+strings.Repeat("{},", maxSamples)), "samples"},
		"too large":         {strings.Repeat(" ", maxFile+1), "larger than 64 MiB"},
	} {
		path := filepath.Join(t.TempDir(), "run.json")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := ReadFile(path)
		if err == nil || r != nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v and error %v, want an error with %q and the path", name, r, err, c.want)
		}
	}
	if _, err := ReadFile(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("read a file that is not there")
	}
}

func FuzzDecode(f *testing.F) {
	good, err := json.Marshal(sampleResult())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"schema":1,"histograms":{"start":null},"relay":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decode(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if _, err := decode(again); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
	})
}
