//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// TestDemo plays the demo's clip in a browser to its end, and with a folder of
// films the film of that folder.
func TestDemo(t *testing.T) {
	t.Run("clip", func(t *testing.T) { watchDemo(t) })
	t.Run("folder", func(t *testing.T) {
		dir := t.TempDir()
		run(t, time.Minute, "ffmpeg", "-nostdin", "-loglevel", "error",
			"-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25:duration=10", "-f", "lavfi", "-i", "sine=duration=10",
			"-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", "-movflags", "+faststart",
			filepath.Join(dir, "A small film.mp4")).want(t, 0)
		watchDemo(t, dir)
	})
}

// watchDemo starts the demo, and a browser that plays the first film it lists.
func watchDemo(t *testing.T, args ...string) {
	demo := start(t, "demo", command(context.Background(), t, "demo", args...))
	url := demo.await(t, demo.stdout, "print a URL", func(text string) (string, bool) {
		url := regexp.MustCompile(`http://\S+\n`).FindString(text)
		return url, url != ""
	})
	url = url[:len(url)-1]

	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("chromium is not installed, and this test watches a film in it: %v", err)
	}
	script, err := filepath.Abs("../../cmd/demo/testdata/watch.mjs")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 150*time.Second)
	defer cancel()
	cmd := command(ctx, t, "node", script, url)
	cmd.Env = append(cmd.Env, "CHROMIUM="+browser)
	watcher := start(t, "watch.mjs", cmd)
	watcher.wantExit(t, 150*time.Second, 0)

	var seen struct {
		Duration, CurrentTime float64
		Ended                 bool
	}
	if err := json.Unmarshal([]byte(watcher.stdout.String()), &seen); err != nil {
		t.Fatalf("watch.mjs printed %q: %v", watcher.stdout, err)
	}
	if !seen.Ended || seen.Duration < 5 || seen.CurrentTime < seen.Duration-0.5 {
		t.Errorf("the film was not played to its end: %+v", seen)
	}
	t.Logf("%s", watcher.stdout)
}
