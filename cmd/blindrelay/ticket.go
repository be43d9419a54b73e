package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"text/tabwriter"
	"time"

	"github.com/blindrelay/blindrelay/relay/admit"
	"github.com/blindrelay/blindrelay/transport/wire"
)

type ticketCmd struct {
	New  ticketNewCmd  `cmd:"" help:"Print a ticket for the agent of one route. The key that signed it, for the relay's --issuer, goes to stderr."`
	Show ticketShowCmd `cmd:"" help:"Print what a ticket says, and with --issuer or --jwks whether a relay would take it now."`
}

type ticketNewCmd struct {
	Key   string        `required:"" type:"path" placeholder:"FILE" help:"Private key that signs (PEM, PKCS #8, Ed25519 or P-256). Made, closed to other users, if there is none."`
	Route routeFlag     `required:"" placeholder:"ROUTE" help:"Route of the agent, as blindlink prints it."`
	For   time.Duration `default:"720h" placeholder:"DURATION" help:"How long the ticket is valid. Default ${default}."`
	From  time.Time     `placeholder:"TIME" help:"From when on it is valid, for example 2030-01-31T12:00:00Z. Default now."`

	Rate     bitRate  `placeholder:"RATE" help:"What the server may forward in a second, in bits: 20M, 1G. Default the relay's --route-rate."`
	Sessions int      `placeholder:"N" help:"How many of its devices may have streams. Default the relay's --route-devices."`
	Volume   byteSize `placeholder:"SIZE" help:"What it may forward in a calendar month: 500G. Default the relay's --route-volume."`
	Weight   int      `placeholder:"N" help:"Its share of a full line, as a multiple of what others have. Default 1."`
}

func (c *ticketNewCmd) Run(context.Context) error {
	if c.For < time.Second {
		return usageError{"--for takes a time from 1s on, for example 720h", "for"}
	}
	if c.Sessions < 0 {
		return usageError{"--sessions takes a number from 1", "sessions"}
	}
	if c.Weight < 0 {
		return usageError{"--weight takes a number from 1", "weight"}
	}
	key, err := signingKey(c.Key)
	if err != nil {
		return err
	}
	issuer, err := admit.IssuerOf(key)
	if err != nil {
		return fmt.Errorf("key file %s: %w", c.Key, err)
	}
	from := c.From
	if from.IsZero() {
		from = time.Now()
	}
	ticket := admit.Ticket{Route: wire.Route(c.Route), NotBefore: c.From, Grant: admit.Grant{
		Rate: int64(c.Rate), Sessions: c.Sessions, Volume: int64(c.Volume), Weight: c.Weight, Until: from.Add(c.For),
	}}
	text, err := ticket.Sign(key)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "issuer %s\n", issuer)
	_, err = fmt.Println(text)
	return err
}

// signingKey reads a private key, or makes one where there is no file.
func signingKey(path string) (crypto.Signer, error) {
	b, err := identityFiles{}.secret(path, "", nil)
	if errors.Is(err, fs.ErrNotExist) {
		if b, err = newSigningKey(); err == nil {
			err = createState(path, b)
		}
		if err != nil {
			return nil, fmt.Errorf("make the key file: %w", err)
		}
	}
	if err != nil {
		return nil, err
	}
	key, err := admit.ParseKey(b)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return key, nil
}

func newSigningKey() ([]byte, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

type ticketShowCmd struct {
	File   string       `arg:"" optional:"" type:"path" help:"File with the ticket. Default stdin: a ticket is a secret and has no place on a command line."`
	Issuer []issuerFlag `placeholder:"KEY" help:"Key that may have signed it. May be given again, or with commas."`
	JWKS   string       `name:"jwks" type:"path" placeholder:"FILE" help:"JSON Web Key Set with keys that may have signed it."`
}

func (c *ticketShowCmd) Run(ctx context.Context) error {
	in := io.Reader(os.Stdin)
	if c.File != "" {
		f, err := os.Open(c.File)
		if err != nil {
			return fmt.Errorf("ticket: %w", err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, 2*wire.MaxTicket))
	if err != nil {
		return fmt.Errorf("ticket: %w", err)
	}
	text := string(bytes.TrimSpace(b))
	ticket, err := admit.ReadTicket(text)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	ticketLines(t, ticket)
	a := admission{Issuer: c.Issuer, JWKS: c.JWKS, Admit: "ticket"}
	if len(a.Issuer) == 0 && a.JWKS == "" {
		fmt.Fprintf(t, "signature\tnot checked: give --issuer or --jwks\n")
		return t.Flush()
	}
	terms, err := a.load()
	if err != nil {
		return err
	}
	policy, err := terms.policy()
	if err != nil {
		return err
	}
	_, err = policy.Admit(ctx, admit.Request{Route: ticket.Route, Ticket: text})
	if refused, ok := errors.AsType[*admit.Refusal](err); ok {
		return errors.Join(t.Flush(), fmt.Errorf("a relay with this issuer refuses it: %s", refused.Text))
	}
	fmt.Fprintf(t, "signature\tgood: a relay with this issuer takes it now\n")
	return errors.Join(t.Flush(), err)
}

// ticketLines writes what a ticket says, a line for each claim that it has.
func ticketLines(w io.Writer, t admit.Ticket) {
	fmt.Fprintf(w, "route\t%s\n", t.Route)
	if !t.NotBefore.IsZero() {
		fmt.Fprintf(w, "from\t%s\n", t.NotBefore.UTC().Format(time.RFC3339))
	}
	fmt.Fprintf(w, "until\t%s\n", t.Until.UTC().Format(time.RFC3339))
	for _, claim := range []struct {
		name, unit string
		value      int64
	}{
		{"rate", " bit/s", t.Rate}, {"sessions", "", int64(t.Sessions)}, {"volume", " bytes a month", t.Volume}, {"weight", "", int64(t.Weight)},
	} {
		if claim.value != 0 {
			fmt.Fprintf(w, "%s\t%d%s\n", claim.name, claim.value, claim.unit)
		}
	}
}
