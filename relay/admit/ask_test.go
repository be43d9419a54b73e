package admit

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// asking returns a policy that asks a service.
func asking(t *testing.T, within time.Duration, h http.HandlerFunc) *Ask {
	t.Helper()
	s := httptest.NewServer(h)
	p, err := NewAsk(s.URL+"/admit", within)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close(); s.Close() })
	return p
}

func TestAsk(t *testing.T) {
	p := asking(t, 10*time.Second, func(w http.ResponseWriter, r *http.Request) {
		var got map[string]string
		b, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(b, &got)
		}
		if err != nil || r.Method != "POST" || r.URL.Path != "/admit" || r.Header.Get("Content-Type") != "application/json" ||
			len(got) != 2 || got["route"] != here.String() || got["ticket"] != "a ticket" {
			t.Errorf("%s %s %q: %v", r.Method, r.URL, b, err)
		}
		fmt.Fprint(w, `{"until":"2030-01-31T12:00:00Z","rate":50000000,"sessions":3,"volume":1099511627776,"weight":2}`)
	})
	want := Grant{Rate: 50e6, Sessions: 3, Volume: 1 << 40, Weight: 2, Until: time.Date(2030, 1, 31, 12, 0, 0, 0, time.UTC)}
	if g, err := p.Admit(t.Context(), Request{here, "a ticket"}); err != nil || g != want {
		t.Errorf("%+v, %v", g, err)
	}
}

func TestAskAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		status int
		body   string
		code   wire.Code // none: admitted
		word   string
	}{
		"no content":      {204, "", wire.CodeNone, ""},
		"no terms":        {200, "{}\n", wire.CodeNone, ""},
		"no":              {403, "", wire.CodeNotAdmitted, "has not admitted"},
		"no, and why":     {403, "pay your bill\n", wire.CodeNotAdmitted, "pay your bill"},
		"no, binary":      {403, "\x1b[2J", wire.CodeNotAdmitted, "has not admitted"},
		"no, at length":   {403, strings.Repeat("x", maxSentence+1), wire.CodeNotAdmitted, "has not admitted"},
		"a redirect":      {307, "", wire.CodeAdmitFailed, "307"},
		"broken":          {500, "", wire.CodeAdmitFailed, "500"},
		"another 2xx":     {202, "", wire.CodeAdmitFailed, "202"},
		"empty":           {200, "", wire.CodeAdmitFailed, "understands"},
		"a word unknown":  {200, `{"untill":"2030-01-31T12:00:00Z"}`, wire.CodeAdmitFailed, "untill"},
		"no time":         {200, `{"until":"tomorrow"}`, wire.CodeAdmitFailed, "understands"},
		"negative":        {200, `{"rate":-1}`, wire.CodeAdmitFailed, "negative"},
		"something else":  {200, "<html>", wire.CodeAdmitFailed, "understands"},
		"more behind it":  {200, "{}{}", wire.CodeAdmitFailed, "goes on"},
		"without an end":  {200, strings.Repeat(" ", maxAnswer+1), wire.CodeAdmitFailed, "more than"},
		"no, without end": {403, strings.Repeat(" ", maxAnswer+1), wire.CodeAdmitFailed, "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			p := asking(t, 10*time.Second, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/admit" {
					t.Errorf("the redirect is followed to %s", r.URL)
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(tc.status)
				io.WriteString(w, tc.body)
			})
			g, err := p.Admit(t.Context(), Request{Route: here})
			if tc.code == wire.CodeNone {
				if err != nil || g != (Grant{}) {
					t.Errorf("%+v, %v", g, err)
				}
				return
			}
			wantRefusal(t, err, tc.code, tc.word)
		})
	}
}

// FuzzAnswer reads every input as terms and as a sentence.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"rate":50000000,"sessions":3,"volume":1099511627776,"weight":2,"until":"2030-01-31T12:00:00Z"}`))
	f.Add([]byte("{}\n"))
	f.Add([]byte("{}{}"))
	f.Add([]byte(`{"rate":-1}`))
	f.Add([]byte("pay your bill\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if s := sentence(text); len(s) > maxSentence || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
			t.Errorf("%q is shown as %q", text, s)
		}
		g, err := terms(text)
		if err != nil {
			return
		}
		if g.Rate < 0 || g.Sessions < 0 || g.Volume < 0 || g.Weight < 0 {
			t.Errorf("%s has a negative term: %+v", text, g)
		}
		b, err := json.Marshal(answer(g))
		if err != nil {
			t.Fatal(err)
		}
		again, err := terms(b)
		if err != nil || !again.Until.Equal(g.Until) {
			t.Errorf("%s is %+v and then %+v, %v", text, g, again, err)
		}
		again.Until = g.Until
		if again != g {
			t.Errorf("%s is %+v and then %+v", text, g, again)
		}
	})
}

// TestAskInVain asks services that do not answer.
func TestAskInVain(t *testing.T) {
	release := make(chan struct{})
	p := asking(t, 50*time.Millisecond, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	_, err := p.Admit(t.Context(), Request{Route: here})
	wantRefusal(t, err, wire.CodeAdmitFailed, "ask the service")

	gone, err := NewAsk("http://127.0.0.1:1/?key=secret", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	_, err = gone.Admit(t.Context(), Request{here, "a ticket"})
	wantRefusal(t, err, wire.CodeAdmitFailed, "ask the service")
	if said := err.Error(); strings.Contains(said, "secret") || strings.Contains(said, "a ticket") {
		t.Errorf("the error says %s", said)
	}
}

func TestNewAsk(t *testing.T) {
	for _, address := range []string{"", "127.0.0.1:80", "ftp://127.0.0.1", "http://", "/admit", "http://[::1"} {
		if _, err := NewAsk(address, time.Second); err == nil || !strings.Contains(err.Error(), "http://") {
			t.Errorf("%q: %v", address, err)
		}
	}
}
