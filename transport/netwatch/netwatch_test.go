package netwatch

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a watcher whose changes and clock the test makes.
func start(t *testing.T, settle time.Duration, moved chan struct{}, away func() time.Duration) *Watcher {
	ctx, cancel := context.WithCancel(t.Context())
	w := &Watcher{changes: make(chan Event, 2), cancel: cancel}
	w.wait.Go(func() { w.run(ctx, settle, moved, away) })
	return w
}

func awake() time.Duration { return 0 }

func TestBursts(t *testing.T) {
	for _, c := range []struct {
		changes int
		every   time.Duration
		want    []time.Duration // of the reports, since the first change
	}{
		{1, 0, []time.Duration{250 * time.Millisecond}},
		{5, 100 * time.Millisecond, []time.Duration{650 * time.Millisecond}},
		{3, 400 * time.Millisecond, []time.Duration{250 * time.Millisecond, 650 * time.Millisecond, 1050 * time.Millisecond}},
		{15, 100 * time.Millisecond, []time.Duration{time.Second, 1650 * time.Millisecond}}, // a burst that does not end
	} {
		synctest.Test(t, func(t *testing.T) {
			moved := make(chan struct{}, 1)
			w := start(t, 250*time.Millisecond, moved, awake)
			begin := time.Now()
			go func() {
				for range c.changes {
					moved <- struct{}{}
					time.Sleep(c.every)
				}
			}()
			var got []time.Duration
			for stop := time.After(time.Minute); ; {
				select {
				case e := <-w.Changes():
					if e != Network {
						t.Errorf("event %v", e)
					}
					got = append(got, time.Since(begin))
					continue
				case <-stop:
				}
				break
			}
			w.Close()
			if len(got) != len(c.want) {
				t.Fatalf("%d changes every %v were reported after %v, want %v", c.changes, c.every, got, c.want)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("%d changes every %v were reported after %v, want %v", c.changes, c.every, got, c.want)
				}
			}
		})
	}
}

// TestSlowReader reads nothing for long and misses no kind of event.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		moved := make(chan struct{}, 1)
		var sleeps atomic.Bool
		var slept time.Duration
		w := start(t, time.Second, moved, func() time.Duration {
			if sleeps.Load() {
				slept += time.Minute
			}
			return slept
		})
		for i := range 20 {
			sleeps.Store(i > 10)
			moved <- struct{}{}
			time.Sleep(3 * time.Second)
			synctest.Wait()
		}
		a, b := <-w.Changes(), <-w.Changes()
		if a != Network || b != Woke {
			t.Errorf("%v, %v", a, b)
		}
		w.Close()
		for e := range w.Changes() {
			t.Errorf("%v more", e)
		}
	})
}

func TestWoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slept atomic.Int64
		w := start(t, time.Second, nil, func() time.Duration { return time.Duration(slept.Load()) })
		defer w.Close()
		for _, c := range []struct {
			sleep time.Duration
			want  bool
		}{{0, false}, {time.Second, false}, {10 * time.Second, true}, {0, false}, {-time.Hour, false}, {time.Hour, true}} {
			slept.Add(int64(c.sleep))
			time.Sleep(5*time.Second + time.Millisecond)
			synctest.Wait()
			select {
			case e := <-w.Changes():
				if !c.want || e != Woke {
					t.Errorf("after %v of sleep: %v", c.sleep, e)
				}
			default:
				if c.want {
					t.Errorf("%v of sleep were not noticed", c.sleep)
				}
			}
		}
	})
}

// TestSystem starts and stops what this system has, and the poll.
func TestSystem(t *testing.T) {
	w := New(Config{})
	w.Close()
	for e := range w.Changes() {
		t.Logf("in the meantime %v", e)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	poll(10*time.Millisecond)(ctx, func() { t.Log("an interface has changed in the meantime") })
	clock := machineClock()
	before := clock()
	time.Sleep(20 * time.Millisecond)
	if d := clock() - before; d.Abs() > 15*time.Millisecond {
		t.Errorf("a machine that is awake has slept for %v", d)
	}
}
