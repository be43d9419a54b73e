package pair

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

func openAway(t testing.TB, path string) *Away {
	t.Helper()
	a, err := OpenAway(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func testServer(name string, n byte) Server {
	return Server{Name: name, Pin: e2e.Pin{n}, Route: wire.Route{n, 1}, Device: "tv", Token: wire.Token{n, 2}, Relays: testRelays, Paired: time.Unix(1767225600, 0).UTC()}
}

func TestAway(t *testing.T) {
	path := stateDir(t)
	a := openAway(t, path)
	_, err := a.Find("")
	wantErr(t, err, "blindlink open INVITE")
	home, err := a.Add(testServer("home", 1))
	if err != nil || !reflect.DeepEqual(home, testServer("home", 1)) {
		t.Fatal(home, err)
	}
	if got, err := a.Find(""); err != nil || !reflect.DeepEqual(got, home) {
		t.Errorf("the only one: %#v, %v", got, err)
	}
	other, err := a.Add(testServer("HOME", 2))
	if err != nil || other.Name != "HOME-2" {
		t.Errorf("the second is named %q, %v", other.Name, err)
	}
	// News from the first: its name and place stay.
	news := testServer("renamed", 1)
	news.Token, news.Relays = wire.Token{9}, testRelays[:1]
	home, err = a.Add(news)
	if err != nil || home.Name != "home" || home.Token != news.Token {
		t.Errorf("news: %#v, %v", home, err)
	}
	pin := keyPin(t, a)
	a.Close()
	a = openAway(t, path)
	if keyPin(t, a) != pin {
		t.Error("the key changed with a restart")
	}
	all, err := a.Servers()
	if err != nil || !reflect.DeepEqual(all, []Server{home, other}) {
		t.Errorf("after a restart: %#v, %v", all, err)
	}
	if got, err := a.Find("home-2"); err != nil || !reflect.DeepEqual(got, other) {
		t.Errorf("by name: %#v, %v", got, err)
	}
	_, err = a.Find("")
	wantErr(t, err, `name one of "home", "HOME-2"`)
	_, err = a.Find("office")
	wantErr(t, err, `no server is named "office" here, there is "home", "HOME-2"`)
	wantErr(t, a.Remove("office"), "no server is named")
	if err := a.Remove("Home"); err != nil {
		t.Fatal(err)
	}
	if got, err := a.Find(""); err != nil || got.Name != "HOME-2" {
		t.Errorf("after Remove: %v, %v", got, err)
	}
	for _, bad := range []Server{
		{Name: "", Device: "tv", Relays: testRelays}, {Name: "a", Device: "\n", Relays: testRelays}, {Name: "a", Device: "tv"},
	} {
		_, err := a.Add(bad)
		wantErr(t, err, "store the server")
	}
}

func keyPin(t *testing.T, a *Away) e2e.Pin {
	t.Helper()
	pin, err := e2e.PinOf(a.Identity().Public())
	if err != nil {
		t.Fatal(err)
	}
	return pin
}

func TestAwayRefuses(t *testing.T) {
	edit := func(old, new string) func(*testing.T, string) error {
		return func(t *testing.T, d string) error {
			path := filepath.Join(d, awayName)
			b, err := os.ReadFile(path)
			if err != nil || !strings.Contains(string(b), old) {
				t.Fatalf("no %q in %s, %v", old, b, err)
			}
			return os.WriteFile(path, []byte(strings.Replace(string(b), old, new, 1)), 0o600)
		}
	}
	cases := append(breakages(awayName, deviceName),
		breakage{"two servers of a name", edit(`"office"`, `"HOME"`), "twice"},
		breakage{"two servers of a pin", edit(e2e.Pin{2}.String(), e2e.Pin{1}.String()), "twice"},
		breakage{"a state that claims to be new", edit(`"generation": 3`, `"generation": 0`), "has no generation"},
		breakage{"a bad route", edit(wire.Route{1, 1}.String(), "a"), "not a route"},
		breakage{"a short token", edit(`"AQIAAAAAAAAAAAAAAAAAAA=="`, `"AAAA"`), "token has 3 bytes"},
		breakage{"no relays", edit(`"relay.example.org:4433`, `"relay.example.org`), "HOST:PORT"},
		breakage{"a nasty device name", edit(`"tv"`, `"\u0007"`), "do not print"},
	)
	testBreakages(t, cases, func(path string) (func() error, error) {
		a, err := OpenAway(path)
		if err != nil {
			return nil, err
		}
		for i, name := range []string{"home", "office"} {
			if _, err := a.Add(testServer(name, byte(i+1))); err != nil {
				return nil, err
			}
		}
		return a.Close, nil
	})
}

// TestAwayShared lets several processes' worth of Aways add servers to one
// directory at once: none is lost.
func TestAwayShared(t *testing.T) {
	path := stateDir(t)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			a, err := OpenAway(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer a.Close()
			for i := range 5 {
				if _, err := a.Add(testServer("s", byte(1+g*10+i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	reader := openAway(t, path)
	written := make(chan struct{}) // closed when all are added
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			if _, err := reader.Servers(); err != nil {
				t.Errorf("read while another writes: %v", err)
			}
			select {
			case <-written:
				return
			default:
			}
		}
	})
	wg.Wait()
	close(written)
	reading.Wait()
	a := openAway(t, path)
	all, err := a.Servers()
	if err != nil || len(all) != 20 {
		t.Errorf("%d servers, %v, want 20", len(all), err)
	}
	for n := len(all); n < maxServers; n++ {
		if _, err := a.Add(testServer("s", byte(101+n))); err != nil {
			t.Fatal(err)
		}
	}
	_, err = a.Add(testServer("one more", 99))
	wantErr(t, err, "100 servers")
}

func TestServerShowsNoToken(t *testing.T) {
	s := testServer("home", 1)
	fill(s.Token[:], 0x40)
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, v := range []any{s, &s, []Server{s}} {
			if got := fmt.Sprintf(format, v); strings.Contains(got, "64 65 66") || strings.Contains(got, "0x40, 0x41") || strings.Contains(got, "@ABC") {
				t.Errorf("%s shows the token: %s", format, got)
			}
		}
	}
}

func FuzzAwayFile(f *testing.F) {
	a := openAway(f, stateDir(f))
	if _, err := a.Add(testServer("home", 1)); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(a.dir.file(awayName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseAway(b)
		if err != nil {
			return
		}
		for i, v := range s.Servers {
			if got := saved(v.server()); !reflect.DeepEqual(got, v) && !strings.EqualFold(got.Route, v.Route) {
				t.Fatalf("server %d: %#v became %#v", i, v, got)
			}
		}
	})
}
