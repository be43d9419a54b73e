//go:build e2e

package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

const (
	filmSeconds = 60
	filmRate    = 25 // frames per second
	bigFileSize = 1 << 30
)

// nginxConfig keeps everything inside the working directory. One process, so
// that it runs as whoever runs the test and ends with it.
const nginxConfig = `
daemon off;
master_process off;
pid nginx.pid;
error_log stderr warn;
events { worker_connections 512; }
http {
  types { application/vnd.apple.mpegurl m3u8; video/mp2t ts; }
  default_type application/octet-stream;
  access_log off;
  sendfile on;
  client_body_temp_path tmp;
  proxy_temp_path tmp;
  fastcgi_temp_path tmp;
  uwsgi_temp_path tmp;
  scgi_temp_path tmp;
  server { listen %s; root %s; }
}
`

// mediaServer is an nginx with a film and a big file.
type mediaServer struct {
	*process
	url  string // with a slash at its end
	big  string // path of the big file, which is at url + "big"
	hash [sha256.Size]byte
}

func startMediaServer(t *testing.T) mediaServer {
	t.Helper()
	dir, root := t.TempDir(), t.TempDir()
	address := freeAddress(t)
	m := mediaServer{url: "http://" + address + "/", big: filepath.Join(root, "big")}
	makeFilm(t, filepath.Join(root, "film"))
	m.hash = makeBigFile(t, m.big)

	mustWrite(t, filepath.Join(dir, "nginx.conf"), fmt.Sprintf(nginxConfig, address, root))
	m.process = start(t, "nginx", command(context.Background(), t, "nginx", "-e", "stderr", "-p", dir, "-c", "nginx.conf"))
	eventually(t, readyTimeout, "nginx listens", func() error {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err
	})
	return m
}

// makeFilm encodes a test picture and a tone as HLS in two bitrates.
func makeFilm(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, 2*time.Minute, "ffmpeg", "-nostdin", "-loglevel", "error",
		"-f", "lavfi", "-i", fmt.Sprintf("testsrc2=size=640x360:rate=%d:duration=%d", filmRate, filmSeconds),
		"-f", "lavfi", "-i", fmt.Sprintf("sine=frequency=440:beep_factor=4:sample_rate=48000:duration=%d", filmSeconds),
		"-filter_complex", "[0:v]split[a][b];[b]scale=426:240[c]",
		"-map", "[a]", "-map", "1:a", "-map", "[c]", "-map", "1:a",
		"-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "50", "-sc_threshold", "0",
		"-b:v:0", "1500k", "-b:v:1", "400k", "-c:a", "aac", "-b:a", "96k",
		"-f", "hls", "-hls_time", "4", "-hls_playlist_type", "vod", "-master_pl_name", "master.m3u8",
		"-var_stream_map", "v:0,a:0 v:1,a:1",
		"-hls_segment_filename", filepath.Join(dir, "v%v-%03d.ts"), filepath.Join(dir, "v%v.m3u8"),
	).want(t, 0)
}

// makeBigFile writes bytes that look random and are the same each time.
func makeBigFile(t *testing.T, path string) (hash [sha256.Size]byte) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	source := io.LimitReader(rand.NewChaCha8([32]byte{1}), bigFileSize)
	if _, err := io.CopyBuffer(io.MultiWriter(f, h), source, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// bytesOf reads part of the big file from the disk.
func (m mediaServer) bytesOf(t *testing.T, offset, n int64) []byte {
	t.Helper()
	f, err := os.Open(m.big)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, offset); err != nil {
		t.Fatal(err)
	}
	return b
}
