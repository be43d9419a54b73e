package admit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// Ask leaves the decision to an HTTP service of the operator. It posts
//
//	{"route": "...", "ticket": "..."}
//
// and takes these answers; a redirect, anything else and no answer in time are
// a refusal with wire.CodeAdmitFailed:
//
//	200  {"until": "2030-01-31T12:00:00Z", ...}: admitted; until when to ask again
//	     may be left out, and so may the other terms of a Grant: rate, sessions,
//	     volume, weight
//	204  admitted
//	403  not admitted; the body may be a sentence for the owner of the agent
type Ask struct {
	url    string
	client http.Client
}

const (
	askConnections = 32      // at a time; who finds none free waits for one
	maxAnswer      = 4 << 10 // bytes of an answer's body
	maxSentence    = 200     // bytes of a refusal's sentence
)

// NewAsk returns the policy for a service at an http or https URL that answers
// within timeout. The caller closes it.
func NewAsk(address string, timeout time.Duration) (*Ask, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("this is not the URL of a service: write for example http://127.0.0.1:8080/admit")
	}
	return &Ask{address, http.Client{
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			MaxConnsPerHost: askConnections, MaxIdleConnsPerHost: askConnections,
			IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 16 << 10,
		},
	}}, nil
}

// Close ends the connections to the service that are idle.
func (a *Ask) Close() { a.client.CloseIdleConnections() }

type question struct {
	Route  string `json:"route"`
	Ticket string `json:"ticket,omitempty"`
}

type answer struct {
	Rate     int64     `json:"rate"`
	Sessions int       `json:"sessions"`
	Volume   int64     `json:"volume"`
	Weight   int       `json:"weight"`
	Until    time.Time `json:"until"`
}

// Admit asks the service.
func (a *Ask) Admit(ctx context.Context, r Request) (Grant, error) {
	body, err := json.Marshal(question{r.Route.String(), r.Ticket})
	if err != nil {
		return Grant{}, failed(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(body))
	if err != nil {
		return Grant{}, failed(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := a.client.Do(req)
	if err != nil {
		return Grant{}, failed(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return Grant{}, failed(err)
	case len(text) > maxAnswer:
		return Grant{}, failed(fmt.Errorf("its answer has more than %d bytes", maxAnswer))
	case res.StatusCode == http.StatusForbidden:
		refusal := notAdmitted(r.Route)
		if s := sentence(text); s != "" {
			refusal.Text = s
		}
		return Grant{}, refusal
	case res.StatusCode == http.StatusNoContent:
		return Grant{}, nil
	case res.StatusCode != http.StatusOK:
		return Grant{}, failed(fmt.Errorf("it answers %s, and not 200, 204 or 403", res.Status))
	}
	grant, err := terms(text)
	if err != nil {
		return Grant{}, failed(err)
	}
	return grant, nil
}

// terms reads an answer. A word that is not known would be a term that is not
// kept.
func terms(text []byte) (Grant, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var a answer
	if err := d.Decode(&a); err != nil {
		return Grant{}, fmt.Errorf("its answer is not what a relay understands: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Grant{}, errors.New("its answer goes on behind the terms")
	}
	if wrong := Grant(a).check(); wrong != "" {
		return Grant{}, errors.New("a term of its answer is " + wrong)
	}
	return Grant(a), nil
}

// sentence takes the service's words if they can be shown.
func sentence(text []byte) string {
	s := strings.TrimSpace(string(text))
	if len(s) > maxSentence || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return ""
	}
	return s
}

func failed(err error) *Refusal {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // without the URL, which may hold a secret
	}
	return &Refusal{
		Code: wire.CodeAdmitFailed, Text: "the relay could not find out whether it admits this server",
		Err: fmt.Errorf("ask the service that admits agents: %w", err),
	}
}
