package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// originTime is how long the media server has for an answer.
const originTime = 5 * time.Second

// originReport says how the media server answers.
type originReport struct {
	Address string        `json:"address"`
	Answer  string        `json:"answer,omitempty"`
	After   time.Duration `json:"first_byte_ns,omitempty"` // to the answer, with the way there
	Error   string        `json:"error,omitempty"`
}

// visit asks the media server for its first page, or connects to it if it is
// not known to speak HTTP.
func visit(ctx context.Context, to *url.URL) *originReport {
	ctx, cancel := context.WithTimeout(ctx, originTime)
	defer cancel()
	r := &originReport{Address: to.Redacted()}
	begin := time.Now()
	var err error
	if to.Scheme == "tcp" {
		var c net.Conn
		if c, err = new(net.Dialer).DialContext(ctx, "tcp", to.Host); err == nil {
			c.Close()
			r.Answer = "takes connections"
		}
	} else {
		var status int
		if status, err = get(ctx, to); err == nil {
			r.Answer = strings.TrimSpace(fmt.Sprintf("%d %s", status, http.StatusText(status)))
			if status >= 500 {
				r.Error = "it answers " + r.Answer + ": look into the media server's log"
			}
		}
	}
	r.After = time.Since(begin)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		r.Error = fmt.Sprintf("it does not answer within %v: is it overloaded, or is this not its address?", originTime)
	case err != nil:
		r.Error = fmt.Sprintf("it cannot be reached: is it running, and is --to its address? (%v)", err)
	}
	return r
}

// get returns the status of the answer. It goes to no proxy and follows no
// redirect, as share does.
func get(ctx context.Context, to *url.URL) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), nil)
	if err != nil {
		return 0, err
	}
	t := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	defer t.CloseIdleConnections()
	resp, err := t.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// buffersWanted is what QUIC asks for each UDP socket, in bytes: quic-go wants
// 7 MiB each way.
const buffersWanted = 7 << 20

// buffers are the limits of Linux for a socket's buffers, in bytes.
type buffers struct {
	Receive int    `json:"rmem_max"`
	Send    int    `json:"wmem_max"`
	Advice  string `json:"advice,omitempty"` // what to do if they are small
}

// readBuffers returns nil where the system does not tell.
func readBuffers(dir string) *buffers {
	b := &buffers{}
	var small []string
	for _, v := range []struct {
		name string
		n    *int
	}{{"rmem_max", &b.Receive}, {"wmem_max", &b.Send}} {
		text, err := os.ReadFile(filepath.Join(dir, v.name))
		if err != nil {
			return nil
		}
		if *v.n, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
			return nil
		}
		if *v.n < buffersWanted {
			small = append(small, fmt.Sprintf("net.core.%s=%d", v.name, buffersWanted))
		}
	}
	if len(small) > 0 {
		b.Advice = "small; for fast lines, as root: sysctl -w " + strings.Join(small, " ")
	}
	return b
}
