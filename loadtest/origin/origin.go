// Package origin is a synthetic media server: HLS on demand and live, one long
// film with Range, and an album, all made of bytes that follow from a seed, so
// that whoever knows the seed can verify each byte. It holds no content and
// making content costs far less than carrying it.
//
//	o, err := origin.New(origin.Config{Seed: 1, Bitrates: []int64{3_000_000, 8_000_000}})
//	server := &http.Server{Handler: o}
//	...
//	film, ok := o.Content("/vod/8000000/17.m4s")
//	err = film.Verify(chunk, offset)
//
// Two origins with the same Config serve the same bytes. Live segments are
// numbered by the clock since the Unix epoch, so that no origin keeps state.
package origin

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Where an Origin keeps things. Segments are found through the playlists.
const (
	VOD   = "/vod/master.m3u8"  // master playlist of a film on demand
	Live  = "/live/master.m3u8" // master playlist of a channel that never ends
	Album = "/music/album.m3u8" // media playlist whose segments are whole tracks
)

// FilmPath returns where an Origin keeps the film as one long response, at a
// bitrate in bit/s that is one of its rungs.
func FilmPath(bitrate int64) string { return fmt.Sprintf("/film/%d.mp4", bitrate) }

// What the content looks like.
const (
	vodSegment   = 4 * time.Second
	liveSegment  = 2 * time.Second
	liveWindow   = 6 // segments in a live playlist
	liveGrace    = 7 // segments that can be fetched after they left the playlist (RFC 8216, section 6.2.2)
	track        = 3 * time.Minute
	musicBitrate = 320_000 // bit/s
	initSize     = 1024    // bytes of an initialization section, about what ffmpeg writes
)

// Config says what an Origin serves.
type Config struct {
	Seed     uint64
	Bitrates []int64       // of the rungs on average, in bit/s, ascending, at most 32; nil: 1, 2.5, 5, 8 and 16 Mbit/s
	Length   time.Duration // of the film and of the album; 0: 10 minutes, at most 24 hours

	// Spread is by what share of the average a segment's size may differ from
	// it; 0: 0.25, negative: all are equal. Segments 2i and 2i+1 differ in
	// opposite directions, so that the average is exact.
	Spread float64

	Latency time.Duration // before each response
	Corrupt string        // path of content whose middle byte is sent wrong; empty: none
}

// Origin is an http.Handler. It does not change after New, and its methods may
// be called from several goroutines at once.
type Origin struct {
	cfg Config
}

// New returns an Origin, or an error that names what in cfg cannot be.
func New(cfg Config) (*Origin, error) {
	if cfg.Bitrates == nil {
		cfg.Bitrates = []int64{1_000_000, 2_500_000, 5_000_000, 8_000_000, 16_000_000}
	}
	cfg.Bitrates = slices.Clone(cfg.Bitrates)
	if cfg.Length == 0 {
		cfg.Length = 10 * time.Minute
	}
	switch {
	case cfg.Spread == 0:
		cfg.Spread = 0.25
	case cfg.Spread < 0:
		cfg.Spread = 0
	}
	o := &Origin{cfg: cfg}
	switch {
	case len(cfg.Bitrates) == 0 || len(cfg.Bitrates) > 32:
		return nil, fmt.Errorf("origin: %d rungs, but there can be 1 to 32", len(cfg.Bitrates))
	case !slices.IsSorted(cfg.Bitrates) || len(slices.Compact(slices.Clone(cfg.Bitrates))) < len(cfg.Bitrates):
		return nil, errors.New("origin: the rungs do not ascend")
	case cfg.Bitrates[0] < 8_000 || cfg.Bitrates[len(cfg.Bitrates)-1] > 1_000_000_000:
		return nil, errors.New("origin: a rung is not between 8 kbit/s and 1 Gbit/s")
	case cfg.Length < time.Second || cfg.Length > 24*time.Hour:
		return nil, fmt.Errorf("origin: a film of %v, but it can last 1 s to 24 h", cfg.Length)
	case cfg.Spread > 0.9:
		return nil, fmt.Errorf("origin: segments that differ by %g of the average, but 0.9 is the most", cfg.Spread)
	case cfg.Latency < 0 || cfg.Latency > time.Minute:
		return nil, fmt.Errorf("origin: a latency of %v, but it can be 0 to 1 min", cfg.Latency)
	}
	if cfg.Corrupt != "" {
		if _, ok := o.Content(cfg.Corrupt); !ok {
			return nil, fmt.Errorf("origin: nothing to corrupt at %q", cfg.Corrupt)
		}
	}
	return o, nil
}

// Content returns what the origin serves at a path, playlists aside. It does
// not look at the clock: a live segment has its content before and after it
// can be fetched.
func (o *Origin) Content(path string) (Film, bool) {
	p, ok := o.parse(path)
	if !ok {
		return Film{}, false
	}
	h := fnv.New64a()
	h.Write([]byte(path))
	f := Film{Seed: mix(o.cfg.Seed*golden ^ h.Sum64())}
	switch {
	case p.tree == "film":
		f.Size = size(p.bitrate, o.cfg.Length)
	case p.tree == "music":
		f.Size = size(musicBitrate, part(o.cfg.Length, track, p.number))
	case p.init:
		f.Size = initSize
	case p.tree == "vod":
		f.Size = o.vary(p, part(o.cfg.Length, vodSegment, p.number))
	default:
		f.Size = o.vary(p, liveSegment)
	}
	return f, true
}

// place is a path of content, taken apart.
type place struct {
	tree    string // vod, live, film or music
	bitrate int64  // of the rung, in bit/s; 0 in music
	number  int64  // of the segment or track
	init    bool   // the initialization section instead of a segment
}

// parse takes paths apart: /vod/R/N.m4s, /vod/R/init.mp4, the same under
// /live, /film/R.mp4 and /music/N.mp3.
func (o *Origin) parse(path string) (p place, ok bool) {
	parts := strings.Split(path, "/")
	if len(parts) < 3 || len(parts) > 4 || parts[0] != "" {
		return p, false
	}
	p.tree = parts[1]
	switch {
	case p.tree == "film" && len(parts) == 3:
		p.bitrate, ok = o.rung(parts[2], ".mp4")
	case p.tree == "music" && len(parts) == 3:
		p.number, ok = number(parts[2], ".mp3")
		ok = ok && p.number < count(o.cfg.Length, track)
	case (p.tree == "vod" || p.tree == "live") && len(parts) == 4:
		if p.bitrate, ok = o.rung(parts[2], ""); !ok {
			return p, false
		}
		if parts[3] == "init.mp4" {
			p.init = true
			return p, true
		}
		p.number, ok = number(parts[3], ".m4s")
		ok = ok && (p.tree == "live" || p.number < count(o.cfg.Length, vodSegment))
	}
	return p, ok
}

func (o *Origin) rung(s, suffix string) (int64, bool) {
	n, ok := number(s, suffix)
	return n, ok && slices.Contains(o.cfg.Bitrates, n)
}

// number parses a decimal number of one spelling only.
func number(s, suffix string) (int64, bool) {
	s, ok := strings.CutSuffix(s, suffix)
	n, err := strconv.ParseInt(s, 10, 64)
	return n, ok && err == nil && n >= 0 && strconv.FormatInt(n, 10) == s
}

// vary returns the size of a segment of a length.
func (o *Origin) vary(p place, length time.Duration) int64 {
	average := size(p.bitrate, length)
	r := mix(o.cfg.Seed + uint64(p.number/2+1)*golden) // equal for both of a pair, and on all rungs
	d := int64(float64(average) * o.cfg.Spread * (float64(r>>11)/(1<<52) - 1))
	if p.number%2 == 1 {
		d = -d
	}
	return average + d
}

// size returns how many bytes a bitrate takes in a length.
func size(bitrate int64, length time.Duration) int64 {
	return bitrate * length.Milliseconds() / 8000
}

// count returns how many pieces cover a length.
func count(length, piece time.Duration) int64 { return int64((length + piece - 1) / piece) }

// part returns the length of piece i, of which the last is shorter.
func part(length, piece time.Duration, i int64) time.Duration {
	return min(piece, length-time.Duration(i)*piece)
}
