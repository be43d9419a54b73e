package viewer

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/origin"
	"github.com/blindrelay/blindrelay/loadtest/result"
)

const (
	chunk      = 32 << 10         // bytes a viewer reads at once
	quiet      = 10 * time.Second // without a byte after which a request is given up
	retryAfter = time.Second
)

// response is a request that was answered with success.
type response struct {
	*http.Response
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer // cancels when nothing came for quiet
	sent   time.Time
}

// open sends a request for a range as the Range header writes it, or for the
// whole resource. The caller closes the response.
func (v *Viewer) open(ctx context.Context, u *url.URL, ranged string) (*response, error) {
	r := &response{sent: time.Now()}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	r.timer = time.AfterFunc(quiet, func() { r.cancel(errQuiet) })
	req, err := http.NewRequestWithContext(r.ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		r.close()
		return nil, err
	}
	req.Header.Set("Accept-Encoding", "identity") // sizes must be those of the content
	if ranged != "" {
		req.Header.Set("Range", ranged)
	}
	v.counts.requests++
	r.Response, err = v.cfg.Client.Do(req)
	switch {
	case err != nil:
		err = r.why(err)
	case r.Request != nil && r.Request.URL.Host != u.Host:
		err = errAway
	case ranged == "" && r.StatusCode != http.StatusOK,
		r.StatusCode != http.StatusOK && r.StatusCode != http.StatusPartialContent:
		err = statusError(r.StatusCode)
	default:
		return r, nil
	}
	r.close()
	return nil, err
}

// close ends the request. A connection whose response was read to its end can
// be used again.
func (r *response) close() {
	r.timer.Stop()
	if r.Response != nil {
		r.Body.Close()
	}
	r.cancel(nil)
}

// why returns the reason for an error of the request.
func (r *response) why(err error) error {
	if cause := context.Cause(r.ctx); cause == errQuiet {
		return errQuiet
	}
	return err
}

// read reads size bytes of content from an offset on, with size 0 all, or until
// took returns an error, and verifies them. took is called with each chunk's
// length. A wrong byte counts and is no error: a player shows a broken picture
// and goes on.
func (v *Viewer) read(r *response, u *url.URL, from, size int64, took func(n int) error) (got int64, err error) {
	var film origin.Film
	var wrong error
	if v.cfg.Verify != nil {
		var ok bool
		if film, ok = v.cfg.Verify.Content(u.Path); !ok {
			wrong = fmt.Errorf("the origin has nothing at %.100q", u.Path)
			v.corrupt(wrong)
		}
		if size == 0 {
			size = film.Size - from
		}
	}
	for {
		n, err := r.Body.Read(v.buf)
		if n > 0 {
			r.timer.Reset(quiet)
			if got == 0 {
				v.cfg.Recorder.Hist(result.HistTTFB).Record(time.Since(r.sent))
			}
			v.bytes.Add(int64(n))
			if v.cfg.Verify != nil {
				v.counts.verified += int64(n)
				if wrong == nil {
					if wrong = film.Verify(v.buf[:n], from+got); wrong != nil {
						v.corrupt(wrong)
					}
				}
			}
			got += int64(n)
			if err := took(n); err != nil {
				return got, err
			}
		}
		switch {
		case err == io.EOF && got < size:
			return got, errShort
		case err == io.EOF:
			return got, nil
		case err != nil:
			return got, r.why(err)
		}
	}
}

// corrupt counts a response with a wrong byte.
func (v *Viewer) corrupt(err error) {
	v.counts.corrupt++
	v.failed("corrupt", err)
}

// failed counts an error by its code.
func (v *Viewer) failed(code string, err error) {
	v.cfg.Recorder.Error(code)
	v.cfg.Log.Debug("viewer", "kind", string(v.cfg.Kind), "code", code, "err", err)
}

// retry calls f until it succeeds, fails too often in a row, or ctx ends. f
// reports whether it came further than before, which makes it the first of a
// new row.
func (v *Viewer) retry(ctx context.Context, f func() (further bool, err error)) error {
	for row := 0; ; row++ {
		further, err := f()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case further:
			row = 0
		}
		v.failed(codeOf(err), err)
		if row >= v.cfg.Retries {
			return fmt.Errorf("after %d requests: %w", row+1, err)
		}
		doze(ctx, retryAfter, nil)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// playlist fetches a playlist and returns where it was found.
func (v *Viewer) playlist(ctx context.Context, u *url.URL) (*playlist, *url.URL, error) {
	r, err := v.open(ctx, u, "")
	if err != nil {
		return nil, nil, err
	}
	defer r.close()
	body := &remember{r: r.Body}
	l, err := parsePlaylist(body)
	switch {
	case body.err != nil:
		return nil, nil, r.why(body.err)
	case err != nil:
		return nil, nil, playlistError{err}
	}
	return l, r.Request.URL, nil
}

// remember keeps the error that ended a reader, so that a broken path is not
// taken for a broken playlist.
type remember struct {
	r   io.Reader
	err error // never io.EOF
}

func (m *remember) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if err != nil && err != io.EOF {
		m.err = err
	}
	return n, err
}

// resolve finds what a playlist names, on the playlist's own host.
func resolve(base *url.URL, uri string) (*url.URL, error) {
	u, err := base.Parse(uri)
	if err != nil {
		return nil, playlistError{err}
	}
	if u.Scheme != base.Scheme || u.Host != base.Host {
		return nil, playlistError{fmt.Errorf("it names %.100q, which is not on its own host", uri)}
	}
	return u, nil
}

// fetch reads one piece. took is called with each chunk's length and the
// size of all, -1 if that is unknown.
func (v *Viewer) fetch(ctx context.Context, base *url.URL, p piece, took func(n int, size int64) error) (int64, error) {
	u, err := resolve(base, p.uri)
	if err != nil {
		return 0, err
	}
	ranged := ""
	if p.size > 0 {
		ranged = fmt.Sprintf("bytes=%d-%d", p.from, p.from+p.size-1)
	}
	r, err := v.open(ctx, u, ranged)
	if err != nil {
		return 0, err
	}
	defer r.close()
	if p.size > 0 && r.StatusCode != http.StatusPartialContent {
		return 0, errRange
	}
	return v.read(r, u, p.from, p.size, func(n int) error { return took(n, r.ContentLength) })
}
