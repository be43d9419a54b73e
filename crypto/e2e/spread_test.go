package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// slow has every hop of an attachment forward at a rate, in bytes per second. An
// attachment that is frozen forwards nothing any more, neither bytes nor resets.
func (w *world) slow(rate func(attachment uint64) int) (freeze func(attachment uint64)) {
	var mu sync.Mutex
	attachments := make(map[int]uint64) // of hops
	frozen := make(map[uint64]bool)
	thaw := make(chan struct{})
	w.t.Cleanup(func() { close(thaw) })
	w.prepare = func(n int, attachment uint64, _, _ *pipeEnd) {
		mu.Lock()
		defer mu.Unlock()
		attachments[n] = attachment
	}
	w.relay = func(n int, d, a Stream) {
		slow := func(b []byte) []byte {
			mu.Lock()
			attachment := attachments[n]
			stuck := frozen[attachment]
			mu.Unlock()
			time.Sleep(time.Duration(len(b)) * time.Second / time.Duration(rate(attachment)))
			if stuck {
				<-thaw
			}
			return b
		}
		forward(d, a, slow, slow)
	}
	return func(attachment uint64) {
		mu.Lock()
		defer mu.Unlock()
		frozen[attachment] = true
	}
}

// counter makes and checks the numbers that follow each other.
type counter struct{ n uint32 }

func (c *counter) fill(p []byte) {
	for i := 0; i+4 <= len(p); i += 4 {
		binary.BigEndian.PutUint32(p[i:], c.n)
		c.n++
	}
}

// endless has agent write numbers for ever. read reads and checks them for a
// while, and returns how many bytes came per second.
func endless(t *testing.T, agent, device *Conn) (read func(time.Duration) (perSecond int)) {
	go func() {
		var c counter
		for p := make([]byte, 32<<10); ; {
			c.fill(p)
			if _, err := agent.Write(p); err != nil {
				return
			}
		}
	}()
	var want counter
	got, expected := make([]byte, 32<<10), make([]byte, 32<<10)
	return func(d time.Duration) (perSecond int) {
		n := 0
		for end := time.Now().Add(d); time.Now().Before(end); n += len(got) {
			if _, err := io.ReadFull(device, got); err != nil {
				t.Fatal(err)
			}
			if want.fill(expected); !bytes.Equal(got, expected) {
				t.Fatalf("wrong content before byte %d", want.n*4)
			}
		}
		return n / int(d/time.Second)
	}
}

// TestUnequalCarriers: a carrier of a twentieth of the rate, in front of which
// much can wait, slows the other one down by little.
func TestUnequalCarriers(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		const slow, fast = 100_000, 2_000_000
		w.room = 1 << 20
		w.slow(func(attachment uint64) int {
			if attachment == 1 {
				return slow
			}
			return fast
		})
		s := w.connect(w.allow(newIdentity(t)), 1)
		device, agent := w.streams(s)
		read := endless(t, agent, device)
		l, err := w.join(s, 2)
		if err != nil {
			t.Fatal(err)
		}
		s.Prefer(l)
		s.Spread([]*Link{s.First(), l})
		read(10 * time.Second)
		if got := read(20 * time.Second); got < 0.9*(slow+fast) {
			t.Errorf("%d bytes per second, want %d", got, slow+fast)
		}
	})
}

// carriersOf returns how many carriers a stream has.
func carriersOf(c *Conn) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.carriers)
}

// TestSpread has one stream carried over several links: what comes each second
// is the sum, in order and once, also when one of them ends or all change; and
// small streams keep to one.
func TestSpread(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		const rate = 500_000
		freeze := w.slow(func(uint64) int { return rate })
		s := w.connect(w.allow(newIdentity(t)), 1)
		device, agent := w.streams(s)
		small, _ := w.streams(s)
		read := endless(t, agent, device)
		expect := func(what string, carriers int) {
			t.Helper()
			read(8 * time.Second) // until the logs hold what the new carriers take
			if got := read(10 * time.Second); float64(got) < 0.9*float64(carriers)*rate || float64(got) > 1.1*float64(carriers)*rate {
				t.Errorf("%s: %d bytes per second, want %d times %d", what, got, carriers, rate)
			}
			if d, a := carriersOf(device), carriersOf(agent); d != carriers || a != carriers {
				t.Errorf("%s: %d carriers at the device, %d at the agent, want %d", what, d, a, carriers)
			}
		}

		expect("as it begins", 1)
		if time.Since(s.Pressed()) > fullEvery+time.Second {
			t.Errorf("the device last heard of a full log at %v, want now", s.Pressed())
		}
		links := []*Link{s.First()}
		for i := uint64(2); i <= 4; i++ {
			l, err := w.join(s, i)
			if err != nil {
				t.Fatal(err)
			}
			links = append(links, l)
		}
		s.Prefer(links[0])
		s.Spread(links)
		expect("over four links", 4)
		for i, l := range links {
			if in, _ := l.Traffic(); in < rate {
				t.Errorf("link %d has brought %d bytes", i, in)
			}
		}
		w.drop(3)
		expect("when one is gone", 3)
		freeze(4)
		links[3].Close() // as the device does with a path that says nothing
		expect("when another one is frozen", 2)
		s.Spread(links[1:2])
		expect("over another one alone", 1)
		s.Spread(nil)
		expect("over the preferred one", 1)
		if n := carriersOf(small); n != 1 {
			t.Errorf("a small stream has %d carriers", n)
		}
		if device.alone() || !small.alone() {
			t.Error("carriers were opened for the wrong stream")
		}
	})
}

// TestSlowReaderIsNotPressed: a log that is full because nobody reads is no
// reason for more carriers.
func TestSlowReaderIsNotPressed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.connect(w.allow(newIdentity(t)), 1)
		device, agent := w.streams(s)
		go func() {
			for {
				if _, err := agent.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		}()
		begin := time.Now()
		for range 1000 { // at 3.2 MB/s, from a path that has no limit
			if _, err := io.ReadFull(device, make([]byte, 32<<10)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if p := s.Pressed(); p.Sub(begin) > time.Second { // at first nothing has come yet
			t.Errorf("the session counts as pressed %v after the beginning", p.Sub(begin))
		}
	})
}

// TestSpreadFrames has each side say what it may not say about carriers.
func TestSpreadFrames(t *testing.T) {
	known := binary.BigEndian.AppendUint64(nil, 1)
	carrier := binary.BigEndian.AppendUint32(known, 0)
	claim := ack{id: 1, next: 0, came: []arrived{{0, 1 << 40}}}.append(nil)
	for name, tc := range map[string]struct {
		frame  Frame
		agent  bool // says it; else the device does
		strict bool // the session ends
	}{
		"FULL of the device":           {Frame{frameFull, known}, false, true},
		"FULL, cut":                    {Frame{frameFull, known[:7]}, true, true},
		"FULL of an unknown stream":    {Frame{frameFull, make([]byte, 8)}, true, false},
		"FULL":                         {Frame{frameFull, known}, true, false},
		"LOST of the agent":            {Frame{frameLost, carrier}, true, true},
		"LOST, cut":                    {Frame{frameLost, carrier[:11]}, false, true},
		"LOST of an unknown stream":    {Frame{frameLost, make([]byte, 12)}, false, false},
		"LOST of an unknown carrier":   {Frame{frameLost, append(known[:8:8], 0, 0, 0, 9)}, false, false},
		"bytes that were never sent":   {Frame{frameAck, claim}, true, false},
		"bytes of an unknown carrier":  {Frame{frameAck, ack{id: 1, came: []arrived{{7, 1 << 40}}}.append(nil)}, true, false},
		"more carriers than there are": {Frame{frameAck, append(make([]byte, 16), maxCarriers+1)}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				s := w.connect(w.allow(newIdentity(t)), 1)
				s.Welcome(context.Background())
				w.streams(s)
				speaker, hearer := s.session, w.served()[0].session
				if tc.agent {
					speaker, hearer = hearer, speaker
				}
				l, _ := speaker.current()
				l.say(tc.frame)
				synctest.Wait()
				if err := hearer.reason(); tc.strict && !errors.Is(err, ErrFrame) || !tc.strict && err != nil {
					t.Errorf("session: %v", err)
				}
			})
		})
	}
}

// TestTwiceOnOneLink: where two carriers went over the same link, as after a
// path that ended while they were moved, a stream is still spread.
func TestTwiceOnOneLink(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		const rate = 500_000
		w.slow(func(uint64) int { return rate })
		s := w.connect(w.allow(newIdentity(t)), 1)
		device, agent := w.streams(s)
		read := endless(t, agent, device)
		l, err := w.join(s, 2)
		if err != nil {
			t.Fatal(err)
		}
		s.Prefer(s.First())
		if err := device.carry(s.First()); err != nil {
			t.Fatal(err)
		}
		s.Spread([]*Link{s.First(), l})
		read(5 * time.Second)
		before, _ := l.Traffic()
		read(10 * time.Second)
		if in, _ := l.Traffic(); in-before < 9*rate {
			t.Errorf("the second link has brought %d bytes in 10 s, want %d", in-before, 10*rate)
		}
		if n := carriersOf(device); n != 2 {
			t.Errorf("%d carriers, want 2", n)
		}
	})
}

// TestLostBeforeItCame: a carrier that the device has given up before the agent
// got to see it takes no records there.
func TestLostBeforeItCame(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		const rate = 500_000
		freeze := w.slow(func(uint64) int { return rate })
		s := w.connect(w.allow(newIdentity(t)), 1)
		device, agent := w.streams(s)
		read := endless(t, agent, device)
		l, err := w.join(s, 2)
		if err != nil {
			t.Fatal(err)
		}
		s.Prefer(s.First())
		read(5 * time.Second)

		// The preface waits at the relay, which hears nothing of the carrier's end.
		inner := w.relay
		held := make(chan struct{})
		w.mu.Lock()
		w.relay = func(n int, d, a Stream) {
			b := make([]byte, openPrefaceLen+resumptionLen)
			if _, err := io.ReadFull(d, b); err != nil {
				t.Error(err)
			}
			<-held
			a.Write(b)
			io.Copy(io.Discard, a)
		}
		w.mu.Unlock()
		freeze(2)
		taken := make(chan error)
		go func() { taken <- device.carry(l) }()
		time.Sleep(3 * time.Second)
		l.Close() // as the device does with a path that says nothing
		if err := <-taken; err != errLinkLost {
			t.Fatal(err)
		}
		w.mu.Lock()
		w.relay = inner
		w.mu.Unlock()
		read(time.Second)
		close(held)
		start := time.Now()
		read(5 * time.Second)
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("what takes 5 s took %v", took)
		}
		if n := carriersOf(agent); n != 1 {
			t.Errorf("the agent has %d carriers, want 1", n)
		}
	})
}

// TestKeepAliveIsNoPreference: of a device that only writes, the agent does not
// take signs of life on a further link for the wish to be told there what was
// read: when that link freezes the writer would wait for it.
func TestKeepAliveIsNoPreference(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		const rate = 500_000
		freeze := w.slow(func(uint64) int { return rate })
		s := w.connect(w.allow(newIdentity(t)), 1)
		device, agent := w.streams(s)
		read := endless(t, device, agent)
		l, err := w.join(s, 2)
		if err != nil {
			t.Fatal(err)
		}
		s.Prefer(s.First())
		if _, err := s.First().Probe(context.Background()); err != nil {
			t.Fatal(err)
		}
		l.say(Frame{Type: framePing})
		time.Sleep(time.Second)
		freeze(2)
		start := time.Now()
		read(25 * time.Second)
		if took := time.Since(start); took > 26*time.Second {
			t.Errorf("what takes 25 s took %v", took)
		}
	})
}
