//go:build unix

package cinema

import (
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Opening a named pipe would wait for its writer: it is neither listed nor
// served, and New and the request return.
func TestNamedPipeIsNoFilm(t *testing.T) {
	dir := tree(t, "film.mp4")
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.mp4"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := open(t, dir)
	if list := listOf(t, c); len(list.Films) != 1 || list.LeftOut != 1 {
		t.Errorf("listed %+v", list)
	}
	if got := get(c, "/film/pipe.mp4"); got.Code != http.StatusNotFound {
		t.Errorf("status %d", got.Code)
	}
}

func TestUnreadableFolderIsSaid(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root reads every folder")
	}
	dir := tree(t, "film.mp4", "locked/other.mp4")
	if err := os.Chmod(filepath.Join(dir, "locked"), 0); err != nil {
		t.Fatal(err)
	}
	if list := listOf(t, open(t, dir)); len(list.Films) != 1 || list.LeftOut != 1 {
		t.Errorf("listed %+v", list)
	}
}
