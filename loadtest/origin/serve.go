package origin

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"time"
)

// ServeHTTP answers GET and HEAD, with Range for content.
func (o *Origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "this origin only reads", http.StatusMethodNotAllowed)
		return
	}
	if o.cfg.Latency > 0 {
		t := time.NewTimer(o.cfg.Latency)
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.Context().Done():
			return
		}
	}
	path, now := r.URL.Path, time.Now()
	if list, ok := o.playlist(path, now); ok {
		w.Header().Set("Content-Type", "application/vnd.apple.mpegurl")
		w.Header().Set("Cache-Control", "no-cache")
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(list))
		return
	}
	film, ok := o.Content(path)
	if !ok || !o.available(path, now) {
		http.NotFound(w, r)
		return
	}
	var content io.ReaderAt = film
	if path == o.cfg.Corrupt {
		content = corrupt{Film: film, at: film.Size / 2}
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(content, 0, film.Size))
}

// corrupt is a film with one wrong byte, as somebody on the way would make it
// who cannot be seen: neither size nor headers change.
type corrupt struct {
	Film
	at int64
}

func (c corrupt) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.Film.ReadAt(p, off)
	if i := c.at - off; i >= 0 && i < int64(n) {
		p[i] ^= 1
	}
	return n, err
}

// newest returns the number of the last live segment that is complete.
func newest(now time.Time) int64 { return now.UnixNano()/int64(liveSegment) - 1 }

// available reports whether content can be fetched now. Only live segments
// come and go.
func (o *Origin) available(path string, now time.Time) bool {
	p, _ := o.parse(path)
	if p.tree != "live" || p.init {
		return true
	}
	last := newest(now)
	return p.number <= last && p.number > last-liveWindow-liveGrace
}

// playlist returns the playlist at a path.
func (o *Origin) playlist(path string, now time.Time) (string, bool) {
	switch path {
	case VOD, Live:
		return o.master(), true
	case Album:
		return media(track, 0, count(o.cfg.Length, track)-1, o.cfg.Length, "", ".mp3"), true
	}
	dir, ok := strings.CutSuffix(path, "/media.m3u8")
	if !ok {
		return "", false
	}
	p, ok := o.parse(dir + "/init.mp4")
	switch {
	case !ok:
		return "", false
	case p.tree == "vod":
		return media(vodSegment, 0, count(o.cfg.Length, vodSegment)-1, o.cfg.Length, "init.mp4", ".m4s"), true
	}
	last := newest(now)
	return media(liveSegment, last-liveWindow+1, last, 0, "init.mp4", ".m4s"), true
}

// master lists the rungs. BANDWIDTH is the peak (RFC 8216, section 4.3.4.2).
func (o *Origin) master() string {
	var b strings.Builder
	b.WriteString("#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n")
	for _, rate := range o.cfg.Bitrates {
		peak := int64(math.Ceil(float64(rate) * (1 + o.cfg.Spread)))
		fmt.Fprintf(&b, "#EXT-X-STREAM-INF:BANDWIDTH=%d,AVERAGE-BANDWIDTH=%d,CODECS=\"avc1.640028,mp4a.40.2\"\n%d/media.m3u8\n", peak, rate, rate)
	}
	return b.String()
}

// media lists the segments first to last. A length makes it a list that ends,
// with a last segment that may be shorter; without one it is live.
func media(segment time.Duration, first, last int64, length time.Duration, init, suffix string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:%d\n#EXT-X-MEDIA-SEQUENCE:%d\n", int(segment.Seconds()), first)
	if length > 0 {
		b.WriteString("#EXT-X-PLAYLIST-TYPE:VOD\n")
	}
	if init != "" {
		fmt.Fprintf(&b, "#EXT-X-MAP:URI=\"%s\"\n", init)
	}
	for n := first; n <= last; n++ {
		d := segment
		if length > 0 {
			d = part(length, segment, n)
		}
		fmt.Fprintf(&b, "#EXTINF:%.6f,\n%d%s\n", d.Seconds(), n, suffix)
	}
	if length > 0 {
		b.WriteString("#EXT-X-ENDLIST\n")
	}
	return b.String()
}
