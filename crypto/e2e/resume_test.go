package e2e

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// exchange sends n bytes both ways at once, calls during when half of it has
// arrived at the device, and checks that all arrives.
func exchange(t *testing.T, device, agent *Conn, n int, during func()) {
	t.Helper()
	var wg sync.WaitGroup
	for i, c := range []*Conn{device, agent} {
		wg.Go(func() {
			p := content(uint64(i), n)
			for len(p) > 0 {
				k, err := c.Write(p[:min(len(p), 32<<10)])
				if err != nil {
					t.Errorf("end %d: write: %v", i, err)
					return
				}
				p = p[k:]
			}
			if err := c.CloseWrite(); err != nil {
				t.Errorf("end %d: %v", i, err)
			}
		})
		wg.Go(func() {
			got := make([]byte, n)
			if _, err := io.ReadFull(c, got[:n/2]); err != nil {
				t.Errorf("end %d: first half: %v", i, err)
				return
			}
			if c == device {
				during()
			}
			if _, err := io.ReadFull(c, got[n/2:]); err != nil || !bytes.Equal(got, content(uint64(1-i), n)) {
				t.Errorf("end %d: other bytes than those written, %v", i, err)
			}
			if _, err := c.Read(got); err != io.EOF {
				t.Errorf("end %d: %v instead of the end", i, err)
			}
		})
	}
	wg.Wait()
}

func TestResume(t *testing.T) {
	const n = 9 << 20
	both := func(e *pipeEnd, f func(l *lane)) {
		for _, l := range []*lane{e.in, e.out} {
			l.set(func() { f(l) })
		}
	}
	for name, cut := range map[string]func(t *testing.T, w *world, s *Session){
		"attachment": func(t *testing.T, w *world, s *Session) {
			w.drop(1)
			time.Sleep(30 * time.Second)
			if _, err := w.join(s, 2); err != nil {
				t.Error(err)
			}
		},
		"make before break": func(t *testing.T, w *world, s *Session) {
			old := newest(s)
			if _, err := w.join(s, 2); err != nil {
				t.Error(err)
			}
			old.Close()
		},
		"control stream": func(t *testing.T, w *world, s *Session) {
			w.hopsOf(1)[0].Reset(wire.CodeCancelled)
			synctest.Wait()
			if _, err := w.join(s, 1); err != nil {
				t.Error(err)
			}
		},
		"carrier": func(t *testing.T, w *world, s *Session) { w.hopsOf(1)[1].Reset(wire.CodeCancelled) },
		"FIN without END": func(t *testing.T, w *world, s *Session) {
			both(w.hopsOf(1)[1], func(l *lane) { l.fin = true })
		},
		"frozen": func(t *testing.T, w *world, s *Session) { // takes nothing and gives nothing
			for _, e := range w.hopsOf(1) {
				both(e, func(l *lane) { l.limit = 0 })
			}
			if _, err := w.join(s, 2); err != nil {
				t.Error(err)
			}
			for _, e := range w.hopsOf(1) {
				both(e, func(l *lane) { l.buf = nil })
			}
			w.drop(1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				s := w.connect(w.allow(newIdentity(t)), 1)
				device, agent := w.streams(s)
				exchange(t, device, agent, n, func() { cut(t, w, s) })
				device.Close()
				agent.Close()
				time.Sleep(2 * lingerFor)
				for _, v := range []*session{s.session, w.served()[0].session} {
					if len(v.open()) > 0 || v.logged.Load() != 0 || v.unread.Load() != 0 || v.tampered > 0 {
						t.Errorf("%d streams, %d bytes, %d unread, %d attacks are left", len(v.open()), v.logged.Load(), v.unread.Load(), v.tampered)
					}
				}
			})
		})
	}
}

// TestFirstCarrierNeverArrives: the stream begins with a further carrier, and
// the first one comes late.
func TestFirstCarrierNeverArrives(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.connect(w.allow(newIdentity(t)), 1)
		if _, err := s.Welcome(context.Background()); err != nil {
			t.Fatal(err)
		}
		d, _ := newPipe(1 << 20) // the hop that nobody delivers
		open := s.first.open
		s.first.open = func(context.Context) (Stream, error) { return d, nil }
		c, err := s.OpenStream(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		s.first.open = open
		c.Write([]byte("hello"))
		synctest.Wait()
		late := bytes.Clone(d.out.all)
		d.Reset(wire.CodeCancelled)
		agent, err := w.server.Accept()
		if err != nil {
			t.Fatal(err)
		}
		a, b := newPipe(1 << 20)
		w.server.Handle(1, b)
		a.Write(late)
		synctest.Wait()
		c.CloseWrite()
		if got, err := io.ReadAll(agent); string(got) != "hello" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		if len(w.server.accepted) > 0 || w.served()[0].tampered > 0 {
			t.Error("the late first carrier became a second stream, or an attack")
		}
		a.Reset(0)
		c.Close()
		agent.Close()
	})
}

// TestEndsHoldWithoutALink: revocation and off end sessions that have lost
// their link, and a join finds nothing.
func TestEndsHoldWithoutALink(t *testing.T) {
	for name, end := range map[string]func(w *world, p Pin){
		"revoked": func(w *world, p Pin) { w.disallow(p); w.server.Revoke(p) },
		"off":     func(w *world, p Pin) { w.server.CloseSessions(wire.CodeOff, "off") },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				id := w.allow(newIdentity(t))
				s := w.connect(id, 1)
				device, agent := w.streams(s)
				device.Write([]byte("waits"))
				synctest.Wait()
				w.drop(1)
				synctest.Wait()
				end(w, id.Pin())
				if n, err := agent.Read(make([]byte, 10)); n > 0 || err == nil || err == io.EOF {
					t.Errorf("read %d bytes, %v", n, err)
				}
				if n, err := agent.Write(make([]byte, 10)); n > 0 || err == nil {
					t.Errorf("wrote %d bytes, %v", n, err)
				}
				if _, err := w.join(s, 2); err == nil {
					t.Error("joined a session that was ended")
				}
				<-s.Done()
				if n, err := device.Read(make([]byte, 10)); n > 0 || err == nil || err == io.EOF {
					t.Errorf("the device read %d bytes, %v", n, err)
				}
			})
		})
	}
}

// TestJoinRefused: Admit is asked at each join.
func TestJoinRefused(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		id := w.allow(newIdentity(t))
		s := w.connect(id, 1)
		w.streams(s)
		w.disallow(id.Pin())
		var away *GoAwayError
		if _, err := w.join(s, 2); !errors.As(err, &away) || away.Code != wire.CodeRefused || len(w.server.Sessions()) != 0 {
			t.Errorf("join of a refused device: %v, %d sessions", err, len(w.server.Sessions()))
		}
	})
}

// TestCancelOvertakesBeginning: a stream that is reset at once is no attack.
func TestCancelOvertakesBeginning(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.connect(w.allow(newIdentity(t)), 1)
		if _, err := s.Welcome(context.Background()); err != nil {
			t.Fatal(err)
		}
		open := s.first.open
		for range 2 * maxTampered {
			d, _ := newPipe(1 << 20)
			s.first.open = func(context.Context) (Stream, error) { return d, nil }
			c, err := s.OpenStream(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			c.Write([]byte("never mind"))
			synctest.Wait()
			sent := bytes.Clone(d.out.all)
			c.Reset(wire.CodeCancelled)
			synctest.Wait()
			late, b := newPipe(1 << 20)
			w.server.Handle(1, b)
			late.Write(sent)
			synctest.Wait()
		}
		s.first.open = open
		if v := w.served()[0]; v.tampered > 0 || len(w.server.accepted) > 0 || len(v.session.open()) > 0 {
			t.Errorf("%d attacks, %d streams accepted, %d open", v.tampered, len(w.server.accepted), len(v.session.open()))
		}
	})
}

// TestReplayedResumption replays prefaces of further carriers, and JOINs, on
// the same and on another attachment.
func TestReplayedResumption(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		id := w.allow(newIdentity(t))
		s, other := w.connect(id, 1), w.connect(id, 2)
		device, agent := w.streams(s)
		w.streams(other)
		var mu sync.Mutex
		var seen []*bytes.Buffer
		w.relay = func(_ int, d, a Stream) {
			var b bytes.Buffer
			mu.Lock()
			seen = append(seen, &b)
			mu.Unlock()
			forward(d, a, func(p []byte) []byte { mu.Lock(); defer mu.Unlock(); b.Write(p); return p }, nil)
		}
		w.hopsOf(1)[1].Reset(wire.CodeCancelled)
		device.Write([]byte("resumed"))
		if _, err := io.ReadFull(agent, make([]byte, 7)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.join(s, 3); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.relay = nil
		mu.Lock()
		copies := seen
		mu.Unlock()
		if len(copies) != 2 || copies[0].Bytes()[0] != kindResumed || copies[1].Bytes()[0] != kindControl {
			t.Fatalf("%d hops were seen", len(copies))
		}
		replay := func(attachment uint64, b []byte) wire.Code {
			st := w.open(attachment)
			st.Write(b)
			st.SetReadDeadline(time.Now().Add(2 * handshakeTimeout))
			var reset *wire.ResetError
			for p := make([]byte, 5000); ; {
				if _, err := st.Read(p); errors.As(err, &reset) {
					return reset.Code
				} else if err != nil {
					t.Fatal(err)
				}
			}
		}
		for attachment := range uint64(5) { // on others than its own it says nothing
			if attachment == 1 {
				continue
			}
			if code := replay(attachment, copies[0].Bytes()); code != wire.CodeRefused {
				t.Errorf("a carrier of attachment 1 on %d: %s", attachment, code)
			}
		}
		for _, attachment := range []uint64{1, 3, 9} {
			replay(attachment, copies[1].Bytes())
		}
		if v := w.served(); v[0].tampered+v[1].tampered > 0 || len(w.server.Sessions()) != 2 || agent.dead.Load() != nil {
			t.Errorf("replays elsewhere did harm: %v", agent.dead.Load())
		}
		if code := replay(1, copies[0].Bytes()); code != wire.CodeTampered {
			t.Errorf("a carrier delivered twice: %s", code)
		}
		if _, err := agent.Read(make([]byte, 1)); !errors.Is(err, ErrReplay) {
			t.Errorf("its stream goes on: %v", err)
		}
	})
}

// TestWithheldRecord: a relay that lets everything through but one record
// stalls a stream for a minute and not for ever.
func TestWithheldRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent := unlinkedAgent(t)
		late := chunk{b: []byte("later"), seq: 9}
		start := time.Now()
		if err := agent.deliver(late); err != nil {
			t.Fatal(err)
		}
		if _, err := agent.Read(make([]byte, 1)); !errors.Is(err, ErrTruncated) || time.Since(start) != resumeWithin {
			t.Errorf("after %v: %v, want ErrTruncated after %v", time.Since(start), err, resumeWithin)
		}

		agent = unlinkedAgent(t)
		synctest.Wait() // record 0 announces the stream
		for _, seq := range []uint64{2, 1} {
			if err := agent.deliver(chunk{b: []byte{byte(seq)}, seq: seq}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(resumeWithin - time.Second)
		}
		p := make([]byte, 2)
		if _, err := io.ReadFull(agent, p); err != nil || p[0] != 1 || p[1] != 2 {
			t.Errorf("read %v, %v", p, err)
		}
		time.Sleep(time.Hour)
		if err := agent.dead.Load(); err != nil {
			t.Errorf("a stream on which nothing is missing any more: %v", *err)
		}
	})
}

// unlinkedAgent returns the acceptor's end of an announced stream whose opener
// is told nothing.
func unlinkedAgent(t *testing.T) *Conn {
	t.Helper()
	s := fakeSession(t, suites()[0])
	a, b := newPipe(1 << 20)
	device, err := openConn(s, nil, a, 7, 1000, wire.Playing)
	if err != nil {
		t.Fatal(err)
	}
	device.Write(nil)
	agent, err := acceptFrom(copyOf(t, s), b)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait() // record 0 announces the stream
	return agent
}

// TestUnreadContentCounts: what nobody reads counts what it costs, for the
// stream and for the session, before and after the record that was missing.
func TestUnreadContentCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent := unlinkedAgent(t)
		const records = 4096 // of one byte
		for seq := uint64(records); seq > 0; seq-- {
			ch := agent.s.pool.chunk(1)
			ch.seq = seq
			if err := agent.deliver(ch); err != nil {
				t.Fatal(err)
			}
		}
		least := int64(records*(sizes[0]+blockCost) - readAhead)
		if n := agent.s.unread.Load(); n != least {
			t.Errorf("%d bytes count for the session, want %d", n, least)
		}
		if _, err := io.ReadFull(agent, make([]byte, records)); err != nil {
			t.Fatal(err)
		}
		if n := agent.s.unread.Load(); n != 0 {
			t.Errorf("%d bytes count when all was read", n)
		}
		agent.s.unread.Store(sessionAhead)
		ch := agent.s.pool.chunk(1)
		ch.seq = records + 2
		if err := agent.deliver(ch); err != errWindow {
			t.Errorf("a record that no session has room for: %v", err)
		}
		agent.s.unread.Store(0)
	})
}
