//go:build e2e && linux

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/canary"
)

// party is a home and its devices, played by endpoints that tell their secrets
// to files. Everything that people say in it holds a random text.
type party struct {
	program string            // blindlink, as buildEndpoint made it
	text    map[string]string // by where it is
	invites []string
	told    []string // files of the endpoints' secrets
	agent   agent
	devices []device
	over    chan struct{} // closed when the test has ended
}

// places are where a party puts a random text.
var places = []string{
	"path", "query", "header of a request", "cookie", "body of a request",
	"header of a response", "body of a response", "name of a device",
}

// startParty starts the home behind the relay with this line.
func startParty(t *testing.T, program, line string) *party {
	t.Helper()
	s := &party{program: program, text: make(map[string]string), over: make(chan struct{})}
	for _, p := range places {
		s.text[p] = strings.ToLower(rand.Text())
	}
	origin := httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(origin.Close)
	t.Cleanup(origin.CloseClientConnections)
	t.Cleanup(func() { close(s.over) })
	state := newState(t)
	s.agent = agent{s.start(t, "agent", "share", "--relay", line, "--to", origin.URL, "--state", state), state}
	s.agent.firstLine(t)
	return s
}

// start runs an endpoint.
func (s *party) start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	told := filepath.Join(t.TempDir(), "secrets")
	s.told = append(s.told, told)
	cmd := command(context.Background(), t, s.program, args...)
	cmd.Env = append(cmd.Env, "CANARY_SECRETS="+told)
	return start(t, name, cmd)
}

// open pairs another device.
func (s *party) open(t *testing.T) device {
	t.Helper()
	invite := s.agent.invite(t, "--name", fmt.Sprintf("%s %d", s.text["name of a device"], len(s.devices)))
	s.invites = append(s.invites, invite)
	d := device{state: newState(t)}
	d.process = s.start(t, "device", "open", "--listen", "127.0.0.1:0", "--state", d.state, invite)
	d.url = d.awaitURL(t)
	s.devices = append(s.devices, d)
	return d
}

// serve is the media server. It sends without end, and reads only the
// beginning of what is sent to it.
func (s *party) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/"+s.text["path"] || r.Header.Get("X-Title") != s.text["header of a request"] {
		http.NotFound(w, r)
		return
	}
	if r.Method == http.MethodPost {
		io.ReadFull(r.Body, make([]byte, 1024))
		w.Header().Set("X-Title", s.text["header of a response"])
		w.WriteHeader(http.StatusOK)
		http.NewResponseController(w).Flush()
		<-s.over // nobody reads the body, so that its end would not be noticed
		return
	}
	w.Header().Set("X-Title", s.text["header of a response"])
	w.Header().Set("Content-Length", fmt.Sprint(endless))
	page := pageOf(s.text["body of a response"])
	for {
		if _, err := w.Write(page); err != nil {
			return
		}
	}
}

// endless is the length of a body that nobody sees the end of, in bytes.
const endless = int64(1) << 40

// pageOf repeats a text. It is long, so that records are: many short ones would
// fill an endpoint's log before the relay's buffer.
func pageOf(text string) []byte { return bytes.Repeat([]byte(text+"\n"), 20_000) }

// freeze makes a request of a device, over a connection of its own until the
// test ends, reads the beginning of the answer and no more. POST sends a body
// without end.
func (s *party) freeze(t *testing.T, d device, method string) {
	t.Helper()
	c, err := net.Dial("tcp", strings.Trim(strings.TrimPrefix(d.url, "http:"), "/"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	must(t, c.(*net.TCPConn).SetReadBuffer(64<<10))
	must(t, c.SetReadDeadline(time.Now().Add(readyTimeout)))
	length := ""
	if method == http.MethodPost {
		length = fmt.Sprintf("Content-Length: %d\r\n", endless)
	}
	fmt.Fprintf(c, "%s /%s?title=%s HTTP/1.1\r\nHost: home\r\nX-Title: %s\r\nCookie: session=%s\r\n%s\r\n",
		method, s.text["path"], s.text["query"], s.text["header of a request"], s.text["cookie"], length)
	if method == http.MethodPost {
		page := pageOf(s.text["body of a request"])
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for {
				if _, err := c.Write(page); err != nil {
					return
				}
			}
		}()
		t.Cleanup(func() { c.Close(); <-sent })
	}
	in := bufio.NewReaderSize(c, 1024)
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatalf("%s: %v", method, err)
	}
	if res.StatusCode != http.StatusOK || res.Header.Get("X-Title") != s.text["header of a response"] {
		t.Fatalf("%s: %s with %v", method, res.Status, res.Header)
	}
}

// spoken is all that endpoints have told so far.
type spoken struct {
	secrets canary.Scanner // what must not be found
	samples canary.Scanner // sealed records: what the relay holds
	public  canary.Scanner // commits: what it sees of the keys
	number  map[string]int // of values, by kind
}

// listen reads the endpoints' files.
func (s *party) listen(t *testing.T) *spoken {
	t.Helper()
	sp := &spoken{number: make(map[string]int)}
	add := func(name string, value []byte) {
		t.Helper()
		kind, _, _ := strings.Cut(name, "/")
		sp.number[kind]++
		var err error
		switch one := fmt.Sprint(name, " ", sp.number[kind]); kind {
		case "sample":
			err = sp.samples.AddRaw(one, value[:16])
		case "public":
			err = sp.public.AddRaw(one, value[:16])
		default:
			err = sp.secrets.Add(name, value)
		}
		must(t, err)
	}
	for place, text := range s.text {
		add("text/"+place, []byte(text))
	}
	for _, text := range s.invites {
		add("invite/text", []byte(text))
		b, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.TrimPrefix(text, "BR1:"))
		must(t, err)
		add("invite/secret", b[34:50]) // see package pair
	}
	for _, file := range s.told {
		b, err := os.ReadFile(file)
		must(t, err)
		for line := range strings.Lines(string(b)) {
			line, whole := strings.CutSuffix(line, "\n")
			if !whole {
				continue // it is being written
			}
			name, text, _ := strings.Cut(line, " ")
			value, err := hex.DecodeString(text)
			must(t, err)
			if len(value) < canary.MinLen {
				continue // it occurs by chance; what it is derived from is looked for
			}
			add(name, value)
			if strings.HasPrefix(name, "tls/") && strings.Contains(name, "TRAFFIC_SECRET") {
				for _, n := range []int{16, 32} {
					key, err := trafficKey(value, n)
					must(t, err)
					add(fmt.Sprintf("tlskey/%s %d", name, n), key)
				}
			}
		}
	}
	for _, kind := range []string{"text", "invite", "identity", "exported", "derived", "tls", "tlskey", "sample", "public"} {
		if sp.number[kind] == 0 {
			t.Errorf("the endpoints told no value of the kind %q", kind)
		}
	}
	return sp
}

// trafficKey derives a key of n bytes from a traffic secret (RFC 8446,
// section 7.3).
func trafficKey(secret []byte, n int) ([]byte, error) {
	var h func() hash.Hash = sha256.New
	if len(secret) == sha512.Size384 {
		h = sha512.New384
	}
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(append(info, 9), "tls13 key"...)
	return hkdf.Expand(h, secret, string(append(info, 0)), n)
}
