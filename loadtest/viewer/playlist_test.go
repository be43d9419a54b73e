package viewer

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const ffmpegMaster = `#EXTM3U
#EXT-X-VERSION:7
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="group_aud",NAME="audio_1",DEFAULT=YES,URI="aud.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=260750,AVERAGE-BANDWIDTH=250000,RESOLUTION=640x360,CODECS="avc1.4d401f,mp4a.40.2"
360p.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=138748,RESOLUTION=320x180,CODECS="avc1.4d4015,mp4a.40.2"
180p.m3u8
`

const ffmpegMedia = `#EXTM3U
#EXT-X-VERSION:7
#EXT-X-TARGETDURATION:5
#EXT-X-MEDIA-SEQUENCE:7
#EXT-X-PLAYLIST-TYPE:VOD
#EXT-X-MAP:URI="init.mp4"
#EXTINF:4.000000,
0.m4s
#EXTINF:4.170833,a title, with a comma
1.m4s
#EXT-X-DISCONTINUITY
#EXT-X-MAP:URI="other.mp4",BYTERANGE="512@100"
#EXTINF:0.5
sub/2.m4s?x=1
#EXT-X-ENDLIST
`

// nginxMaster is as nginx-vod-module writes.
const nginxMaster = "#EXTM3U\n#EXT-X-STREAM-INF:PROGRAM-ID=1,BANDWIDTH=1200000,RESOLUTION=1280x720,FRAME-RATE=25.000,CODECS=\"avc1.64001f,mp4a.40.2\",VIDEO-RANGE=SDR\nhttp://home/hls/index-f1-v1-a1.m3u8\n\n#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=55000,CODECS=\"avc1.64001f\",URI=\"http://home/iframes.m3u8\"\n"

// jellyfinMedia is as Jellyfin writes.
const jellyfinMedia = "#EXTM3U\r\n#EXT-X-PLAYLIST-TYPE:VOD\r\n#EXT-X-VERSION:3\r\n#EXT-X-TARGETDURATION:6\r\n#EXT-X-MEDIA-SEQUENCE:0\r\n#EXTINF:6.000000, nodesc\r\nhls1/main/0.ts?runtimeTicks=0&actualSegmentLengthTicks=60000000\r\n#EXTINF:2.336000, nodesc\r\nhls1/main/1.ts?runtimeTicks=60000000\r\n#EXT-X-ENDLIST\r\n"

const rangesMedia = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n#EXT-X-BYTERANGE:100@50\nall.ts\n#EXTINF:4,\n#EXT-X-BYTERANGE:70\nall.ts\n#EXTINF:4,\nother.ts\n"

func TestParsePlaylist(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{ffmpegMaster, "variants [{180p.m3u8 138748 138748} {360p.m3u8 260750 250000}]"},
		{nginxMaster, "variants [{http://home/hls/index-f1-v1-a1.m3u8 1200000 1200000}]"},
		{ffmpegMedia, "from 7, target 5s, ended true: 0.m4s 4s after init.mp4[0+0]; 1.m4s 4.170833s after init.mp4[0+0]; sub/2.m4s?x=1 500ms after other.mp4[100+512];"},
		{jellyfinMedia, "from 0, target 6s, ended true: hls1/main/0.ts?runtimeTicks=0&actualSegmentLengthTicks=60000000 6s; hls1/main/1.ts?runtimeTicks=60000000 2.336s;"},
		{rangesMedia, "from 0, target 4s, ended false: all.ts[50+100] 4s; all.ts[150+70] 4s; other.ts 4s;"},
		{"#EXTM3U\n#EXT-X-TARGETDURATION:4", "from 0, target 4s, ended false:"},
		{"#EXTM3U\n# comment\n#EXT-X-NEW-TAG:x=y\n\n#EXT-X-TARGETDURATION:4\n#EXTINF:3.0000000009,\nx", "from 0, target 4s, ended false: x 3s;"},
	} {
		l, err := parsePlaylist(strings.NewReader(test.text))
		if err != nil {
			t.Errorf("%q: %v", test.text, err)
			continue
		}
		if got := describe(l); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}

func describe(l *playlist) string {
	if len(l.variants) > 0 {
		return fmt.Sprintf("variants %v", l.variants)
	}
	s := fmt.Sprintf("from %d, target %v, ended %v:", l.sequence, l.target, l.ended)
	for _, g := range l.segments {
		s += " " + g.uri
		if g.size > 0 {
			s += fmt.Sprintf("[%d+%d]", g.from, g.size)
		}
		s += " " + g.length.String()
		if g.init != nil {
			s += fmt.Sprintf(" after %s[%d+%d]", g.init.uri, g.init.from, g.init.size)
		}
		s += ";"
	}
	return s
}

func TestPlaylistRefused(t *testing.T) {
	const head = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n"
	for name, text := range map[string]string{
		"empty":                      "",
		"no header":                  "#EXT-X-TARGETDURATION:4\n",
		"a page":                     "<html>",
		"byte order mark":            "\ufeff" + head,
		"neither":                    "#EXTM3U\n",
		"no target":                  "#EXTM3U\n#EXTINF:4,\nx\n",
		"both":                       head + "#EXT-X-STREAM-INF:BANDWIDTH=1\nx\n",
		"URI of nothing":             head + "x\n",
		"EXTINF of nothing":          head + "#EXTINF:4,\n",
		"variant of nothing":         "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n",
		"zero length":                head + "#EXTINF:0,\nx\n",
		"negative length":            head + "#EXTINF:-4,\nx\n",
		"not a number":               head + "#EXTINF:NaN,\nx\n",
		"exponent":                   head + "#EXTINF:1e3,\nx\n",
		"too long":                   head + "#EXTINF:86401,\nx\n",
		"just too long":              head + "#EXTINF:86400.1,\nx\n",
		"two points":                 head + "#EXTINF:1.2.3,\nx\n",
		"target of zero":             "#EXTM3U\n#EXT-X-TARGETDURATION:0\n",
		"target of half":             "#EXTM3U\n#EXT-X-TARGETDURATION:0.5\n",
		"sequence too large":         head + "#EXT-X-MEDIA-SEQUENCE:9223372036854775807\n",
		"sequence late":              head + "#EXTINF:4,\nx\n#EXT-X-MEDIA-SEQUENCE:1\n",
		"range without offset":       head + "#EXTINF:4,\n#EXT-X-BYTERANGE:5\nx\n",
		"range after another URI":    head + "#EXTINF:4,\n#EXT-X-BYTERANGE:5@0\nx\n#EXTINF:4,\n#EXT-X-BYTERANGE:5\ny\n",
		"empty range":                head + "#EXTINF:4,\n#EXT-X-BYTERANGE:0@5\nx\n",
		"range too far":              head + "#EXTINF:4,\n#EXT-X-BYTERANGE:5@9223372036854775807\nx\n",
		"map without URI":            head + "#EXT-X-MAP:BYTERANGE=\"5@0\"\n",
		"map with a bad range":       head + "#EXT-X-MAP:URI=\"x\",BYTERANGE=\"5@x\"\n",
		"map that is no list":        head + "#EXT-X-MAP:x\n",
		"no bandwidth":               "#EXTM3U\n#EXT-X-STREAM-INF:RESOLUTION=1x1\nx\n",
		"bandwidth of zero":          "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=0\nx\n",
		"negative bandwidth":         "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=-1\nx\n",
		"bad average":                "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,AVERAGE-BANDWIDTH=x\nx\n",
		"attribute twice":            "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,BANDWIDTH=2\nx\n",
		"no closing quote":           "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,CODECS=\"x\nx\n",
		"goes on after the quote":    "#EXTM3U\n#EXT-X-STREAM-INF:CODECS=\"x\"y,BANDWIDTH=1\nx\n",
		"attribute in lower case":    "#EXTM3U\n#EXT-X-STREAM-INF:bandwidth=1\nx\n",
		"a line that is too long":    head + "#" + strings.Repeat("x", maxLine) + "\n",
		"a playlist that is too big": head + strings.Repeat("#"+strings.Repeat("x", 8000)+"\n", maxPlaylist/8001+1),
		"too many segments":          head + strings.Repeat("#EXTINF:4,\nx\n", maxSegments+1),
		"too many variants":          "#EXTM3U\n" + strings.Repeat("#EXT-X-STREAM-INF:BANDWIDTH=1\nx\n", maxVariants+1),
	} {
		if l, err := parsePlaylist(strings.NewReader(text)); err == nil {
			t.Errorf("%s: taken as %.200s", name, describe(l))
		}
	}
}

func FuzzPlaylist(f *testing.F) {
	for _, s := range []string{ffmpegMaster, ffmpegMedia, nginxMaster, jellyfinMedia, rangesMedia, "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,X=\"a,b\"\nx"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := parsePlaylist(strings.NewReader(text))
		if err != nil {
			return
		}
		if len(l.variants) > 0 && len(l.segments) > 0 || len(l.variants) > maxVariants || len(l.segments) > maxSegments {
			t.Fatalf("%d variants, %d segments", len(l.variants), len(l.segments))
		}
		for i, v := range l.variants {
			if v.uri == "" || v.bandwidth <= 0 || v.average <= 0 || i > 0 && v.bandwidth < l.variants[i-1].bandwidth {
				t.Fatalf("variant %+v", v)
			}
		}
		for _, s := range l.segments {
			if s.uri == "" || s.length <= 0 || s.length > maxLength || s.from < 0 || s.size < 0 || s.from+s.size < 0 {
				t.Fatalf("segment %+v", s)
			}
			if s.init != nil && (s.init.uri == "" || s.init.from < 0 || s.init.size < 0) {
				t.Fatalf("initialization section %+v", *s.init)
			}
		}
		if l.sequence < 0 || l.target < 0 || l.target > 24*time.Hour || len(l.segments) > 0 && l.last() < 0 {
			t.Fatalf("sequence %d, target %v", l.sequence, l.target)
		}
	})
}

func FuzzContentRange(f *testing.F) {
	f.Add("bytes 0-9/10", int64(0))
	f.Add("bytes 5-9/*", int64(5))
	f.Add("bytes */10", int64(0))
	f.Fuzz(func(t *testing.T, s string, from int64) {
		if size, err := parseContentRange(s, from); err == nil && size != -1 && size <= from {
			t.Fatalf("%q from %d: %d", s, from, size)
		}
	})
}

func TestContentRange(t *testing.T) {
	for _, test := range []struct {
		text string
		from int64
		size int64 // 0: refused
	}{
		{"bytes 0-9/10", 0, 10},
		{"bytes 5-9/10", 5, 10},
		{"bytes 5-9/*", 5, -1},
		{"bytes 4-9/10", 5, 0},
		{"bytes 5-9/5", 5, 0},
		{"bytes 5-9", 5, 0},
		{"bytes */10", 0, 0},
		{"", 0, 0},
	} {
		size, err := parseContentRange(test.text, test.from)
		if size != test.size || (err == nil) != (test.size != 0) {
			t.Errorf("%q from %d: %d, %v", test.text, test.from, size, err)
		}
	}
}
