package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestDemo runs the whole demo over real sockets, fetches a film through its
// relay, and sees on the page's live view that the relay carried it.
func TestDemo(t *testing.T) {
	dir := t.TempDir()
	film := make([]byte, 3<<20)
	for i := range film {
		film[i] = byte(i * i >> 7)
	}
	if err := os.WriteFile(filepath.Join(dir, "film.mp4"), film, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	read, write := io.Pipe()
	over := make(chan error, 1) // run's one result
	go func() {
		over <- run(ctx, write, "127.0.0.1:0", dir, slog.New(slog.DiscardHandler))
		write.Close()
	}()
	url := ""
	for lines := bufio.NewScanner(read); url == "" && lines.Scan(); {
		if line := strings.TrimSpace(lines.Text()); strings.HasPrefix(line, "http://") {
			url = line
		}
	}
	go io.Copy(io.Discard, read)
	client := &http.Client{Transport: &http.Transport{}}
	get := func(path string) []byte {
		resp, err := client.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", path, resp.Status, err)
		}
		return b
	}
	if page := get(""); !strings.Contains(string(page), "<video") {
		t.Errorf("the page shows no film: %s", page)
	}
	if got := get("film/film.mp4"); sha256.Sum256(got) != sha256.Sum256(film) {
		t.Errorf("the film has %d other bytes, want %d", len(got), len(film))
	}
	resp, err := client.Get(url + "wire")
	if err != nil {
		t.Fatal(err)
	}
	event, err := bufio.NewReader(resp.Body).ReadString('\n')
	resp.Body.Close()
	if err != nil || !strings.HasPrefix(event, "data: {") || !strings.Contains(event, `"toDevice"`) {
		t.Errorf("the live view says %q, %v", event, err)
	}
	client.CloseIdleConnections()
	cancel()
	if err := <-over; err != nil {
		t.Errorf("the demo ended with %v", err)
	}
}

func TestDemoWithoutFolder(t *testing.T) {
	err := run(t.Context(), io.Discard, "127.0.0.1:0", filepath.Join(t.TempDir(), "none"), slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "media server") {
		t.Errorf("a folder that is not there: %v", err)
	}
}
