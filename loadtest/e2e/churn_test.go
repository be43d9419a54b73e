//go:build e2e && linux

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"testing"
	"time"
)

// The churn lasts longer by hand:
//
//	go test -tags e2e -run 'TestChurn$' -v -timeout 20m ./loadtest/e2e -churn 10m
var churnTime = flag.Duration("churn", 12*time.Second, "how long endpoints come, go and die at a relay")

// visit is how long a part of the load lives until it is killed.
const visit = 8 * time.Second

// TestChurn lets agents come and go at a relay, and kills others, and devices
// that watch films, without a word, again and again. When all have left and the
// relay has forgotten those that died, it runs as many goroutines as at the
// start, and its memory has not grown.
func TestChurn(t *testing.T) {
	t.Parallel()
	r := openRelay(t)
	r.churn(t, visit) // what the runtime and the allocator keep is there after that
	before := r.settled(t, standing{goroutines: 1 << 20})
	t.Logf("before:             %v", before)
	r.churn(t, *churnTime)
	after := r.settled(t, before)
	t.Logf("all have left:      %v", after)
	if *churnTime > time.Minute {
		time.Sleep(time.Minute)
		after = r.settled(t, before)
		t.Logf("a minute later:     %v", after)
	}
	if after.resident > before.resident+before.resident/2 {
		t.Errorf("the relay has %.1f MiB resident, and had %.1f", after.resident/(1<<20), before.resident/(1<<20))
	}
}

// standing is what a relay takes at one moment.
type standing struct {
	resident   float64 // bytes
	goroutines float64
	gone       float64 // sessions that have ended
	streams    float64 // opened so far
	agents     float64
	left       float64 // sessions and streams that are there now
}

func (s standing) String() string {
	return fmt.Sprintf("%5.1f MiB resident, %3.0f goroutines; %.0f agents, %.0f sessions and streams; %.0f sessions have ended, %.0f streams were opened",
		s.resident/(1<<20), s.goroutines, s.agents, s.left, s.gone, s.streams)
}

func (r relay) stands() (s standing, err error) {
	var open, streams float64
	for name, to := range map[string]*float64{
		"process_resident_memory_bytes": &s.resident, "go_goroutines": &s.goroutines,
		"blindrelay_sessions": &open, "blindrelay_sessions_ended_total": &s.gone,
		"blindrelay_streams": &streams, "blindrelay_streams_opened_total": &s.streams,
		"blindrelay_agents": &s.agents,
	} {
		v, one := r.metric(name, "")
		*to, err = v, errors.Join(err, one)
	}
	s.left = open + streams
	return s, err
}

// settled waits until the relay has no endpoint and no more goroutines than
// before, and returns what it takes then.
func (r relay) settled(t *testing.T, before standing) (now standing) {
	t.Helper()
	eventually(t, 90*time.Second, "the relay is as before", func() (err error) {
		now, err = r.stands()
		if err == nil && (now.agents+now.left > 0 || now.goroutines > before.goroutines) {
			err = fmt.Errorf("%v", now)
		}
		return err
	})
	return now
}

// churn has agents come and go for so long, beside films and agents that are
// killed after a visit.
func (r relay) churn(t *testing.T, d time.Duration) {
	t.Helper()
	crowd := r.load(t, "churn", "--ops", "http://"+r.ops+"/metrics", "--agents", "20", "--at-once", "1", "--settle", "0s", "--duration", d.String())
	shown := time.Now()
	for end := shown.Add(d); time.Now().Before(end); {
		films := r.load(t, "run", "--viewers", "6", "--viewers-per-home", "2", "--bitrate", "1M", "--kind", "seek", "--ramp", "1s", "--duration", "1m")
		idle := r.load(t, "idle", "--agents", "10", "--settle", "1m")
		time.Sleep(min(visit, time.Until(end)))
		films.kill()
		idle.kill()
		if now, err := r.stands(); err == nil && time.Since(shown) > time.Minute {
			t.Logf("meanwhile:          %v", now)
			shown = time.Now()
		}
	}
	crowd.wantExit(t, readyTimeout, 0)
	t.Logf("agents of blindload churn: %s", crowd.stdout)
}

// load starts blindload at the relay.
func (r relay) load(t *testing.T, what string, args ...string) *process {
	t.Helper()
	return start(t, "blindload "+what, command(context.Background(), t, "blindload", append([]string{what, "--relay", r.address}, args...)...))
}
