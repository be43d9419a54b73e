package pair

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

var testBinding = bytes.Repeat([]byte{7}, 32)

// result is what both sides of a conversation return.
type result struct {
	dev      Device
	serveErr error
	srv      Server
	reqErr   error
	took     time.Duration // until the device knew
}

// converse runs both sides over a pipe.
func converse(t *testing.T, h *Home, inv Invite, pin e2e.Pin, name string, approve Approver) result {
	t.Helper()
	var r result
	agent, device := net.Pipe()
	defer device.Close()
	start := time.Now()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer agent.Close()
		r.dev, r.serveErr = h.Serve(t.Context(), agent, pin, testBinding, approve)
	})
	r.srv, r.reqErr = Request(t.Context(), device, inv, name)
	r.took = time.Since(start)
	wg.Wait()
	return r
}

func TestPair(t *testing.T) {
	h := newHome(t)
	for _, tc := range []struct{ invite, own, want string }{
		{"tv", "android-123", "tv"},
		{"", "Pixel 9", "Pixel 9"},
		{"", "\x1b]0;x\a\n", "]0;x"},
		{"", "", "device"},
		{"TV", "", "TV-2"},
		{"", strings.Repeat("x", 5000), strings.Repeat("x", 64)},
	} {
		inv := invite(t, h, tc.invite, false)
		pin := e2e.Pin{byte(len(h.Devices()) + 1)}
		r := converse(t, h, inv, pin, tc.own, nil)
		if r.serveErr != nil || r.reqErr != nil {
			t.Fatal(r.serveErr, r.reqErr)
		}
		want := Server{Name: h.Server(), Pin: h.Pin(), Route: h.Route(), Device: tc.want, Token: h.Token(pin), Relays: testRelays, Paired: r.srv.Paired}
		if !reflect.DeepEqual(r.srv, want) {
			t.Errorf("the device got %#v, want %#v", r.srv, want)
		}
		if d, ok := h.Admit(pin); !ok || d.Name != tc.want || d != r.dev {
			t.Errorf("admitted %v, %v; Serve gave %v", d, ok, r.dev)
		}
		if got := h.Tokens(); !slices.Contains(got, r.srv.Token.Hash()) || slices.Contains(got, inv.Token().Hash()) {
			t.Error("the registration has not the device's token in place of the invite's")
		}
	}
	// A device that is there already keeps its name and its place.
	n := len(h.Devices())
	r := converse(t, h, invite(t, h, "other", false), e2e.Pin{1}, "x", nil)
	if r.dev.Name != "tv" || len(h.Devices()) != n || len(h.state.Load().Invites) != 0 {
		t.Errorf("pairing again: %v, %d devices, invites %v", r.dev, len(h.Devices()), h.state.Load().Invites)
	}
}

// TestPairRace lets 100 devices use one invite at once.
func TestPairRace(t *testing.T) {
	h := newHome(t)
	inv := invite(t, h, "tv", false)
	var mu sync.Mutex
	var winners []e2e.Pin
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			pin := e2e.Pin{byte(i + 1)}
			r := converse(t, h, inv, pin, "tv", nil)
			if (r.serveErr == nil) != (r.reqErr == nil) {
				t.Errorf("the agent says %v, the device %v", r.serveErr, r.reqErr)
			}
			if r.reqErr == nil {
				mu.Lock()
				defer mu.Unlock()
				winners = append(winners, pin)
			}
		})
	}
	wg.Wait()
	if len(winners) != 1 || len(h.Devices()) != 1 || h.Devices()[0].Pin != winners[0] {
		t.Errorf("winners %v, devices %v", winners, h.Devices())
	}
}

// TestRefusalsAreUniform shows that nothing but chance tells an unknown, used,
// expired or withdrawn invite, or one whose owner is being asked, from another.
func TestRefusalsAreUniform(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		unknown := goldenInvite()
		used := invite(t, h, "", false)
		if r := converse(t, h, used, e2e.Pin{1}, "first", nil); r.reqErr != nil {
			t.Fatal(r.reqErr)
		}
		expired, err := h.NewInvite("", time.Minute, false)
		if err != nil {
			t.Fatal(err)
		}
		withdrawn := invite(t, h, "w", false)
		if err := h.Revoke("w"); err != nil {
			t.Fatal(err)
		}
		asking := invite(t, h, "", true)
		time.Sleep(time.Minute)
		if _, err := h.reserve(secretHash(asking.secret), true); err != nil {
			t.Fatal(err)
		}
		var answers []string
		for _, inv := range []Invite{unknown, used, expired, withdrawn, asking} {
			raw, took := rawAnswer(t, h, pairRequest{secret: inv.secret}.encode())
			if took != 0 {
				t.Errorf("refused after %v of waiting", took)
			}
			answers = append(answers, hex.EncodeToString(raw))
		}
		for _, a := range answers {
			if a != "1200020001" { // PAIR_ERR, length 2, refusal 1
				t.Errorf("answers %v", answers)
			}
		}
		if len(h.Devices()) != 1 {
			t.Errorf("devices %v", h.Devices())
		}
		// Five have failed within the minute: now a good one is refused too.
		good := invite(t, h, "", false)
		time.Sleep(failWindow - time.Nanosecond)
		r := converse(t, h, good, e2e.Pin{2}, "x", nil)
		wantErr(t, r.reqErr, "for a minute")
		time.Sleep(1 * time.Nanosecond)
		if r := converse(t, h, good, e2e.Pin{2}, "x", nil); r.reqErr != nil {
			t.Errorf("a minute later: %v", r.reqErr)
		}
		// The next window counts anew.
		for i := range 7 {
			raw, _ := rawAnswer(t, h, pairRequest{secret: unknown.secret}.encode())
			if want := map[bool]string{true: "1200020001", false: "1200020002"}[i < 5]; hex.EncodeToString(raw) != want {
				t.Errorf("failure %d: %x", i+1, raw)
			}
		}
	})
}

// rawAnswer sends a PAIR_REQ with this payload and returns all that comes back.
func rawAnswer(t *testing.T, h *Home, payload []byte) (answer []byte, took time.Duration) {
	t.Helper()
	agent, device := net.Pipe()
	start := time.Now()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer agent.Close()
		h.Serve(t.Context(), agent, e2e.Pin{9}, testBinding, nil)
	})
	if err := e2e.WriteFrame(device, e2e.Frame{Type: framePairReq, Payload: payload}); err != nil {
		t.Error(err)
	}
	answer, err := io.ReadAll(device)
	if err != nil {
		t.Error(err)
	}
	wg.Wait()
	return answer, time.Since(start)
}

func TestDeviceExplainsExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		inv := invite(t, h, "", false)
		time.Sleep(2 * time.Hour)
		wantErr(t, converse(t, h, inv, e2e.Pin{1}, "x", nil).reqErr, "the invite expired on 1 January 2000 at 01:00:00 UTC")
	})
}

func TestWords(t *testing.T) {
	got, err := Words(testBinding)
	if err != nil || got != goldenWords {
		t.Errorf("%s, %v, want %s", got, err, goldenWords)
	}
	if _, err := Words(testBinding[:31]); err == nil {
		t.Error("short keying material gives words")
	}
	h := newHome(t)
	agent, device := net.Pipe()
	defer agent.Close()
	defer device.Close()
	if _, err := h.Serve(t.Context(), agent, e2e.Pin{1}, nil, nil); err == nil {
		t.Error("a conversation without keying material was served")
	}
}

func TestApprove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		inv := invite(t, h, "tv", true)
		pin := e2e.Pin{1}
		open := func() bool { return slices.Contains(h.Tokens(), inv.Token().Hash()) }

		r := converse(t, h, inv, pin, "x", nil)
		wantErr(t, r.reqErr, "nobody at home approved")
		if !open() {
			t.Error("the invite is gone though nobody was asked")
		}

		// The owner does not answer.
		r = converse(t, h, inv, pin, "x", func(ctx context.Context, name, words string) bool { <-ctx.Done(); return false })
		wantErr(t, r.reqErr, "nobody at home approved")
		if r.took != approveTime || !open() || len(h.reserved) != 0 {
			t.Errorf("after %v; open %v; reserved %d", r.took, open(), len(h.reserved))
		}

		// A yes that comes with the end of the time is none.
		r = converse(t, h, inv, pin, "x", func(ctx context.Context, name, words string) bool { <-ctx.Done(); return true })
		if r.reqErr == nil || r.dev.Name != "" {
			t.Error("approved after the time")
		}

		// The owner takes long and says yes; meanwhile the invite is taken.
		r = converse(t, h, inv, pin, "x", func(ctx context.Context, name, words string) bool {
			if name != "tv" || words != goldenWords {
				t.Errorf("the owner is asked about %q with %s", name, words)
			}
			if raw, _ := rawAnswer(t, h, pairRequest{secret: inv.secret}.encode()); hex.EncodeToString(raw) != "1200020001" {
				t.Errorf("another device got %x meanwhile", raw)
			}
			if len(h.Devices()) != 0 {
				t.Error("paired before the owner said yes")
			}
			time.Sleep(approveTime - 1)
			return true
		})
		if r.reqErr != nil || r.serveErr != nil || r.dev.Name != "tv" || open() {
			t.Errorf("%v, %v, %v, open %v", r.reqErr, r.serveErr, r.dev, open())
		}

		// The owner says no: the invite is gone.
		inv = invite(t, h, "radio", true)
		no := func(ctx context.Context, name, words string) bool { return false }
		r = converse(t, h, inv, e2e.Pin{2}, "x", no)
		wantErr(t, r.reqErr, "the owner did not approve")
		wantErr(t, r.serveErr, "the owner said no")
		if open() || len(h.Devices()) != 1 || len(h.reserved) != 0 {
			t.Errorf("open %v, devices %v, reserved %d", open(), h.Devices(), len(h.reserved))
		}
	})
}

func TestApproveThenWithdrawn(t *testing.T) {
	h := newHome(t)
	inv := invite(t, h, "tv", true)
	r := converse(t, h, inv, e2e.Pin{1}, "x", func(context.Context, string, string) bool {
		if err := h.Revoke("tv"); err != nil {
			t.Error(err)
		}
		return true
	})
	if r.reqErr == nil || len(h.Devices()) != 0 {
		t.Errorf("paired by a withdrawn invite: %v", h.Devices())
	}
}

// TestDeviceLeavesWhileOwnerIsAsked wants the question to end with the device
// and the invite to be good again.
func TestDeviceLeavesWhileOwnerIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		inv := invite(t, h, "tv", true)
		agent, device := net.Pipe()
		defer agent.Close()
		ctx, leave := context.WithTimeout(t.Context(), 3*time.Second)
		defer leave()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := Request(ctx, device, inv, "x"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Request: %v", err)
			}
		})
		start := time.Now()
		dev, err := h.Serve(t.Context(), agent, e2e.Pin{1}, testBinding, func(ctx context.Context, _, _ string) bool { <-ctx.Done(); return true })
		wantErr(t, err, "left while the owner was asked")
		if took := time.Since(start); took != 3*time.Second || dev.Name != "" || len(h.Devices()) != 0 || len(h.reserved) != 0 {
			t.Errorf("after %v: %v", took, dev)
		}
		wg.Wait()
		r := converse(t, h, inv, e2e.Pin{1}, "x", func(context.Context, string, string) bool { return true })
		if r.reqErr != nil {
			t.Errorf("the invite is not good any more: %v", r.reqErr)
		}
	})
}

func TestContextEndsServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, approve := range []bool{false, true} {
			h := newHome(t)
			inv := invite(t, h, "tv", approve)
			agent, device := net.Pipe()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			var wg sync.WaitGroup
			if approve {
				wg.Go(func() { Request(t.Context(), device, inv, "x") })
			}
			start := time.Now()
			_, err := h.Serve(ctx, agent, e2e.Pin{1}, testBinding, func(ctx context.Context, _, _ string) bool { <-ctx.Done(); return true })
			if err == nil || time.Since(start) != time.Second || len(h.Devices()) != 0 || len(h.Tokens()) != 1 {
				t.Errorf("approve %v: %v after %v", approve, err, time.Since(start))
			}
			wg.Wait()
			cancel()
			device.Close()
		}
	})
}

// TestSilence wants either side to give up on one that says nothing, at the
// documented time.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		for _, tc := range []struct {
			name string
			run  func(conn net.Conn) error
			want time.Duration
		}{
			{"agent", func(c net.Conn) error {
				_, err := h.Serve(t.Context(), c, e2e.Pin{1}, testBinding, nil)
				return err
			}, answerTime},
			{"device", func(c net.Conn) error {
				_, err := Request(t.Context(), c, goldenInvite(), "x")
				return err
			}, answerTime},
			{"device with approval", func(c net.Conn) error {
				_, err := Request(t.Context(), c, goldenPinned(), "x")
				return err
			}, approveTime + 2*answerTime},
		} {
			a, b := net.Pipe()
			start := time.Now()
			var wg sync.WaitGroup
			wg.Go(func() { io.Copy(io.Discard, b) })
			if err := tc.run(a); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %v", tc.name, err)
			}
			if took := time.Since(start); took != tc.want {
				t.Errorf("%s gave up after %v, want %v", tc.name, took, tc.want)
			}
			a.Close()
			b.Close()
			wg.Wait()
		}
		// A device that does not read its answer holds the agent 10 s.
		agent, device := net.Pipe()
		inv := invite(t, h, "tv", false)
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			e2e.WriteFrame(device, e2e.Frame{Type: framePairReq, Payload: pairRequest{secret: inv.secret}.encode()})
		})
		dev, err := h.Serve(t.Context(), agent, e2e.Pin{1}, testBinding, nil)
		wantErr(t, err, "the answer did not reach it")
		if dev.Name != "tv" || time.Since(start) != answerTime {
			t.Errorf("%v after %v", dev, time.Since(start))
		}
		agent.Close()
		wg.Wait()
		device.Close()
	})
}

func TestAgentRefusesGarbage(t *testing.T) {
	h := newHome(t)
	inv := invite(t, h, "tv", false)
	req := pairRequest{secret: inv.secret, name: "x"}.encode()
	good := append([]byte{framePairReq, 0, byte(len(req))}, req...)
	for name, sent := range map[string][]byte{
		"another type":      {framePairOK, 0, 0},
		"unknown type":      {0x7f, 0, 0},
		"empty request":     {framePairReq, 0, 0},
		"cut name":          append([]byte{framePairReq, 0, byte(len(req) - 1)}, req[:len(req)-1]...),
		"cut frame":         {framePairReq, 0, 17, 1, 2},
		"too long":          {framePairReq, 0xff, 0xff},
		"endless optionals": append(bytes.Repeat([]byte{0x80, 0, 0}, 100), good...),
		"TLS":               {0x16, 3, 1, 0, 0},
		"nothing":           {},
	} {
		agent, device := net.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() {
			device.Write(sent)
			device.Close()
		})
		if d, err := h.Serve(t.Context(), agent, e2e.Pin{1}, testBinding, nil); err == nil {
			t.Errorf("%s: paired %v", name, d)
		}
		agent.Close()
		wg.Wait()
	}
	if len(h.Devices()) != 0 || len(h.Tokens()) != 1 {
		t.Errorf("devices %v, %d tokens", h.Devices(), len(h.Tokens()))
	}
	// Optional frames and fields of later versions do no harm.
	agent, device := net.Pipe()
	defer device.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		device.Write([]byte{0x80, 0, 1, 5, 0xff, 0, 0})
		e2e.WriteFrame(device, e2e.Frame{Type: framePairReq, Payload: append(req, "more"...)})
		io.Copy(io.Discard, device)
	})
	if _, err := h.Serve(t.Context(), agent, e2e.Pin{1}, testBinding, nil); err != nil {
		t.Error(err)
	}
	agent.Close()
	wg.Wait()
}

func TestDeviceRefusesGarbage(t *testing.T) {
	g := testGrant().encode()
	nasty := testGrant()
	nasty.server = "\x1b[2J"
	for name, sent := range map[string][]byte{
		"another type":    {framePairReq, 0, 0},
		"empty grant":     {framePairOK, 0, 0},
		"cut grant":       append([]byte{framePairOK, 0, byte(len(g) - 1)}, g[:len(g)-1]...),
		"nasty name":      append([]byte{framePairOK, 0, byte(len(nasty.encode()))}, nasty.encode()...),
		"empty refusal":   {framePairErr, 0, 0},
		"unknown refusal": {framePairErr, 0, 2, 9, 9},
		"nothing":         {},
	} {
		agent, device := net.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() {
			e2e.ReadFrame(agent)
			agent.Write(sent)
			agent.Close()
		})
		if srv, err := Request(t.Context(), device, goldenInvite(), "x"); err == nil {
			t.Errorf("%s: got %#v", name, srv)
		}
		device.Close()
		wg.Wait()
	}
}

func testGrant() grant {
	g := grant{device: "tv", server: "home", relays: testRelays}
	fill(g.token[:], 0x10)
	return g
}

func TestGoldenMessages(t *testing.T) {
	req := pairRequest{name: "tv"}
	fill(req.secret[:], 0x40)
	for _, tc := range []struct {
		name string
		got  []byte
		want string
	}{
		{"PAIR_REQ", req.encode(), "404142434445464748494a4b4c4d4e4f" + "027476"},
		{"PAIR_OK", testGrant().encode(), "02" + "027476" + "04686f6d65" + "101112131415161718191a1b1c1d1e1f" +
			"02" + "16" + hex.EncodeToString([]byte("relay.example.org:4433")) + "11" + hex.EncodeToString([]byte("[2001:db8::1]:443")) +
			"010203" + strings.Repeat("00", 29) + strings.Repeat("00", 32)},
		{"PAIR_OK without pins", grant{device: "a", server: "b", token: wire.Token{}, relays: []wire.Relay{{Addr: "c:1"}}}.encode(),
			"00" + "0161" + "0162" + strings.Repeat("00", 16) + "01" + "03633a31"},
		{"PAIR_ERR", refusedByOwner.encode(), "0003"},
	} {
		if got := hex.EncodeToString(tc.got); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(testGrant().encode())
	f.Add(pairRequest{name: "x"}.encode())
	f.Add(refusedInvite.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if g, err := parseGrant(b); err == nil {
			again, err := parseGrant(g.encode())
			if err != nil || !reflect.DeepEqual(again, g) {
				t.Fatalf("%#v became %#v, %v", g, again, err)
			}
		}
		if r, err := parseRequest(b); err == nil {
			if err := checkName(r.name); err != nil {
				t.Fatal(err)
			}
			if again, err := parseRequest(r.encode()); err != nil || again != r {
				t.Fatalf("%#v became %#v, %v", r, again, err)
			}
		}
		if r, err := parseRefusal(b); err == nil && r.String() == "" {
			t.Fatal("a refusal without words")
		}
	})
}
