package wire

import (
	"encoding/hex"
	"strings"
	"testing"
)

func TestRouteOf(t *testing.T) {
	// printf 'blindrelay-route/1\0key' | sha256sum
	const want = "601b669e8cad59fee590aa2b40b9302e"
	route := RouteOf([]byte("key"))
	if got := hex.EncodeToString(route[:]); got != want {
		t.Errorf("the route of \"key\" is %s, want %s", got, want)
	}
	hash := someToken.Hash()
	if got := hex.EncodeToString(hash[:]); got != "503563c1bda45327ff4617750a06bd8143fcd4e7929934b7cf1e826c1ba60c90" {
		t.Errorf("the token's hash is %s", got)
	}
}

func TestParseRoute(t *testing.T) {
	text := someRoute.String()
	if text != "aaaqeayeaudaocajbifqydiob4" {
		t.Errorf("the route is written %s", text)
	}
	for _, s := range []string{text, strings.ToUpper(text), "A" + text[1:]} {
		if r, err := ParseRoute(s); err != nil || r != someRoute {
			t.Errorf("%s: %v, %v", s, r, err)
		}
	}
	for _, s := range []string{
		"", text[:25], text + "a", text + "=", text[:25] + "5", " " + text, text + "\n", text[:5] + "\n" + text[5:],
		"0" + text[1:], "ı" + text[1:], text[:25] + "ſ", strings.Repeat("a", 1<<16),
	} {
		if r, err := ParseRoute(s); err == nil {
			t.Errorf("%.40q is taken for %v", s, r)
		}
	}
}

func FuzzParseRoute(f *testing.F) {
	f.Add(someRoute.String())
	f.Add(strings.ToUpper(someRoute.String()))
	f.Add("aaaqeayeaudaocajbifqydiob5")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRoute(s)
		if err == nil && r.String() != strings.ToLower(s) {
			t.Errorf("%q is taken for %v", s, r)
		}
	})
}
