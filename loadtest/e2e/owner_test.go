//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"
)

// ownerLimit is how soon after the owner's word no byte flows any more. The
// programs promise 1 s; the rest is for a busy machine.
const ownerLimit = 3 * time.Second

// TestRevoke takes a device's right away in the middle of a response. The
// other device does not notice.
func TestRevoke(t *testing.T) {
	a := share(t, openRelay(t), startDrip(t))
	tv, phone := open(t, a, "--name", "tv"), open(t, a, "--name", "phone")
	tvDrip, phoneDrip := dripping(t, tv), dripping(t, phone)
	a.link(t, "devices", "rename", "tv", "old tv").want(t, 0)
	if got := a.devices(t); !slices.Equal(got, []string{"old tv", "phone"}) {
		t.Errorf("devices are %q", got)
	}

	a.link(t, "devices", "revoke", "old tv").want(t, 0)
	wantBroken(t, tvDrip, ownerLimit)
	wantNoPage(t, tv, "revoked", "new invite")
	select {
	case err := <-phoneDrip.ended:
		t.Errorf("the other device's response ended: %v", err)
	default:
	}
	wantPage(t, phone, 0)
	if got := a.devices(t); !slices.Equal(got, []string{"phone"}) {
		t.Errorf("devices are %q", got)
	}

	t.Run("it stays out", func(t *testing.T) {
		tv.stop(t)
		again := startDevice(t, tv.state)
		again.wantExit(t, readyTimeout, 1)
		again.wantSaid(t, "revoked", "invite")
	})
	a.link(t, "devices", "revoke", "nobody").want(t, 1, "nobody", "devices")
}

// devices returns the names that the owner sees, sorted.
func (a agent) devices(t *testing.T) (names []string) {
	t.Helper()
	r := a.link(t, "devices", "list", "--json").want(t, 0)
	var list []struct{ Name string }
	if err := json.Unmarshal([]byte(r.stdout), &list); err != nil {
		t.Fatalf("%v: %v", err, r)
	}
	for _, d := range list {
		names = append(names, d.Name)
	}
	slices.Sort(names)
	return names
}

// wantNoPage asserts that the device's port answers in time, and not with the
// origin's page: with a 502 whose sentence holds the words, if it answers HTTP.
// A request whose stream was on its way when the server left is aborted, which
// may happen to the first ones.
func wantNoPage(t *testing.T, d device, words ...string) {
	t.Helper()
	begin := time.Now()
	status, body, err := get(d.url)
	for aborted := 0; aborted < 3 && errors.Is(err, syscall.ECONNRESET); aborted++ {
		time.Sleep(50 * time.Millisecond)
		begin = time.Now()
		status, body, err = get(d.url)
	}
	took := time.Since(begin).Round(time.Millisecond)
	switch {
	case took >= pageLimit:
		t.Errorf("%s had no answer within %v", d.url, pageLimit)
	case err == nil && status != http.StatusBadGateway:
		t.Errorf("%s answers %d %q after %v, want 502", d.url, status, body, took)
	case err != nil:
		t.Errorf("%s answers nothing: %v after %v, want 502", d.url, err, took)
	default:
		if m := missing(body, words); m != nil {
			t.Errorf("the 502 does not say %q: %q", m, body)
		}
		t.Logf("after %v: %d %q", took, status, body)
	}
}

// TestOff turns remote access off in the middle of a response, restarts the
// agent, and turns it on again.
func TestOff(t *testing.T) {
	t.Parallel() // it waits most of its time
	r := openRelay(t)
	to := startDrip(t)
	a := share(t, r, to)
	d := open(t, a)
	stream := dripping(t, d)

	a.link(t, "off").want(t, 0)
	wantBroken(t, stream, ownerLimit)
	wantNoPage(t, d, "remote access")
	eventually(t, ownerLimit, "the relay forgets the route", func() error {
		n, err := r.metric("blindrelay_agents", "")
		if err == nil && n != 0 {
			err = fmt.Errorf("%v agents registered", n)
		}
		return err
	})

	a.stop(t)
	again := startAgent(t, r.address, to, a.state)
	again.wantSaid(t, "off", "blindlink on")
	wantNoPage(t, d, "remote access")
	again.link(t, "on").want(t, 0)
	again.firstLine(t)
	wantPage(t, d, 20*time.Second)
	again.link(t, "on").want(t, 0) // saying it twice does no harm
}
