package cinema

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
)

// Bounds of a walk through a folder.
const (
	maxFilms   = 1000   // films that are listed
	maxEntries = 50_000 // names that are looked at
)

// mediaTypes maps the extensions of the files that are served to their
// Content-Type. Any other file in a film folder is nobody's business.
var mediaTypes = map[string]string{
	".mp4":  "video/mp4",
	".m4v":  "video/mp4",
	".mov":  "video/quicktime",
	".webm": "video/webm",
	".mkv":  "video/x-matroska",
	".ogv":  "video/ogg",
	".mp3":  "audio/mpeg",
	".m4a":  "audio/mp4",
	".flac": "audio/flac",
	".ogg":  "audio/ogg",
	".opus": "audio/ogg",
	".wav":  "audio/wav",
	".m3u8": "application/vnd.apple.mpegurl", // RFC 8216, section 4
	// Pieces that a playlist names: served, not listed.
	".m4s": "video/iso.segment",
	".ts":  "video/mp2t",
	".aac": "audio/aac",
	".vtt": "text/vtt; charset=utf-8",
}

var pieces = []string{".m4s", ".ts", ".aac", ".vtt"}

// film is one entry of /api/films.
type film struct {
	Title string `json:"title"`
	Note  string `json:"note"` // what kind of file it is, and the folder it lies in
	URL   string `json:"url"`
	Type  string `json:"type"`
	Bytes int64  `json:"bytes"` // size of the file that URL names; a playlist's films are elsewhere
}

// filmList is the answer of /api/films.
type filmList struct {
	Films   []film `json:"films"`
	More    bool   `json:"more"`    // a bound ended the walk: there may be more films
	LeftOut int    `json:"leftOut"` // folders and films that cannot be read, or are links that leave the folder
}

// filmServer serves the files of one tree.
type filmServer struct {
	fsys fs.FS
	rate int    // bytes per second and response, see pacedFile; 0: as fast as they are read
	list []byte // filmList as JSON
}

// openFilms opens dir and lists it, or takes the built-in clip if dir is empty.
func (s *Cinema) openFilms(dir string) (*filmServer, error) {
	f := &filmServer{}
	var list filmList
	if dir == "" {
		clip, err := fs.Sub(clipFiles, "clip")
		if err != nil {
			return nil, err
		}
		f.fsys, f.rate = clip, clipRate
		list.add(clip, film{Title: "Test picture", Note: "MP4, one file"}, "clip.mp4")
		list.add(clip, film{Title: "Test picture in pieces", Note: "HLS, two bitrates"}, "hls/master.m3u8")
	} else {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, fmt.Errorf("open the film folder: %w", err)
		}
		s.root, f.fsys = root, root.FS()
		list = walk(f.fsys)
	}
	var err error
	f.list, err = json.Marshal(list)
	return f, err
}

// add lists the file name of fsys as fl, if it is a readable regular file.
func (l *filmList) add(fsys fs.FS, fl film, name string) {
	info, err := fs.Stat(fsys, name)
	if err != nil || !info.Mode().IsRegular() {
		l.LeftOut++
		return
	}
	fl.URL = (&url.URL{Path: "/film/" + name}).EscapedPath()
	fl.Type = mediaTypes[strings.ToLower(path.Ext(name))]
	fl.Bytes = info.Size()
	l.Films = append(l.Films, fl)
}

// walk lists the films of fsys, sorted by path. It enters no linked folder, so
// it ends; links to files count where fsys follows them.
func walk(fsys fs.FS) filmList {
	list := filmList{Films: []film{}}
	entries := 0
	for folders := []string{"."}; len(folders) > 0 && !list.More; {
		folder := folders[len(folders)-1]
		folders = folders[:len(folders)-1]
		names, err := readFolder(fsys, folder, maxEntries-entries)
		if err != nil {
			list.LeftOut++
		}
		entries += len(names)
		list.More = entries >= maxEntries
		for _, e := range names {
			name := path.Join(folder, e.Name())
			switch {
			case hidden(e.Name()):
			case e.IsDir():
				folders = append(folders, name)
			case !listed(name):
			case len(list.Films) == maxFilms:
				list.More = true
			default:
				ext := path.Ext(e.Name())
				note := strings.ToUpper(ext[1:])
				if folder != "." {
					note += ", in " + folder
				}
				list.add(fsys, film{Title: strings.TrimSuffix(e.Name(), ext), Note: note}, name)
			}
		}
	}
	slices.SortFunc(list.Films, func(a, b film) int { return strings.Compare(a.URL, b.URL) })
	return list
}

// readFolder returns at most limit entries of a folder, and an error if it
// could not read the folder to that point.
func readFolder(fsys fs.FS, name string, limit int) ([]fs.DirEntry, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	dir, ok := f.(fs.ReadDirFile)
	if !ok || limit <= 0 {
		return nil, fs.ErrInvalid
	}
	entries, err := dir.ReadDir(limit)
	if err == io.EOF {
		err = nil
	}
	return entries, err
}

func hidden(name string) bool { return strings.HasPrefix(name, ".") }

// listed reports whether a name is that of a film, not of a piece of one.
func listed(name string) bool {
	ext := strings.ToLower(path.Ext(name))
	return mediaTypes[ext] != "" && !slices.Contains(pieces, ext)
}

func (f *filmServer) serveList(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Write(f.list)
}

// ServeHTTP answers with a media file, whole or in ranges. Paths that leave the
// folder, by dots or by links, are refused by fsys; hidden files and files of
// other kinds are not served. All of these look alike to the caller.
func (f *filmServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("path")
	contentType := mediaTypes[strings.ToLower(path.Ext(name))]
	if contentType == "" || !fs.ValidPath(name) || slices.ContainsFunc(strings.Split(name, "/"), hidden) {
		http.NotFound(w, r)
		return
	}
	// Before the file is opened: opening a named pipe waits for its writer.
	info, err := fs.Stat(f.fsys, name)
	if err != nil || !info.Mode().IsRegular() {
		http.NotFound(w, r)
		return
	}
	file, err := f.fsys.Open(name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer file.Close()
	content, ok := file.(io.ReadSeeker)
	if !ok {
		http.NotFound(w, r)
		return
	}
	if f.rate > 0 {
		content = &pacedFile{ReadSeeker: content, ctx: r.Context(), rate: f.rate}
	}
	w.Header().Set("Content-Type", contentType)
	http.ServeContent(w, r, name, info.ModTime(), content)
}
