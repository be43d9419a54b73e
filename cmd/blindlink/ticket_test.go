package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

func TestReadTicket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ticket")
	longest := "a." + strings.Repeat("b", wire.MaxTicket-4) + ".c"
	for text, want := range map[string]string{
		"aA0-_.bB1.cC2": "aA0-_.bB1.cC2", " a.b.c\r\n": "a.b.c", "a.b.\n": "a.b.", longest + "\n": longest,
		"": "", "nonsense": "", "a.b": "", "a.b.c.d": "", "a.b.c\na.b.c": "", "a.b.c d": "", "a.b.\x00": "", longest + "c": "",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readTicket(path)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%.20q is read as %.20q, %v", text, got, err)
		}
		if err != nil && (!strings.Contains(err.Error(), path) || text != "" && strings.Contains(err.Error(), text)) {
			t.Errorf("%.20q: the error is %v", text, err)
		}
	}
	os.Chmod(path, 0o604)
	for file, word := range map[string]string{path: "chmod 600 " + path, dir: "not a file", filepath.Join(dir, "none"): "--ticket"} {
		if _, err := readTicket(file); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v, want a word of %q", file, err, word)
		}
	}
}

// TestFollowTicket hands on what is new and whole, and says what is not, once.
func TestFollowTicket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ticket")
	ctx, cancel := context.WithCancel(t.Context())
	log := newOutput()
	renewed := make(chan string, 10) // more than there are
	ticks := make(chan time.Time)
	var wait sync.WaitGroup
	wait.Go(func() {
		followTicket(ctx, path, "a.b.1", ticks, func(s string) { renewed <- s }, slog.New(slog.NewTextHandler(log, nil)))
	})
	step := func(text string) {
		t.Helper()
		// The tick before may still be reading: it finds one text or the other.
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		ticks <- time.Time{}
		ticks <- time.Time{} // the one before was handled
	}
	warnings := func() int { return strings.Count(log.String(), "stays in use") }
	step("a.b.1\n")
	step("a.b.2")
	step("a.b")
	if warnings() != 1 {
		t.Errorf("the log says %s", log)
	}
	step("a.b.2")
	step("a.b")
	if warnings() != 2 {
		t.Errorf("the log says %s", log)
	}
	step("a.b.1")
	cancel()
	wait.Wait()
	close(renewed)
	var got []string
	for s := range renewed {
		got = append(got, s)
	}
	if strings.Join(got, " ") != "a.b.2 a.b.1" {
		t.Errorf("renewed: %v", got)
	}
	if strings.Contains(log.String(), "a.b") {
		t.Errorf("a ticket is in the log: %s", log)
	}
}
