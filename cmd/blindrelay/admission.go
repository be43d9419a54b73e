package main

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/blindrelay/blindrelay/relay/admit"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// admission is the settings that say whose agents the relay serves.
type admission struct {
	Admit      string        `enum:"allow,ticket,ask,open" default:"allow" placeholder:"allow|ticket|ask|open" reload:"" help:"Whose agents may register. allow: those of --allow. ticket: those with a ticket that an issuer of --issuer or --jwks has signed. ask: those that the service at --ask-url admits. open: everyone's. Default ${default}."`
	Allow      []routeFlag   `placeholder:"ROUTE" example:"aaaaaaaaaaaaaaaaaaaaaaaaaa" reload:"" help:"Admit the agent of this route, as blindlink prints it. May be given again, or with commas."`
	Issuer     []issuerFlag  `placeholder:"KEY" example:"MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=" reload:"" help:"Take tickets that this key has signed, as 'blindrelay ticket new' prints it. May be given again, or with commas; 16 at most, with those of --jwks."`
	JWKS       string        `name:"jwks" type:"path" placeholder:"FILE" example:"/etc/blindrelay/jwks.json" reload:"" help:"Take tickets that one of the keys in this JSON Web Key Set has signed."`
	AskURL     string        `name:"ask-url" placeholder:"URL" example:"http://127.0.0.1:8080/admit" reload:"" help:"Service that is asked about each agent: it gets POST with JSON {route, ticket} and answers 200 with JSON {until, rate, sessions, volume, weight}, each of which may be left out, 204, or 403 with a sentence for the agent's owner. No answer is a refusal."`
	AskTimeout time.Duration `default:"2s" placeholder:"DURATION" reload:"" help:"How long the service at --ask-url may take, from 100ms to 4s. Default ${default}."`
}

// issuerFlag is an issuer's key on the command line.
type issuerFlag admit.Issuer

func (i *issuerFlag) UnmarshalText(text []byte) error {
	issuer, err := admit.ParseIssuer(string(text))
	*i = issuerFlag(issuer)
	return err
}

// check finds settings that have no effect or lack another.
func (a *admission) check() error {
	for _, s := range []struct {
		given      bool
		flag, mode string
	}{
		{len(a.Allow) > 0, "allow", "allow"},
		{len(a.Issuer) > 0, "issuer", "ticket"},
		{a.JWKS != "", "jwks", "ticket"},
		{a.AskURL != "", "ask-url", "ask"},
	} {
		switch {
		case !s.given || a.Admit == s.mode:
		case a.Admit == "open":
			return usageError{fmt.Sprintf("--admit open admits every agent, which leaves --%s without effect: give one of the two", s.flag), s.flag}
		default:
			return usageError{fmt.Sprintf("--%s has no effect with --admit %s: remove it, or write --admit %s", s.flag, a.Admit, s.mode), s.flag}
		}
	}
	switch {
	case a.Admit == "ticket" && len(a.Issuer) == 0 && a.JWKS == "":
		return usageError{"--admit ticket needs the key that signs tickets: --issuer KEY, as `blindrelay ticket new` prints it, or --jwks FILE", "admit"}
	case a.Admit == "ask" && a.AskURL == "":
		return usageError{"--admit ask needs the service to ask: --ask-url URL", "admit"}
	case a.AskTimeout < 100*time.Millisecond || a.AskTimeout > 4*time.Second:
		return usageError{"--ask-timeout takes a time from 100ms to 4s, for example 2s", "ask-timeout"}
	}
	return nil
}

// announce logs who is let in where that could surprise.
func (a *admission) announce(log *slog.Logger) {
	switch {
	case a.Admit == "open":
		log.Warn("every agent is admitted (--admit open)")
	case a.Admit == "allow" && len(a.Allow) == 0:
		log.Warn("no agent is admitted: give --allow ROUTE, or allow in the config file, for each agent, which says its route when it is refused; or choose by tickets, by a service or --admit open for all")
	}
}

// terms is an admission with what its files hold.
type terms struct {
	admission
	issuers []admit.Issuer
}

// load reads the files of the settings.
func (a *admission) load() (terms, error) {
	t := terms{admission: *a}
	for _, i := range a.Issuer {
		t.issuers = append(t.issuers, admit.Issuer(i))
	}
	if a.JWKS == "" {
		return t, nil
	}
	b, err := os.ReadFile(a.JWKS)
	if err != nil {
		return t, usageError{fmt.Sprintf("--jwks: %v", err), "jwks"}
	}
	more, err := admit.ParseJWKS(b)
	if err != nil {
		return t, usageError{fmt.Sprintf("--jwks: %s: %v", a.JWKS, err), "jwks"}
	}
	t.issuers = append(t.issuers, more...)
	return t, nil
}

// policy returns what the relay asks. The caller closes it.
func (t terms) policy() (admit.Policy, error) {
	switch t.Admit {
	case "open":
		return admit.Open{}, nil
	case "ticket":
		p, err := admit.NewTickets(t.issuers)
		if err != nil {
			return nil, usageError{fmt.Sprintf("--issuer and --jwks: %v", err), "issuer"}
		}
		return p, nil
	case "ask":
		p, err := admit.NewAsk(t.AskURL, t.AskTimeout)
		if err != nil {
			return nil, usageError{fmt.Sprintf("--ask-url: %v", err), "ask-url"}
		}
		return p, nil
	}
	allow := make(admit.Allow)
	for _, r := range t.Allow {
		allow[wire.Route(r)] = true
	}
	return allow, nil
}

// closePolicy ends what a policy keeps open.
func closePolicy(p admit.Policy) {
	if ask, ok := p.(*admit.Ask); ok {
		ask.Close()
	}
}
