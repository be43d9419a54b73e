package e2e

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// FuzzControl: whatever frames a device whose session has a stream says on its
// link, ends are errors of the language or a goodbye, and an acknowledgment
// never frees what was not sealed.
func FuzzControl(f *testing.F) {
	frames := func(all ...Frame) []byte {
		var b bytes.Buffer
		for _, fr := range all {
			if err := WriteFrame(&b, fr); err != nil {
				f.Fatal(err)
			}
		}
		return b.Bytes()
	}
	one, all, late := ack{id: 7, next: 1}, ack{id: 7, next: stopped}, ack{id: 7, next: 9}
	f.Add(frames(Frame{Type: frameAck, Payload: one.append(nil)}, Frame{Type: frameAck, Payload: all.append(nil)}))
	f.Add(frames(Frame{Type: frameAck, Payload: late.append(nil)}))
	f.Add(frames(cancelFrame(7, wire.CodeNone), cancelFrame(8, wire.CodeBusy)))
	f.Add(frames(*goAwayFrame(wire.CodeOff, "off")))
	f.Add(frames(Frame{Type: frameGoAway, Payload: []byte{1}}, Frame{Type: frameCancel}))
	f.Fuzz(func(t *testing.T, b []byte) {
		synctest.Test(t, func(t *testing.T) {
			s := fakeSession(t, suites()[0])
			device, agent := connsOf(t, s, copyOf(t, s), 7, 1<<20)
			device.Write([]byte("content"))
			synctest.Wait()
			sealed := device.out.half.seq
			for r := bytes.NewReader(b); ; {
				fr, err := ReadFrame(r)
				if err != nil {
					break
				}
				if fr.Type != frameAck && fr.Type != frameCancel && fr.Type != frameGoAway {
					continue
				}
				if err := s.control(fr); err != nil {
					var away *GoAwayError
					if !errors.Is(err, ErrFrame) && !errors.As(err, &away) {
						t.Fatalf("%x: %v", b, err)
					}
					break
				}
				device.mu.Lock()
				acked := device.out.acked
				device.mu.Unlock()
				if acked != stopped && acked > sealed {
					t.Fatalf("%x frees %d records of %d", b, acked, sealed)
				}
			}
			device.Close()
			agent.Close()
		})
	})
}
