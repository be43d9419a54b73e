//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
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
	if err := refusedPage(tv); err != nil {
		t.Error(err)
	}
	select {
	case err := <-phoneDrip:
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

// refusedPage is an error unless the device's port gives no page of the origin.
func refusedPage(d device) error {
	status, body, err := get(d.url)
	if err == nil && (status == http.StatusOK || strings.Contains(body, helloBody)) {
		return fmt.Errorf("the device that has no right still gets %d %q", status, body)
	}
	return nil
}

// TestOff turns remote access off in the middle of a response, restarts the
// agent, and turns it on again.
func TestOff(t *testing.T) {
	r := openRelay(t)
	to := startDrip(t)
	a := share(t, r, to)
	d := open(t, a)
	stream := dripping(t, d)

	a.link(t, "off").want(t, 0)
	wantBroken(t, stream, ownerLimit)
	if err := refusedPage(d); err != nil {
		t.Error(err)
	}
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
	if err := refusedPage(d); err != nil {
		t.Error(err)
	}
	again.link(t, "on").want(t, 0)
	again.firstLine(t)
	wantPage(t, d, 20*time.Second)
	again.link(t, "on").want(t, 0) // saying it twice does no harm
}
