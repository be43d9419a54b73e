package cinema

import (
	"bytes"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"
)

// get asks h for target and returns the answer.
func get(h http.Handler, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", "http://demo/", nil)
	r.URL.Path, r.RequestURI = target, target // as a client may write it, not cleaned
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// clip returns a Cinema with the built-in clip.
func clip(t *testing.T) *Cinema {
	t.Helper()
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPageFiles(t *testing.T) {
	c := clip(t)
	for target, contentType := range map[string]string{
		"/":          "text/html; charset=utf-8",
		"/style.css": "text/css; charset=utf-8",
		"/app.js":    "text/javascript; charset=utf-8",
		"/icon.svg":  "image/svg+xml",
	} {
		got := get(c, target)
		if got.Code != http.StatusOK || got.Body.Len() == 0 {
			t.Errorf("%s: status %d with %d bytes", target, got.Code, got.Body.Len())
		}
		if ct := got.Header().Get("Content-Type"); ct != contentType {
			t.Errorf("%s: Content-Type %q, want %q", target, ct, contentType)
		}
	}
	for _, target := range []string{"/page/index.html", "/index.html", "/clip/make.sh", "/film/", "/nothing"} {
		if got := get(c, target); got.Code != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", target, got.Code)
		}
	}
	post := httptest.NewRecorder()
	c.ServeHTTP(post, httptest.NewRequest("POST", "/wire", nil))
	if post.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST /wire: status %d, want 405", post.Code)
	}
}

func TestEveryAnswerCarriesThePolicy(t *testing.T) {
	c := clip(t)
	for _, target := range []string{"/", "/api/films", "/film/clip.mp4", "/nothing"} {
		h := get(c, target, "Range", "bytes=0-0").Header()
		policy := h.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none';") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") {
			t.Errorf("%s: Content-Security-Policy %q", target, policy)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cross-Origin-Resource-Policy") != "same-origin" || h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: headers %v", target, h)
		}
	}
}

// The policy forbids inline code and other hosts: the page must need neither.
func TestPageNeedsNoOtherHostAndNoInlineCode(t *testing.T) {
	outside := regexp.MustCompile(`(?i)(src|href|url|import|fetch)\s*[=(]?\s*["'(]?\s*(https?:)?//[a-z]`)
	inline := regexp.MustCompile(`(?i)<style|<script>|\sstyle=|\son[a-z]+=`)
	fs.WalkDir(pageFiles, "page", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(pageFiles, name)
		if err != nil {
			t.Fatal(err)
		}
		if m := outside.Find(text); m != nil {
			t.Errorf("%s names another host: %s", name, m)
		}
		if strings.HasSuffix(name, ".html") {
			if m := inline.Find(text); m != nil {
				t.Errorf("%s has inline code: %s", name, m)
			}
		}
		return nil
	})
}

func TestRanges(t *testing.T) {
	c := clip(t)
	whole, err := fs.ReadFile(clipFiles, "clip/clip.mp4")
	if err != nil {
		t.Fatal(err)
	}
	n := len(whole)
	for rng, want := range map[string]struct {
		code int
		body []byte
	}{
		"bytes=0-9":                   {206, whole[:10]},
		"bytes=1000-1999":             {206, whole[1000:2000]},
		"bytes=-5":                    {206, whole[n-5:]},
		"bytes=811000-":               {206, whole[811000:]},
		"bytes=811048-99999999999":    {206, whole[811048:]},
		"bytes=99999999-":             {416, nil},
		"bytes=5-2":                   {416, nil},
		"bytes=-99999999999999999999": {416, nil},
	} {
		got := get(c, "/film/clip.mp4", "Range", rng)
		if got.Code != want.code {
			t.Errorf("%s: status %d, want %d", rng, got.Code, want.code)
		}
		if want.body != nil && !bytes.Equal(got.Body.Bytes(), want.body) {
			t.Errorf("%s: %d bytes that are not the file's", rng, got.Body.Len())
		}
	}
	if h := get(c, "/film/clip.mp4", "Range", "bytes=0-9").Header(); h.Get("Accept-Ranges") != "bytes" || h.Get("Content-Type") != "video/mp4" {
		t.Errorf("headers %v", h)
	}
}

// Every name in the clip's playlists is a file that is served as media.
func TestClipIsComplete(t *testing.T) {
	c := clip(t)
	total := 0
	seen := map[string]bool{}
	uri := regexp.MustCompile(`URI="([^"]+)"`)
	for queue := []string{"/film/hls/master.m3u8", "/film/clip.mp4"}; len(queue) > 0; queue = queue[1:] {
		name := queue[0]
		if seen[name] {
			continue
		}
		seen[name] = true
		data, err := fs.ReadFile(clipFiles, "clip"+strings.TrimPrefix(name, "/film"))
		if err != nil {
			t.Fatal(err)
		}
		total += len(data)
		got := get(c, name, "Range", "bytes=0-9")
		if ct := got.Header().Get("Content-Type"); got.Code != 206 || ct != mediaTypes[path.Ext(name)] {
			t.Errorf("%s: status %d, Content-Type %q", name, got.Code, ct)
		}
		if path.Ext(name) != ".m3u8" {
			continue
		}
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSpace(line)
			if m := uri.FindStringSubmatch(line); m != nil {
				line = m[1]
			}
			if line != "" && line[0] != '#' {
				queue = append(queue, path.Join(path.Dir(name), line))
			}
		}
	}
	if len(seen) < 10 || total >= 2_000_000 {
		t.Errorf("the clip has %d files with %d bytes", len(seen), total)
	}
}

// newServer serves h on a loopback port and returns its base URL.
func newServer(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// fetch gets an URL as it is written, without following redirects.
func fetch(t *testing.T, url string) (body string, code int, contentType string) {
	t.Helper()
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Close = true
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), answer.StatusCode, answer.Header.Get("Content-Type")
}
