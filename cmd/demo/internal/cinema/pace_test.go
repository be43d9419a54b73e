package cinema

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

func TestPacedFileTakesItsTime(t *testing.T) {
	const rate = 8 << 10
	whole := bytes.Repeat([]byte("film"), (clipBurst+10*rate)/4)
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		f := &pacedFile{ReadSeeker: bytes.NewReader(whole), ctx: t.Context(), rate: rate}
		if _, err := io.ReadFull(f, make([]byte, clipBurst)); err != nil || time.Since(start) != 0 {
			t.Errorf("the burst took %v, %v", time.Since(start), err)
		}
		n, err := f.Read(make([]byte, 10*rate))
		if err != nil || n != 8<<10 {
			t.Errorf("one read gave %d bytes, %v: want a small piece", n, err)
		}
		rest, err := io.ReadAll(f)
		if err != nil || n+len(rest) != 10*rate {
			t.Fatalf("read %d bytes, %v", n+len(rest), err)
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("10 s of bytes took %v", took)
		}
	})
}

func TestPacedFileStopsWaitingWhenTheClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		start := time.Now()
		f := &pacedFile{ReadSeeker: bytes.NewReader(make([]byte, 1<<20)), ctx: ctx, rate: 1}
		_, err := io.Copy(io.Discard, f)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("ended after %v: %v", time.Since(start), err)
		}
	})
}

func TestClipIsSentAtItsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, l, stop := serve(t)
		defer stop()
		transport := &http.Transport{DialContext: l.dial}
		defer transport.CloseIdleConnections()
		start := time.Now()
		answer, err := (&http.Client{Transport: transport}).Get("http://demo/film/clip.mp4")
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		n, err := io.Copy(io.Discard, answer.Body)
		if err != nil || n != answer.ContentLength {
			t.Fatalf("%d bytes of %d, %v", n, answer.ContentLength, err)
		}
		// The last piece leaves when all bytes before it were due.
		if least := time.Duration(n-clipBurst-(8<<10)) * time.Second / clipRate; time.Since(start) < least {
			t.Errorf("%d bytes took %v, want at least %v", n, time.Since(start), least)
		}
	})
}

// The clip must arrive faster than it plays, or it stalls.
func TestClipIsSentFasterThanItPlays(t *testing.T) {
	info, err := fs.Stat(clipFiles, "clip/clip.mp4")
	if err != nil {
		t.Fatal(err)
	}
	const seconds = 20
	if plays := info.Size() / seconds; clipRate < plays*3/2 {
		t.Errorf("the clip plays %d bytes a second and is sent at %d: less than half as fast again", plays, clipRate)
	}
}
