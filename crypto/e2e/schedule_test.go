package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

var (
	oneSeed   = flag.Uint64("schedule", 0, "run only the schedule of this seed")
	schedules = flag.Uint64("schedules", 0, "how many schedules to run; 0: as many as the test has time for")
)

// TestSchedules cuts carriers, links and whole attachments at random places,
// inside records, prefaces and handshakes, while several streams run both
// ways. Each reader gets exactly its writer's bytes, and once cutting stops
// everything comes to its end.
func TestSchedules(t *testing.T) {
	if *oneSeed != 0 {
		schedule(t, *oneSeed)
		return
	}
	n := uint64(5000)
	if scheduleStride > 1 || testing.Short() {
		n = 300
	}
	if *schedules > 0 {
		n = *schedules
	}
	var next, losses atomic.Uint64
	for i := range runtime.GOMAXPROCS(0) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			for {
				seed := next.Add(1)
				if seed > n || t.Failed() {
					return
				}
				losses.Add(schedule(t, seed))
			}
		})
	}
	t.Cleanup(func() {
		t.Logf("%d schedules, %d carriers or links cut", n, losses.Load())
		if losses.Load() < n {
			t.Error("hardly anything was cut")
		}
	})
}

// script is what one end of one stream does.
func content(seed uint64, n int) []byte {
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	b := make([]byte, n)
	src.Read(b)
	return b
}

func schedule(t *testing.T, seed uint64) (cuts uint64) {
	synctest.Test(t, func(t *testing.T) { cuts = runSchedule(t, seed) })
	if t.Failed() {
		t.Logf("again: go test -run TestSchedules -schedule %d", seed)
	}
	return cuts
}

type chaos struct {
	w    *world
	mu   sync.Mutex
	rng  *rand.Rand
	over bool
	cuts uint64
}

// prepare lays a cut into a hop, or not.
func (x *chaos) prepare(_ int, _ uint64, d, a *pipeEnd) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over || x.rng.IntN(3) == 0 {
		return
	}
	ends := []*pipeEnd{d, a}
	e := ends[x.rng.IntN(2)]
	how := x.rng.IntN(4)
	most := []int{100, 2000, 40_000, 300_000}[x.rng.IntN(4)]
	e.out.left = x.rng.IntN(most)
	e.out.cut = func() {
		x.mu.Lock()
		x.cuts++
		x.mu.Unlock()
		switch how {
		case 0: // a FIN that nobody sent; what was under way arrives
			e.out.set(func() { e.out.fin = true })
		case 1: // one end learns of it late
			e.Reset(wire.CodeCancelled)
		default:
			d.Reset(wire.CodeCancelled)
			a.Reset(wire.CodeCancelled)
		}
	}
}

func (x *chaos) intN(n int) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.rng.IntN(n)
}

// spread has all streams carried over some of the session's links, as if their
// logs were full.
func (x *chaos) spread(s *Session) {
	s.session.mu.Lock()
	links := slices.Clone(s.links)
	s.session.mu.Unlock()
	links = slices.DeleteFunc(links, func(*Link) bool { return x.intN(4) == 0 })
	for range x.intN(3) { // over some more than once
		if len(links) > 0 {
			links = append(links, links[x.intN(len(links))])
		}
	}
	s.Spread(links)
	for _, c := range s.open() {
		c.mu.Lock()
		c.press(time.Now())
		c.mu.Unlock()
	}
	if len(links) > 0 && x.intN(3) == 0 {
		s.Prefer(links[0])
	}
}

func runSchedule(t *testing.T, seed uint64) uint64 {
	x := &chaos{rng: rand.New(rand.NewPCG(seed, 7))}
	w := newWorld(t, nil)
	x.w = w
	s := w.connect(w.allow(newIdentity(t)), 1)
	if _, err := s.Welcome(context.Background()); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.prepare = x.prepare
	w.mu.Unlock()

	streams := 1 + x.intN(4)
	size := func(i, dir int) int {
		return rand.New(rand.NewPCG(seed, uint64(i*2+dir))).IntN([]int{1, 300, 20_000, 400_000}[(int(seed)+i+dir)%4])
	}
	var ends sync.WaitGroup
	half := func(c *Conn, i, dir int, rng *rand.Rand) { // writes half dir, reads the other one
		var both sync.WaitGroup
		defer func() {
			both.Wait()
			if err := c.Close(); err != nil {
				t.Errorf("seed %d, stream %d, end %d: close: %v", seed, i, dir, err)
			}
		}()
		both.Go(func() {
			p := content(seed<<8+uint64(i*2+dir), size(i, dir))
			for len(p) > 0 {
				n, err := c.Write(p[:min(len(p), 1+rng.IntN(60_000))])
				if err != nil {
					t.Errorf("seed %d, stream %d, end %d: write: %v", seed, i, dir, err)
					return
				}
				if p = p[n:]; rng.IntN(3) == 0 {
					time.Sleep(time.Duration(rng.IntN(200)) * time.Millisecond)
				}
			}
			if err := c.CloseWrite(); err != nil {
				t.Errorf("seed %d, stream %d, end %d: end: %v", seed, i, dir, err)
			}
		})
		want := content(seed<<8+uint64(i*2+1-dir), size(i, 1-dir))
		slow := rand.New(rand.NewPCG(seed, uint64(100+i*2+dir)))
		both.Go(func() {
			var got []byte
			for p := make([]byte, 50_000); ; {
				n, err := c.Read(p[:1+slow.IntN(len(p))])
				got = append(got, p[:n]...)
				if !bytes.HasPrefix(want, got) || err == io.EOF && len(got) != len(want) {
					t.Errorf("seed %d, stream %d, end %d: read %d bytes of %d that are not those written, %v", seed, i, dir, len(got), len(want), err)
					return
				}
				if err == io.EOF {
					return
				}
				if err != nil {
					t.Errorf("seed %d, stream %d, end %d: read %d of %d: %v", seed, i, dir, len(got), len(want), err)
					return
				}
				if slow.IntN(8) == 0 {
					time.Sleep(time.Duration(slow.IntN(300)) * time.Millisecond)
				}
			}
		})
	}
	ends.Go(func() {
		for range streams {
			c, err := w.server.Accept()
			if err != nil {
				return
			}
			ends.Go(func() {
				var b [1]byte
				if _, err := io.ReadFull(c, b[:]); err != nil {
					t.Errorf("seed %d: the agent reads the first byte: %v", seed, err)
					c.Close()
					return
				}
				half(c, int(b[0]), 1, rand.New(rand.NewPCG(seed, uint64(200+b[0]))))
			})
		}
	})
	for i := range streams {
		ends.Go(func() {
			time.Sleep(time.Duration(x.intN(500)) * time.Millisecond)
			c, err := s.OpenStream(context.Background())
			if err != nil {
				t.Errorf("seed %d: open: %v", seed, err)
				return
			}
			c.Write([]byte{byte(i)})
			half(c, i, 0, rand.New(rand.NewPCG(seed, uint64(300+i))))
		})
	}

	// The device's connections: a new one when there is none, and sometimes
	// without need.
	done := make(chan struct{})
	var keeper sync.WaitGroup
	keeper.Go(func() {
		attachment := uint64(1)
		for until := time.Now().Add(3 * time.Second); ; {
			time.Sleep(time.Duration(20+x.intN(400)) * time.Millisecond)
			select {
			case <-done:
				return
			default:
			}
			if t.Failed() { // nobody waits for what will not come
				w.server.Close()
				s.Close(0, "the schedule has failed")
				return
			}
			stop := time.Now().After(until)
			x.mu.Lock()
			x.over = stop
			x.mu.Unlock()
			if !stop && x.intN(6) == 0 {
				w.drop(attachment - uint64(x.intN(int(min(attachment, 3)))))
				x.mu.Lock()
				x.cuts++
				x.mu.Unlock()
			} else if stop {
				for a := range attachment {
					for _, e := range w.hopsOf(a + 1) { // no cut is left that waits
						for _, l := range []*lane{e.in, e.out} {
							l.set(func() { l.cut = nil })
						}
					}
				}
			}
			if seed%2 == 1 && x.intN(3) == 0 {
				x.spread(s)
			}
			if newest(s) == nil || !stop && x.intN(10) == 0 {
				if x.intN(2) == 0 || newest(s) == nil && w.isGone(attachment) {
					attachment++
				}
				if _, err := w.join(s, attachment); err != nil && errors.Is(s.Err(), err) {
					return
				}
			}
		}
	})
	ends.Wait()
	if t.Failed() {
		close(done)
		keeper.Wait()
		return x.cuts
	}
	agent := w.served()[0].session
	for range 60 { // what was closed is still being delivered
		if len(s.session.open()) == 0 && len(agent.open()) == 0 {
			break
		}
		time.Sleep(time.Second)
	}
	close(done)
	keeper.Wait()
	if err := s.Err(); err != nil {
		t.Errorf("seed %d: the session ended: %v", seed, err)
	}
	for _, v := range []*session{s.session, agent} {
		if n := len(v.open()); n > 0 || v.logged.Load() != 0 || v.unread.Load() != 0 || v.tampered != 0 {
			t.Errorf("seed %d: %d streams, %d bytes of logs, %d unread, %d attacks are left", seed, n, v.logged.Load(), v.unread.Load(), v.tampered)
			for _, c := range v.open() {
				c.mu.Lock()
				t.Logf("opener %v dead %v carriers %d acked %d last %d todo %d blocks %d, in: next %d last %d stopped %v, mending %v futile %d, links %d", c.opener, c.dead.Load(), len(c.carriers), c.out.acked, c.out.last, c.out.todo, c.out.blocks.len(), c.in.next, c.in.last, c.in.stopped, c.mending, c.futile, len(v.links))
				c.mu.Unlock()
			}
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.cuts
}
