package viewer

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of a playlist. A film of 24 hours in segments of 2 s fits.
const (
	maxPlaylist = 8 << 20 // bytes
	maxLine     = 8 << 10 // bytes
	maxSegments = 50_000
	maxVariants = 64
	maxLength   = 24 * time.Hour // of one segment
)

// playlist is a master playlist (variants) or a media playlist (segments).
type playlist struct {
	variants []variant // ascending by bandwidth
	segments []segment
	sequence int64         // number of segments[0]
	target   time.Duration // EXT-X-TARGETDURATION
	ended    bool          // no segment will be added
}

type variant struct {
	uri       string
	bandwidth int64 // peak, bit/s
	average   int64 // bit/s; the peak where the playlist does not say
}

type segment struct {
	piece
	length time.Duration
	init   *piece // what a decoder needs first; nil: nothing
}

// piece is a resource or a range of one.
type piece struct {
	uri  string
	from int64
	size int64 // bytes; 0: the whole resource
}

// parsePlaylist reads the part of HLS (RFC 8216) that ffmpeg, nginx-vod and
// Jellyfin write and a player without a decoder needs: EXT-X-STREAM-INF,
// EXTINF, EXT-X-MAP, EXT-X-BYTERANGE, EXT-X-TARGETDURATION,
// EXT-X-MEDIA-SEQUENCE and EXT-X-ENDLIST. Other tags are skipped, as section
// 6.3.1 asks; renditions of their own (EXT-X-MEDIA) are among them.
func parsePlaylist(r io.Reader) (*playlist, error) {
	limited := &io.LimitedReader{R: r, N: maxPlaylist + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(make([]byte, 0, 4096), maxLine)
	p := &parser{list: &playlist{}}
	n := 0
	for ; lines.Scan(); n++ {
		line := lines.Text()
		if n == 0 {
			if line != "#EXTM3U" {
				return nil, errors.New("not a playlist: the first line is not #EXTM3U")
			}
			continue
		}
		if err := p.line(line); err != nil {
			return nil, fmt.Errorf("playlist, line %d: %w", n+1, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("playlist, line %d: %w", n+1, err)
	}
	if limited.N == 0 {
		return nil, fmt.Errorf("playlist: longer than %d bytes", maxPlaylist)
	}
	return p.finish()
}

// parser holds what tags said about the URI line that follows them.
type parser struct {
	list *playlist

	stream *variant      // from EXT-X-STREAM-INF
	length time.Duration // from EXTINF; 0: none
	ranged *piece        // from EXT-X-BYTERANGE, without URI; from -1: after the range before
	init   *piece        // from EXT-X-MAP, for all that follow
	last   piece         // the segment before
	target bool          // EXT-X-TARGETDURATION was there
}

func (p *parser) line(line string) error {
	if line == "" {
		return nil
	}
	if line[0] != '#' {
		return p.uri(line)
	}
	tag, value, _ := strings.Cut(line, ":")
	switch tag {
	case "#EXT-X-STREAM-INF":
		return p.streamInf(value)
	case "#EXTINF":
		seconds, _, _ := strings.Cut(value, ",")
		d, err := parseSeconds(seconds)
		p.length = d
		return err
	case "#EXT-X-TARGETDURATION":
		n, err := parseNumber(value, int64(maxLength/time.Second))
		p.list.target, p.target = time.Duration(n)*time.Second, true
		if err == nil && n == 0 {
			err = errors.New("a target duration of zero")
		}
		return err
	case "#EXT-X-MEDIA-SEQUENCE":
		if len(p.list.segments) > 0 {
			return errors.New("the media sequence number stands after the first segment")
		}
		n, err := parseNumber(value, math.MaxInt64/2)
		p.list.sequence = n
		return err
	case "#EXT-X-BYTERANGE":
		r, err := parseRange(value)
		p.ranged = &r
		return err
	case "#EXT-X-MAP":
		return p.mapTag(value)
	case "#EXT-X-ENDLIST":
		p.list.ended = true
	}
	return nil
}

func (p *parser) streamInf(value string) error {
	attrs, err := parseAttributes(value)
	if err != nil {
		return err
	}
	v := &variant{}
	if v.bandwidth, err = parseNumber(attrs["BANDWIDTH"], 1e12); err != nil {
		return fmt.Errorf("BANDWIDTH: %w", err)
	}
	v.average = v.bandwidth
	if s, ok := attrs["AVERAGE-BANDWIDTH"]; ok {
		if v.average, err = parseNumber(s, 1e12); err != nil {
			return fmt.Errorf("AVERAGE-BANDWIDTH: %w", err)
		}
	}
	if v.bandwidth == 0 || v.average == 0 {
		return errors.New("a bandwidth of zero")
	}
	p.stream = v
	return nil
}

func (p *parser) mapTag(value string) error {
	attrs, err := parseAttributes(value)
	if err != nil {
		return err
	}
	m := piece{}
	if s, ok := attrs["BYTERANGE"]; ok {
		if m, err = parseRange(s); err != nil {
			return err
		}
		m.from = max(m.from, 0)
	}
	if m.uri = attrs["URI"]; m.uri == "" {
		return errors.New("EXT-X-MAP without URI")
	}
	p.init = &m
	return nil
}

// uri takes a line that names a playlist or a segment.
func (p *parser) uri(uri string) error {
	if p.stream != nil {
		if len(p.list.variants) == maxVariants {
			return fmt.Errorf("more than %d variants", maxVariants)
		}
		p.stream.uri = uri
		p.list.variants = append(p.list.variants, *p.stream)
		p.stream = nil
		return nil
	}
	if p.length == 0 {
		return errors.New("a URI without EXTINF or EXT-X-STREAM-INF before it")
	}
	if len(p.list.segments) == maxSegments {
		return fmt.Errorf("more than %d segments", maxSegments)
	}
	s := segment{piece: piece{uri: uri}, length: p.length, init: p.init}
	if p.ranged != nil {
		s.from, s.size = p.ranged.from, p.ranged.size
		if s.from < 0 {
			if p.last.uri != uri || p.last.size == 0 {
				return errors.New("a byte range without offset does not follow another one of the same resource")
			}
			s.from = p.last.from + p.last.size
		}
	}
	p.list.segments = append(p.list.segments, s)
	p.last, p.length, p.ranged = s.piece, 0, nil
	return nil
}

func (p *parser) finish() (*playlist, error) {
	l := p.list
	switch {
	case p.stream != nil || p.length != 0:
		return nil, errors.New("playlist: it ends where a URI should stand")
	case len(l.variants) > 0 && (len(l.segments) > 0 || p.target):
		return nil, errors.New("playlist: both a master and a media playlist")
	case len(l.variants) == 0 && !p.target:
		return nil, errors.New("playlist: neither variants nor EXT-X-TARGETDURATION")
	}
	slices.SortStableFunc(l.variants, func(a, b variant) int { return cmp.Compare(a.bandwidth, b.bandwidth) })
	return l, nil
}

// maxOffset bounds offsets and lengths within a resource, so that their sums
// cannot overflow.
const maxOffset = 1 << 50

// parseRange reads n[@o] (RFC 8216, section 4.3.2.2). Without o, from is -1.
func parseRange(s string) (piece, error) {
	size, from, ok := strings.Cut(strings.Trim(s, `"`), "@")
	r := piece{from: -1}
	var err error
	if r.size, err = parseNumber(size, maxOffset); err == nil && ok {
		r.from, err = parseNumber(from, maxOffset)
	}
	if err == nil && r.size == 0 {
		err = errors.New("an empty byte range")
	}
	return r, err
}

// parseNumber reads a decimal integer (RFC 8216, section 4.2) up to most.
func parseNumber(s string, most int64) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || int64(n) > most {
		return 0, fmt.Errorf("%.40q is no number between 0 and %d", s, most)
	}
	return int64(n), nil
}

// parseSeconds reads a positive decimal number of seconds, to the nanosecond.
func parseSeconds(s string) (time.Duration, error) {
	bad := fmt.Errorf("%.40q is no number of seconds above 0 and up to %g", s, maxLength.Seconds())
	whole, frac, _ := strings.Cut(strings.TrimSpace(s), ".")
	n, err := parseNumber(whole, int64(maxLength/time.Second))
	if err != nil || strings.Trim(frac, "0123456789") != "" {
		return 0, bad
	}
	frac = (frac + "000000000")[:9]
	ns, err := parseNumber(frac, 999_999_999)
	d := time.Duration(n)*time.Second + time.Duration(ns)
	if err != nil || d == 0 || d > maxLength {
		return 0, bad
	}
	return d, nil
}

// parseAttributes reads NAME=value,NAME="value" (RFC 8216, section 4.2).
func parseAttributes(s string) (map[string]string, error) {
	attrs := make(map[string]string)
	for s = strings.TrimSpace(s); s != ""; {
		name, rest, ok := strings.Cut(s, "=")
		name = strings.TrimSpace(name)
		if !ok || name == "" || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
			return nil, fmt.Errorf("%.40q is no attribute", s)
		}
		if _, twice := attrs[name]; twice {
			return nil, fmt.Errorf("attribute %.40s stands twice", name)
		}
		var value string
		if quoted, ok := strings.CutPrefix(rest, `"`); ok {
			if value, rest, ok = strings.Cut(quoted, `"`); !ok {
				return nil, fmt.Errorf("attribute %.40s has no closing quote", name)
			}
			if rest != "" && rest[0] != ',' {
				return nil, fmt.Errorf("attribute %.40s goes on after its closing quote", name)
			}
			rest = strings.TrimPrefix(rest, ",")
		} else {
			value, rest, _ = strings.Cut(rest, ",")
		}
		attrs[name], s = value, rest
	}
	return attrs, nil
}
