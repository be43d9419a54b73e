package cinema

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"
)

// tree makes a folder with the named files, each holding its own name.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func symlink(t *testing.T, target, dir, name string) {
	t.Helper()
	if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
		t.Skipf("this system makes no symbolic links: %v", err)
	}
}

// open returns a Cinema of dir that is closed with the test.
func open(t *testing.T, dir string) *Cinema {
	t.Helper()
	c, err := New(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func listOf(t *testing.T, c *Cinema) filmList {
	t.Helper()
	got := get(c, "/api/films")
	if ct := got.Header().Get("Content-Type"); ct != "application/json" {
		t.Errorf("Content-Type is %q", ct)
	}
	var list filmList
	if err := json.Unmarshal(got.Body.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

func TestFolderIsListed(t *testing.T) {
	c := open(t, tree(t,
		"b.MP4", "a film?.mkv", "series/one/x.webm", "series/one/x.txt", "music.mp3",
		"hls/master.m3u8", "hls/seg.m4s", "hls/seg.ts", "notes.pdf", ".hidden.mp4", ".git/y.mp4", "mp4"))
	want := []film{
		{"a film?", "MKV", "/film/a%20film%3F.mkv", "video/x-matroska", 11},
		{"b", "MP4", "/film/b.MP4", "video/mp4", 5},
		{"master", "M3U8, in hls", "/film/hls/master.m3u8", "application/vnd.apple.mpegurl", 15},
		{"music", "MP3", "/film/music.mp3", "audio/mpeg", 9},
		{"x", "WEBM, in series/one", "/film/series/one/x.webm", "video/webm", 17},
	}
	list := listOf(t, c)
	if !slices.Equal(list.Films, want) || list.More || list.LeftOut != 0 {
		t.Errorf("got  %+v\nwant %+v", list, want)
	}
	server := newServer(t, c)
	for _, f := range want {
		body, code, contentType := fetch(t, server+f.URL)
		if code != 200 || contentType != f.Type || int64(len(body)) != f.Bytes {
			t.Errorf("%s: status %d, %s, %q", f.URL, code, contentType, body)
		}
	}
	if body, _, contentType := fetch(t, server+"/film/hls/seg.m4s"); contentType != "video/iso.segment" || body != "hls/seg.m4s" {
		t.Errorf("a piece: %s, %q", contentType, body)
	}
}

func TestEmptyFolderListsNothing(t *testing.T) {
	if body := get(open(t, t.TempDir()), "/api/films").Body.String(); body != `{"films":[],"more":false,"leftOut":0}` {
		t.Errorf("got %s", body)
	}
}

func TestNothingButMediaLeavesTheFolder(t *testing.T) {
	outer := tree(t, "secret.mp4", "in/film.mp4", "in/notes.txt", "in/.secret/k.mp4", "in/.key.mp4", "in/dir.mp4/film.mp4")
	c := open(t, filepath.Join(outer, "in"))
	server := newServer(t, c)
	if body, code, _ := fetch(t, server+"/film/film.mp4"); code != 200 || body != "in/film.mp4" {
		t.Fatalf("status %d, %q", code, body)
	}
	for _, target := range []string{
		"/film/../secret.mp4", "/film/%2e%2e/secret.mp4", "/film/..%2fsecret.mp4", "/film/x/..%2f..%2fsecret.mp4",
		"/film/..%5csecret.mp4", "/film/%2f" + outer + "/secret.mp4", "/film//secret.mp4", "/film/./secret.mp4",
		"/film/film.mp4%00.mp4", "/film/film.mp4/", "/film/film.mp4/x.mp4", "/film/%ff.mp4",
		"/film/notes.txt", "/film/.secret/k.mp4", "/film/.key.mp4", "/film/dir.mp4", "/film/", "/film/.", "/film/none.mp4",
	} {
		if body, code, _ := fetch(t, server+target); code == http.StatusOK || code == http.StatusInternalServerError {
			t.Errorf("%s over HTTP: status %d, %q", target, code, body)
		}
		if got := get(c, target); got.Code == http.StatusOK || got.Code == http.StatusInternalServerError {
			t.Errorf("%s as a path: status %d, %q", target, got.Code, got.Body)
		}
	}
}

func TestSymlinks(t *testing.T) {
	outer := tree(t, "secret.mp4", "out/secret.mp4", "in/film.mp4", "in/sub/film2.mp4")
	in := filepath.Join(outer, "in")
	symlink(t, "film.mp4", in, "inside.mp4")
	symlink(t, "../secret.mp4", in, "escape.mp4")
	symlink(t, filepath.Join(outer, "secret.mp4"), in, "absolute.mp4")
	symlink(t, "../out", in, "outside")
	symlink(t, ".", in, "loop")
	symlink(t, "self.mp4", in, "self.mp4")
	c := open(t, in)
	list := listOf(t, c)
	var urls []string
	for _, f := range list.Films {
		urls = append(urls, f.URL)
	}
	if want := []string{"/film/film.mp4", "/film/inside.mp4", "/film/sub/film2.mp4"}; !slices.Equal(urls, want) {
		t.Errorf("listed %q, want %q", urls, want)
	}
	if list.LeftOut != 3 {
		t.Errorf("%d left out, want 3", list.LeftOut)
	}
	if got := get(c, "/film/inside.mp4"); got.Body.String() != "in/film.mp4" {
		t.Errorf("a link inside the folder: status %d, %q", got.Code, got.Body)
	}
	for _, target := range []string{"/film/escape.mp4", "/film/absolute.mp4", "/film/outside/secret.mp4", "/film/self.mp4"} {
		if got := get(c, target); got.Code != http.StatusNotFound {
			t.Errorf("%s: status %d, %q", target, got.Code, got.Body)
		}
	}
}

// A folder that is replaced by a link after it was listed still cannot lead out.
func TestSymlinkMadeAfterTheWalk(t *testing.T) {
	outer := tree(t, "out/film.mp4", "in/sub/film.mp4")
	in := filepath.Join(outer, "in")
	c := open(t, in)
	if err := os.RemoveAll(filepath.Join(in, "sub")); err != nil {
		t.Fatal(err)
	}
	symlink(t, "../out", in, "sub")
	if got := get(c, "/film/sub/film.mp4"); got.Code != http.StatusNotFound {
		t.Errorf("status %d, %q", got.Code, got.Body)
	}
}

func TestWalkIsBounded(t *testing.T) {
	films := func(n int) fstest.MapFS {
		m := fstest.MapFS{}
		for i := range n {
			m[fmt.Sprintf("%d/%d.mp4", i%7, i)] = &fstest.MapFile{}
		}
		return m
	}
	others := fstest.MapFS{}
	for i := range maxEntries + 1 {
		others[fmt.Sprintf("%d.txt", i)] = &fstest.MapFile{}
	}
	for name, c := range map[string]struct {
		fsys  fstest.MapFS
		films int
		more  bool
	}{
		"as many films as fit": {films(maxFilms), maxFilms, false},
		"one film too many":    {films(maxFilms + 1), maxFilms, true},
		"too many other files": {others, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			list := walk(c.fsys)
			if len(list.Films) != c.films || list.More != c.more || list.LeftOut != 0 {
				t.Errorf("%d films, more %v, left out %d; want %d, %v, 0", len(list.Films), list.More, list.LeftOut, c.films, c.more)
			}
		})
	}
}

func TestFolderThatCannotBeOpened(t *testing.T) {
	dir := tree(t, "file")
	for _, name := range []string{"none", "file"} {
		c, err := New(Config{Dir: filepath.Join(dir, name)})
		if err == nil {
			c.Close()
			t.Errorf("%s: opened", name)
		}
	}
}
