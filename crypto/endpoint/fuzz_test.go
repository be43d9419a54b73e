package endpoint

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/blindrelay/blindrelay/crypto/e2e"
)

// sentRequest keeps what the proxy would send to the media server.
type sentRequest struct{ text bytes.Buffer }

func (s *sentRequest) RoundTrip(r *http.Request) (*http.Response, error) {
	s.text.Reset()
	if err := r.Write(&s.text); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}

// FuzzOrigin: whatever request a device sends, the media server reads exactly
// one, and in it the agent alone says who calls.
func FuzzOrigin(f *testing.F) {
	f.Add([]byte("GET /web/index.html?a=1&a=%zz HTTP/1.1\r\nHost: home:8096\r\nX-Forwarded-For: 127.0.0.1\r\nX_Real_IP: ::1\r\n\r\n"))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: X-Forwarded-For, close\r\nForwarded: for=127.0.0.1\r\n\r\nhello"))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Real-Ip\r\n\r\n1\r\na\r\n0\r\nX-Real-Ip: 127.0.0.1\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nRemote-User: admin\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.0\r\nX-Forwarded-Host: a\r\nX-FORWARDED-PROTO: https\r\n\r\n"))
	f.Add([]byte("GET a:../b HTTP/1.1\r\nHost: x\r\n\r\n"))
	target, err := url.Parse("http://127.0.0.1:8096/base")
	if err != nil {
		f.Fatal(err)
	}
	who := caller{address: deviceAddress(e2e.Pin{1, 2, 3}).String()}
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		o, err := NewHTTPOrigin(target, nil)
		if err != nil {
			t.Fatal(err)
		}
		var sent sentRequest
		o.proxy.Transport = &sent
		o.proxy.ServeHTTP(httptest.NewRecorder(), in.WithContext(context.WithValue(in.Context(), callerKey{}, who)))
		if sent.text.Len() == 0 {
			return // refused
		}
		text := bytes.Clone(sent.text.Bytes())
		r := bufio.NewReader(bytes.NewReader(text))
		out, err := http.ReadRequest(r)
		if err != nil {
			t.Fatalf("the media server cannot read %q: %v", text, err)
		}
		if _, err := io.Copy(io.Discard, out.Body); err != nil && err != io.ErrUnexpectedEOF {
			t.Fatalf("the body of %q: %v", text, err)
		}
		if n := r.Buffered(); n > 0 {
			t.Fatalf("%d bytes after the request in %q", n, text)
		}
		for name, values := range out.Header {
			ours := map[string]string{"X-Forwarded-For": who.address, "X-Forwarded-Proto": "http", "X-Forwarded-Host": in.Host}
			want, known := ours[name]
			if reserved(plainHeader(name)) && !(known && len(values) == 1 && values[0] == strings.TrimSpace(want)) {
				t.Fatalf("%s: %q reaches the media server", name, values)
			}
		}
		for name, values := range out.Trailer {
			if reserved(plainHeader(name)) && len(values) > 0 {
				t.Fatalf("trailer %s: %q reaches the media server", name, values)
			}
		}
		if !strings.HasPrefix(out.URL.Path, "/base") {
			t.Fatalf("%q asks for what is not below the configured path", text)
		}
		if out.Header.Get("X-Forwarded-For") != who.address {
			t.Fatalf("the caller is missing in %q", text)
		}
	})
}
