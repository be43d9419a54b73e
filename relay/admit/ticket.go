package admit

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/golang-jwt/jwt/v5"
)

// Ticket is what an issuer has signed: under which terms a relay may admit the
// agent of a route.
type Ticket struct {
	Route     wire.Route
	NotBefore time.Time // zero: valid at once; to the second
	Grant               // Until is required, to the second
}

// claims is a ticket as a JSON Web Token (RFC 7519) has it, beside "exp" and
// "nbf".
type claims struct {
	Route    string `json:"route"`
	Rate     int64  `json:"rate,omitempty"`
	Sessions int    `json:"sessions,omitempty"`
	Volume   int64  `json:"volume,omitempty"`
	Weight   int    `json:"weight,omitempty"`
	jwt.RegisteredClaims
}

func (c *claims) ticket() (Ticket, error) {
	route, err := wire.ParseRoute(c.Route)
	if err != nil {
		return Ticket{}, errors.New("its claim \"route\" is not a route")
	}
	if c.ExpiresAt == nil {
		return Ticket{}, errors.New("it has no claim \"exp\", which says until when it is valid")
	}
	t := Ticket{Route: route, Grant: Grant{
		Rate: c.Rate, Sessions: c.Sessions, Volume: c.Volume, Weight: c.Weight, Until: c.ExpiresAt.Time,
	}}
	if wrong := t.Grant.check(); wrong != "" {
		return Ticket{}, errors.New("a claim of it is " + wrong)
	}
	if c.NotBefore != nil {
		t.NotBefore = c.NotBefore.Time
	}
	return t, nil
}

// Sign returns the ticket as text, signed with EdDSA or ES256 as the key is
// Ed25519 or P-256.
func (t Ticket) Sign(key crypto.Signer) (string, error) {
	issuer, err := IssuerOf(key)
	if err != nil {
		return "", err
	}
	c := claims{Route: t.Route.String(), Rate: t.Rate, Sessions: t.Sessions, Volume: t.Volume, Weight: t.Weight}
	c.ExpiresAt = jwt.NewNumericDate(t.Until)
	if !t.NotBefore.IsZero() {
		c.NotBefore = jwt.NewNumericDate(t.NotBefore)
	}
	text, err := jwt.NewWithClaims(issuer.method(), c).SignedString(key)
	if err == nil && len(text) > wire.MaxTicket {
		err = fmt.Errorf("it has %d bytes, at most %d are possible", len(text), wire.MaxTicket)
	}
	if err != nil {
		return "", fmt.Errorf("sign the ticket: %w", err)
	}
	return text, nil
}

// ReadTicket reads a ticket and checks neither its signature nor its time.
func ReadTicket(text string) (Ticket, error) {
	var c claims
	if _, _, err := jwt.NewParser().ParseUnverified(text, &c); err != nil {
		return Ticket{}, fmt.Errorf("this is not a ticket: %w", err)
	}
	t, err := c.ticket()
	if err != nil {
		return Ticket{}, fmt.Errorf("this is no ticket of a relay: %w", err)
	}
	return t, nil
}

// Tickets admits the agents whose tickets one of its issuers has signed.
type Tickets struct {
	issuers []Issuer
	parser  *jwt.Parser
}

// maxIssuers bounds what a ticket that nobody has signed costs the relay.
const maxIssuers = 16

// NewTickets returns the policy for 1 to 16 issuers.
func NewTickets(issuers []Issuer) (*Tickets, error) {
	if n := len(issuers); n == 0 || n > maxIssuers {
		return nil, fmt.Errorf("%d issuers of tickets, a relay takes 1 to %d", n, maxIssuers)
	}
	return &Tickets{issuers, jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg(), jwt.SigningMethodES256.Alg()}),
		jwt.WithStrictDecoding(),
	)}, nil
}

// Admit checks the ticket of the request.
func (t *Tickets) Admit(_ context.Context, r Request) (Grant, error) {
	if r.Ticket == "" {
		return Grant{}, &Refusal{Code: wire.CodeTicketMissing, Text: "this relay admits a server only with a ticket from its operator, for route " + r.Route.String()}
	}
	var c claims
	if _, err := t.parser.ParseWithClaims(r.Ticket, &c, t.keys); err != nil {
		return Grant{}, c.refusal(err)
	}
	ticket, err := c.ticket()
	if err != nil {
		return Grant{}, refused("the ticket is not one for a relay: " + err.Error())
	}
	if ticket.Route != r.Route {
		return Grant{}, refused(fmt.Sprintf("the ticket is for route %s, and this server's is %s", ticket.Route, r.Route))
	}
	return ticket.Grant, nil
}

// keys returns those that may have signed a ticket.
func (t *Tickets) keys(token *jwt.Token) (any, error) {
	if _, ok := token.Header["crit"]; ok {
		return nil, errors.New("it demands an extension") // RFC 7515, section 4.1.11
	}
	id, _ := token.Header["kid"].(string)
	var set jwt.VerificationKeySet
	for _, i := range t.issuers {
		if i.method() == token.Method && (id == "" || i.id == "" || i.id == id) {
			set.Keys = append(set.Keys, i.key)
		}
	}
	if len(set.Keys) == 0 {
		return nil, errors.New("no key fits")
	}
	return set, nil
}

func refused(text string) *Refusal { return &Refusal{Code: wire.CodeTicketRefused, Text: text} }

// refusal says what is wrong with the ticket. Its claims can be believed where
// the signature was found good, which comes before the times.
func (c *claims) refusal(err error) *Refusal {
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return &Refusal{Code: wire.CodeTicketExpired, Text: "the ticket's time was over at " + c.ExpiresAt.UTC().Format(time.RFC3339)}
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return refused("the ticket is valid from " + c.NotBefore.UTC().Format(time.RFC3339) + " on")
	case errors.Is(err, jwt.ErrTokenSignatureInvalid), errors.Is(err, jwt.ErrTokenUnverifiable):
		return refused("no issuer of this relay has signed the ticket")
	}
	return refused("the ticket is not a JSON Web Token, was it copied whole?")
}
