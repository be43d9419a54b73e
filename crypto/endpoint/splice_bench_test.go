package endpoint

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// source gives chunks of content and then ends; what it is given it drops.
type source struct {
	net.Conn // nil: anything else crashes
	chunks   int
}

func (s *source) Read(p []byte) (int, error) {
	if s.chunks == 0 {
		return 0, io.EOF
	}
	s.chunks--
	return len(p), nil
}

func (s *source) Write(p []byte) (int, error)     { return len(p), nil }
func (s *source) CloseWrite() error               { return nil }
func (s *source) Close() error                    { return nil }
func (s *source) Reset(wire.Code)                 {}
func (s *source) SetReadDeadline(time.Time) error { return nil }

func TestSpliceAllocatesNothingPerChunk(t *testing.T) {
	cost := func(chunks int) float64 {
		return testing.AllocsPerRun(10, func() {
			s := splice{plain: &source{chunks: chunks}, sealed: &source{chunks: chunks}}
			s.up()
			s.down()
		})
	}
	if few, many := cost(1), cost(1000); many > few {
		t.Errorf("%v allocations for 1 chunk, %v for 1000", few, many)
	}
}

// BenchmarkFilm fetches 1 MiB again and again: browser, local port, sealed
// stream, reverse proxy, media server, all in this process over loopback TCP.
func BenchmarkFilm(b *testing.B) {
	_, server := startMediaServer(b)
	local, _ := originRig(b, server)
	c := client(b)
	b.SetBytes(int64(len(film)))
	for b.Loop() {
		res, err := c.Get(local + "/film")
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil || n != int64(len(film)) {
			b.Fatal(n, err)
		}
	}
}
