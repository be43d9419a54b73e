package endpoint

import (
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"net/netip"
	"testing"

	"github.com/blindrelay/blindrelay/crypto/e2e"
)

func TestDeviceAddress(t *testing.T) {
	carrier := netip.MustParsePrefix("100.64.0.0/10")
	seen := make(map[netip.Addr]bool)
	const n = 1000
	for i := range uint32(n) {
		pin := e2e.Pin(sha256.Sum256(binary.BigEndian.AppendUint32(nil, i)))
		a := deviceAddress(pin)
		if !carrier.Contains(a) || a.IsPrivate() || a.IsLoopback() || a.As4()[3] == 0 || a.As4()[3] == 255 {
			t.Fatalf("a device has the address %v", a)
		}
		if a != deviceAddress(pin) {
			t.Fatal("the address of a device changes")
		}
		seen[a] = true
	}
	// 0.12 pairs are expected among 4.2 million addresses.
	if len(seen) < n-3 {
		t.Errorf("%d devices have only %d addresses", n, len(seen))
	}
	var low, high e2e.Pin
	for i := range high {
		high[i] = 0xff
	}
	if got := deviceAddress(low).String(); got != "100.64.0.1" {
		t.Errorf("lowest pin: %s", got)
	}
	if !carrier.Contains(deviceAddress(high)) {
		t.Errorf("highest pin: %v", deviceAddress(high))
	}
}

func TestStripForwarded(t *testing.T) {
	h := http.Header{}
	for _, name := range []string{
		"Forwarded", "X-Forwarded-For", "X-Forwarded-User", "X_Forwarded_For", "X-Real-Ip", "X_real-IP",
		"Remote-User", "True-Client-Ip", "X-Webauth-User", "X-Auth-Request-Email", "X-Original-Forwarded-For",
	} {
		h[name] = []string{"127.0.0.1"}
	}
	kept := []string{"Range", "Cookie", "X-Emby-Authorization", "X-Plex-Token", "X-Forwarded", "Authorization", "Remote"}
	for _, name := range kept {
		h[name] = []string{"x"}
	}
	stripForwarded(h)
	for _, name := range kept {
		if h.Get(name) == "" {
			t.Errorf("%s is gone", name)
		}
	}
	if len(h) != len(kept) {
		t.Errorf("left are %v", h)
	}
}
