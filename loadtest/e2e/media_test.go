//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMediaServer reads from one nginx through one relay in every way that
// players do.
func TestMediaServer(t *testing.T) {
	m := startMediaServer(t)
	r := openRelay(t)
	d := open(t, share(t, r, m.url))

	t.Run("every frame of the film", func(t *testing.T) { testFrames(t, m, d) })
	t.Run("a file of 1 GiB", func(t *testing.T) { testBigFile(t, m, d) })
	t.Run("200 ranges", func(t *testing.T) { testRanges(t, m, d) })
	t.Run("50 requests at once", func(t *testing.T) { testAtOnce(t, m, d) })
	t.Run("10 MB of garbage at the relay", func(t *testing.T) { testGarbage(t, m, r, d) })
}

// testFrames decodes both bitrates of the film directly and through the relay;
// each decoded frame must have the same hash.
func testFrames(t *testing.T, m mediaServer, d device) {
	frames := func(base string) string {
		return run(t, 2*time.Minute, "ffmpeg", "-nostdin", "-loglevel", "error", "-i", base+"film/master.m3u8",
			"-map", "0", "-f", "framemd5", "-").want(t, 0).stdout
	}
	direct, relayed := frames(m.url), frames(d.url)
	if direct != relayed {
		t.Errorf("the decoded frames differ: direct\n%.600s\nthrough the relay\n%.600s", direct, relayed)
	}
	for _, stream := range []string{"0,", "2,"} {
		n := 0
		for line := range strings.Lines(direct) {
			if strings.HasPrefix(line, stream) {
				n++
			}
		}
		if n < filmSeconds*filmRate {
			t.Errorf("stream %s %d frames, want at least %d:\n%.600s", stream, n, filmSeconds*filmRate, direct)
		}
	}
}

func testBigFile(t *testing.T, m mediaServer, d device) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	cmd := command(ctx, t, "curl", "--silent", "--show-error", "--fail", d.url+"big")
	h, stderr := sha256.New(), newOutput()
	size := &counter{w: h}
	cmd.Stdout, cmd.Stderr = size, stderr
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("curl: %v\n%s", err, stderr.last())
	}
	took := time.Since(begin)
	if size.n != bigFileSize || !bytes.Equal(h.Sum(nil), m.hash[:]) {
		t.Errorf("%d bytes with SHA-256 %x, want %d with %x", size.n, h.Sum(nil), bigFileSize, m.hash)
	}
	t.Logf("1 GiB in %.1f s, %.0f Mbit/s", took.Seconds(), 8*float64(size.n)/1e6/took.Seconds())
}

// counter counts what passes through it.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.w.Write(p)
}

func testRanges(t *testing.T, m mediaServer, d device) {
	random := rand.New(rand.NewPCG(1, 2))
	client := &http.Client{Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	for i := range 200 {
		n := 1 + random.Int64N(256<<10)
		if i%20 == 0 {
			n = 1 + random.Int64N(8<<20)
		}
		offset := random.Int64N(bigFileSize - n)
		header := fmt.Sprintf("bytes=%d-%d", offset, offset+n-1)
		switch i % 10 {
		case 8: // the last n bytes
			offset, header = bigFileSize-n, fmt.Sprintf("bytes=-%d", n)
		case 9: // to the end
			offset = bigFileSize - n
			header = fmt.Sprintf("bytes=%d-", offset)
		}
		res := request(t, client, d.url+"big", header)
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatalf("range %d, %s: %v", i, header, err)
		}
		wantRange := fmt.Sprintf("bytes %d-%d/%d", offset, offset+n-1, int64(bigFileSize))
		if res.StatusCode != http.StatusPartialContent || res.Header.Get("Content-Range") != wantRange {
			t.Fatalf("range %d, %s: %s with Content-Range %q, want 206 with %q", i, header, res.Status, res.Header.Get("Content-Range"), wantRange)
		}
		if !bytes.Equal(got, m.bytesOf(t, offset, n)) {
			t.Fatalf("range %d, %s: the %d bytes differ from the file's", i, header, len(got))
		}
	}
}

// request sends a GET for a range.
func request(t *testing.T, client *http.Client, url, byteRange string) *http.Response {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Range", byteRange)
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// testAtOnce opens fifty responses that no buffer on the way can hold, and
// reads them only when all of them are open.
func testAtOnce(t *testing.T, m mediaServer, d device) {
	const count, size = 50, 8 << 20
	client := &http.Client{Timeout: time.Minute}
	defer client.CloseIdleConnections()
	responses := make([]*http.Response, count)
	for i := range responses {
		responses[i] = request(t, client, d.url+"big", fmt.Sprintf("bytes=%d-%d", i*size, (i+1)*size-1))
		defer responses[i].Body.Close()
	}
	var wg sync.WaitGroup
	for i, res := range responses {
		wg.Go(func() {
			got, err := io.ReadAll(res.Body)
			if err != nil {
				t.Errorf("response %d: %v after %d bytes", i, err, len(got))
			} else if !bytes.Equal(got, m.bytesOf(t, int64(i*size), size)) {
				t.Errorf("response %d: the bytes differ from the file's", i)
			}
		})
	}
	wg.Wait()
}

// testGarbage sends datagrams that are no QUIC, or that look like it, while a
// download goes on.
func testGarbage(t *testing.T, m mediaServer, r relay, d device) {
	const size = 128 << 20
	client := &http.Client{Timeout: 2 * time.Minute}
	defer client.CloseIdleConnections()
	res := request(t, client, d.url+"big", fmt.Sprintf("bytes=0-%d", size-1))
	defer res.Body.Close()

	sent := make(chan error, 1) // one value, by the goroutine below
	go func() { sent <- sendGarbage(r.host(), 10_000_000) }()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		t.Errorf("the download broke: %v after %d bytes", err, len(got))
	} else if !bytes.Equal(got, m.bytesOf(t, 0, size)) {
		t.Error("the download's bytes differ from the file's")
	}
	if err := <-sent; err != nil {
		t.Errorf("send garbage: %v", err)
	}
	if r.ended() {
		t.Errorf("the relay ended with code %d", r.code)
	}
	res = request(t, client, d.url+"big", "bytes=5-9")
	defer res.Body.Close()
	if got, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(got, m.bytesOf(t, 5, 5)) {
		t.Errorf("after the garbage: %q, %v", got, err)
	}
}

// sendGarbage sends random datagrams from a few sockets, a quarter of them with
// the first bytes of a QUIC version 1 Initial (RFC 9000, section 17.2.2).
func sendGarbage(address string, total int) error {
	random := rand.NewChaCha8([32]byte{2})
	lengths := rand.New(random)
	var sockets []net.Conn
	for range 8 {
		c, err := net.Dial("udp", address)
		if err != nil {
			return err
		}
		defer c.Close()
		sockets = append(sockets, c)
	}
	for i := 0; total > 0; i++ {
		b := make([]byte, 1+lengths.IntN(1452))
		if _, err := random.Read(b); err != nil {
			return err
		}
		if i%4 == 0 && len(b) > 6 {
			copy(b, []byte{0xc3, 0, 0, 0, 1, 8})
		}
		if _, err := sockets[i%len(sockets)].Write(b); err != nil {
			return err
		}
		total -= len(b)
	}
	return nil
}
