// Package cinema is the demo's media server: a page that plays films and shows
// beside them what the relay sees of them.
//
//	wire := cinema.NewWire() // the demo's relay calls wire.Seen for each chunk
//	c, err := cinema.New(cinema.Config{Dir: dir, Wire: wire})
//	...
//	defer c.Close()
//	http.Serve(listener, c)
//
// The page needs no script, font or picture from any other host, and its
// Content-Security-Policy allows none. Everything it shows, the view of the
// relay too, comes the way the film comes: sealed, through the relay.
package cinema

import (
	"embed"
	"net/http"
	"os"
	"sync/atomic"
)

//go:generate clip/make.sh

//go:embed clip/clip.mp4 clip/hls
var clipFiles embed.FS

//go:embed page
var pageFiles embed.FS

// Config is what a Cinema shows.
type Config struct {
	// Dir is the folder whose films are listed. Empty: the built-in clip.
	Dir string
	// Wire is what the relay saw. Nil: a Wire that has seen nothing.
	Wire *Wire
}

// Cinema is the media server, an [http.Handler] for any number of goroutines.
//
// A response that carries a film has no deadline of its own, because a paused
// player may leave it unread for hours. The page's live view is a response
// that ends only with its request. So end both with [http.Server.Close], or
// cancel the server's BaseContext before [http.Server.Shutdown].
type Cinema struct {
	mux      *http.ServeMux
	root     *os.Root // of Config.Dir; nil with the built-in clip
	wire     *Wire
	viewers  chan struct{} // one slot per running live view; never closed; capacity: maxViewers
	ownBytes atomic.Uint64 // what all live views were sent so far, before it was sealed
}

// New returns the media server of c. It walks c.Dir here and only here: a film
// that is added later is served but not listed. An error means that the folder
// cannot be opened. The caller closes the Cinema once nothing serves it.
func New(c Config) (*Cinema, error) {
	s := &Cinema{mux: http.NewServeMux(), wire: c.Wire, viewers: make(chan struct{}, maxViewers)}
	if s.wire == nil {
		s.wire = NewWire()
	}
	films, err := s.openFilms(c.Dir)
	if err != nil {
		return nil, err
	}
	s.mux.Handle("GET /film/{path...}", films)
	s.mux.HandleFunc("GET /api/films", films.serveList)
	s.mux.HandleFunc("GET /wire", s.serveWire)
	for pattern, file := range map[string]asset{
		"GET /{$}":       {"page/index.html", "text/html; charset=utf-8"},
		"GET /style.css": {"page/style.css", "text/css; charset=utf-8"},
		"GET /app.js":    {"page/app.js", "text/javascript; charset=utf-8"},
		"GET /icon.svg":  {"page/icon.svg", "image/svg+xml"},
	} {
		s.mux.Handle(pattern, file)
	}
	return s, nil
}

// Close releases the film folder. Responses that still run lose it.
func (s *Cinema) Close() error {
	if s.root == nil {
		return nil
	}
	return s.root.Close()
}

// contentSecurityPolicy lets the page load its own files and nothing else.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
	"media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// ServeHTTP answers one request: / (the page), /api/films (the list, JSON),
// /film/PATH (bytes, with ranges) or /wire (the live view, server-sent events).
func (s *Cinema) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", contentSecurityPolicy)
	h.Set("Cross-Origin-Resource-Policy", "same-origin") // no other site shows these films
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	// Nothing is stored: whatever the page shows has just come through the relay.
	h.Set("Cache-Control", "no-store")
	s.mux.ServeHTTP(w, r)
}

// asset is one embedded file of the page.
type asset struct{ name, contentType string }

func (a asset) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", a.contentType)
	http.ServeFileFS(w, r, pageFiles, a.name)
}
