package wire

import (
	"strings"
	"testing"
)

func TestParseRelay(t *testing.T) {
	pin := KeyPin{1, 2, 3}
	good := "#" + pin.String()
	if len(good) != 44 {
		t.Fatalf("a pin has %d characters", len(good)-1)
	}
	for _, c := range []struct {
		in, addr, tcp string
		pinned        bool
	}{
		{"relay.example.org:4433", "relay.example.org:4433", "relay.example.org:4433", false},
		{"relay.example.org:4433" + good, "relay.example.org:4433", "relay.example.org:4433", true},
		{"192.0.2.1:1" + good, "192.0.2.1:1", "192.0.2.1:1", true},
		{"[2001:db8::1]:65535", "[2001:db8::1]:65535", "[2001:db8::1]:65535", false},
		{"relay.example.org:4433/443", "relay.example.org:4433", "relay.example.org:443", false},
		{"[2001:db8::1]:1/65535" + good, "[2001:db8::1]:1", "[2001:db8::1]:65535", true},
	} {
		r, err := ParseRelay(c.in)
		if err != nil || r.Addr != c.addr || r.TCPAddr() != c.tcp || r.Pinned() != c.pinned || r.String() != c.in {
			t.Errorf("%s: %v, %v", c.in, r, err)
		}
		if address, _, _ := strings.Cut(c.in, "#"); r.Address() != address {
			t.Errorf("%s: the address is %s", c.in, r.Address())
		}
		if c.pinned && r.Pin != pin {
			t.Errorf("%s: the pin is %v", c.in, r.Pin)
		}
	}
	for in, hint := range map[string]string{
		"":                               "HOST:PORT",
		"relay.example.org":              "HOST:PORT",
		":4433":                          "HOST:PORT",
		"2001:db8::1:4433":               "HOST:PORT",
		"relay.example.org:":             "port",
		"relay.example.org:0":            "port",
		"relay.example.org:65536":        "port",
		"relay.example.org:-1":           "port",
		"relay.example.org:https":        "port",
		"relay.example.org:04433":        "port",
		"relay.example.org:4433/":        "TCP port",
		"relay.example.org:4433/0":       "TCP port",
		"relay.example.org:4433/0443":    "TCP port",
		"relay.example.org:4433/65536":   "TCP port",
		"relay.example.org:4433/443/443": "TCP port",
		"relay.example.org:4433/4433":    "leave /4433 out",
		"relay.example.org/443:4433":     "HOST:PORT",
		"[relay.example.org]:4433":       "brackets",
		"relay\x1b.example.org:4433":     "character",
		"r:1#" + KeyPin{}.String():       "all zeros",
		strings.Repeat("r", 199) + ":1":  "at most 200",
		"relay.example.org:4433#":        "43 characters",
		"r:1" + good[:43]:                "43 characters",
		"r:1" + good + "A":               "43 characters",
		"r:1" + good + "=":               "43 characters",
		"r:1" + good + good:              "43 characters",
		"r:1" + good[:43] + "/":          "43 characters",
		"r:1#" + strings.Repeat("B", 43): "43 characters", // bits beyond the last byte
	} {
		if r, err := ParseRelay(in); err == nil || !strings.Contains(err.Error(), hint) {
			t.Errorf("%q: %v, %v, want a hint with %q", in, r, err, hint)
		}
	}
}

func FuzzParseRelay(f *testing.F) {
	f.Add("relay.example.org:4433")
	f.Add("[::1]:1#" + KeyPin{7}.String())
	f.Add("a:1#")
	f.Add("a:1/2#" + KeyPin{7}.String())
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRelay(s)
		if err != nil {
			return
		}
		if r.String() != s {
			t.Errorf("%q became %q", s, r)
		}
		var same Relay
		if err := same.UnmarshalText([]byte(r.String())); err != nil || same != r {
			t.Errorf("%q became %v, %v", s, same, err)
		}
	})
}
