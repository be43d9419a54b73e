package admit

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/golang-jwt/jwt/v5"
)

func newEd25519(t testing.TB) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newP256(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// policyOf takes the tickets of the keys.
func policyOf(t testing.TB, keys ...crypto.Signer) *Tickets {
	t.Helper()
	var issuers []Issuer
	for _, k := range keys {
		i, err := IssuerOf(k)
		if err != nil {
			t.Fatal(err)
		}
		issuers = append(issuers, i)
	}
	p, err := NewTickets(issuers)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func sign(t testing.TB, key crypto.Signer, ticket Ticket) string {
	t.Helper()
	text, err := ticket.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestTickets follows a ticket with every claim through its life, with both
// kinds of keys.
func TestTickets(t *testing.T) {
	for name, key := range map[string]crypto.Signer{"EdDSA": newEd25519(t), "ES256": newP256(t)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				now := time.Now().Truncate(time.Second)
				ticket := Ticket{
					Route: here, NotBefore: now.Add(time.Hour),
					Grant: Grant{Rate: 50e6, Sessions: 3, Volume: 1 << 40, Weight: 2, Until: now.Add(2 * time.Hour)},
				}
				text := sign(t, key, ticket)
				if read, err := ReadTicket(text); err != nil || !same(read, ticket) {
					t.Errorf("it reads as %+v, %v", read, err)
				}
				p := policyOf(t, newEd25519(t), newP256(t), key)
				ask := func() (Grant, error) { return p.Admit(t.Context(), Request{here, text}) }
				_, err := ask()
				wantRefusal(t, err, wire.CodeTicketRefused, "valid from")
				time.Sleep(time.Hour)
				if g, err := ask(); err != nil || !same(Ticket{Grant: g}, Ticket{Grant: ticket.Grant}) {
					t.Errorf("%+v, %v", g, err)
				}
				_, err = p.Admit(t.Context(), Request{there, text})
				wantRefusal(t, err, wire.CodeTicketRefused, here.String())
				time.Sleep(time.Hour - time.Second)
				if _, err := ask(); err != nil {
					t.Errorf("in its last second: %v", err)
				}
				time.Sleep(time.Second)
				_, err = ask()
				wantRefusal(t, err, wire.CodeTicketExpired, ticket.Until.UTC().Format(time.RFC3339))
			})
		})
	}
}

func same(a, b Ticket) bool {
	equal := a.Until.Equal(b.Until) && a.NotBefore.Equal(b.NotBefore)
	a.Until, a.NotBefore, b.Until, b.NotBefore = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	return equal && a == b
}

// TestForgedTickets shows tickets that nobody signed for this relay, and others
// that an issuer should not have signed.
func TestForgedTickets(t *testing.T) {
	key, p256 := newEd25519(t), newP256(t)
	p := policyOf(t, key, p256)
	issuer, err := IssuerOf(key)
	if err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(time.Hour)
	good := sign(t, key, Ticket{Route: here, Grant: Grant{Until: until}})
	parts := strings.Split(good, ".")
	of := func(method jwt.SigningMethod, key any, header, claims map[string]any) string {
		t.Helper()
		all := jwt.MapClaims{"route": here.String(), "exp": until.Unix()}
		for k, v := range claims {
			if all[k] = v; v == nil {
				delete(all, k)
			}
		}
		token := jwt.NewWithClaims(method, all)
		for k, v := range header {
			token.Header[k] = v
		}
		text, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	claim := func(name string, v any) string {
		return of(jwt.SigningMethodEdDSA, key, nil, map[string]any{name: v})
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	other, err := json.Marshal(map[string]any{"route": there.String(), "exp": until.Unix()})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		text string
		code wire.Code
		word string
	}{
		"none":              {"", wire.CodeTicketMissing, here.String()},
		"no token":          {"nonsense", wire.CodeTicketRefused, "copied whole"},
		"cut":               {good[:len(good)-2], wire.CodeTicketRefused, ""},
		"stray bits":        {good[:len(good)-1] + string(good[len(good)-1]+1), wire.CodeTicketRefused, ""},
		"longer":            {good + "AA", wire.CodeTicketRefused, ""},
		"another signer":    {sign(t, newEd25519(t), Ticket{Route: here, Grant: Grant{Until: until}}), wire.CodeTicketRefused, "no issuer"},
		"another P-256":     {sign(t, newP256(t), Ticket{Route: here, Grant: Grant{Until: until}}), wire.CodeTicketRefused, "no issuer"},
		"other claims":      {parts[0] + "." + base64.RawURLEncoding.EncodeToString(other) + "." + parts[2], wire.CodeTicketRefused, "no issuer"},
		"alg none":          {of(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil, nil), wire.CodeTicketRefused, "no issuer"},
		"HMAC of our key":   {of(jwt.SigningMethodHS256, []byte(issuer.String()), nil, nil), wire.CodeTicketRefused, "no issuer"},
		"RSA":               {of(jwt.SigningMethodRS256, rsaKey, nil, nil), wire.CodeTicketRefused, "no issuer"},
		"no expiry":         {claim("exp", nil), wire.CodeTicketRefused, "exp"},
		"expiry is a text":  {claim("exp", "never"), wire.CodeTicketRefused, ""},
		"expired long ago":  {claim("exp", 1), wire.CodeTicketExpired, "1970"},
		"before its time":   {claim("nbf", until.Unix()), wire.CodeTicketRefused, "valid from"},
		"no route":          {claim("route", nil), wire.CodeTicketRefused, "route"},
		"route is a list":   {claim("route", []string{here.String()}), wire.CodeTicketRefused, ""},
		"negative rate":     {claim("rate", -1), wire.CodeTicketRefused, "negative"},
		"negative sessions": {claim("sessions", -1), wire.CodeTicketRefused, "negative"},
		"negative volume":   {claim("volume", -1), wire.CodeTicketRefused, "negative"},
		"negative weight":   {claim("weight", -1), wire.CodeTicketRefused, "negative"},
		"demands something": {of(jwt.SigningMethodEdDSA, key, map[string]any{"crit": []string{"b64"}}, nil), wire.CodeTicketRefused, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := p.Admit(t.Context(), Request{here, tc.text})
			wantRefusal(t, err, tc.code, tc.word)
			if tc.text != "" && strings.Contains(fmt.Sprint(err), tc.text) {
				t.Error("the refusal holds the ticket")
			}
		})
	}
	// A signature is judged before a time: who has no key learns nothing else.
	_, err = p.Admit(t.Context(), Request{here, sign(t, newEd25519(t), Ticket{Route: here, Grant: Grant{Until: time.Unix(1, 0)}})})
	wantRefusal(t, err, wire.CodeTicketRefused, "no issuer")
}

func TestEveryByteOfATicketCounts(t *testing.T) {
	key := newEd25519(t)
	p := policyOf(t, key)
	text := sign(t, key, Ticket{Route: here, Grant: Grant{Until: time.Now().Add(time.Hour)}})
	for i := range text {
		b := []byte(text)
		b[i] ^= 1
		if _, err := p.Admit(t.Context(), Request{here, string(b)}); err == nil {
			t.Errorf("with byte %d changed it is taken: %s", i, b)
		}
	}
}

func TestSignRefusesOtherKeys(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (Ticket{Route: here}).Sign(p384); err == nil || !strings.Contains(err.Error(), "P-256") {
		t.Errorf("P-384: %v", err)
	}
}

func TestNewTickets(t *testing.T) {
	i, err := IssuerOf(newEd25519(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, maxIssuers + 1} {
		issuers := make([]Issuer, n)
		for j := range issuers {
			issuers[j] = i
		}
		if _, err := NewTickets(issuers); err == nil {
			t.Errorf("%d issuers are taken", n)
		}
	}
}

func TestReadTicketOfOthers(t *testing.T) {
	for _, text := range []string{"", "a", "a.b", "a.b.c", "..", strings.Repeat("x", 4000)} {
		if _, err := ReadTicket(text); err == nil {
			t.Errorf("%.10q is read", text)
		}
	}
}

// fuzzKey is the same in all processes of a fuzzer, and so is what it signs.
func fuzzKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
}

func FuzzAdmitTicket(f *testing.F) {
	key := fuzzKey()
	p := policyOf(f, key, newP256(f))
	good := sign(f, key, Ticket{Route: here, Grant: Grant{Until: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}})
	f.Add(good)
	f.Add("")
	f.Add(good[:40])
	f.Add(strings.Replace(good, ".", "", 1))
	f.Fuzz(func(t *testing.T, text string) {
		_, err := p.Admit(t.Context(), Request{here, text})
		if (err == nil) != (text == good) {
			t.Errorf("%q: %v", text, err)
		}
	})
}

// FuzzClaims has an issuer sign every input as claims.
func FuzzClaims(f *testing.F) {
	key := fuzzKey()
	p := policyOf(f, key)
	encode := base64.RawURLEncoding.EncodeToString
	for _, claims := range []string{
		`{"route":"` + here.String() + `","exp":4102444800}`,
		`{"route":"` + here.String() + `","exp":4102444800,"nbf":1,"rate":1,"sessions":2,"volume":3,"weight":4}`,
		`{"route":"` + there.String() + `","exp":4102444800}`,
		`{"route":"` + here.String() + `","exp":1}`,
		`{"route":"` + here.String() + `","exp":4102444800,"nbf":4102444800}`,
		`{"route":"x","exp":4102444800.5,"rate":-1}`,
	} {
		f.Add([]byte(claims))
	}
	f.Fuzz(func(t *testing.T, claims []byte) {
		text := encode([]byte(`{"alg":"EdDSA"}`)) + "." + encode(claims)
		text += "." + encode(ed25519.Sign(key, []byte(text)))
		grant, err := p.Admit(t.Context(), Request{here, text})
		if err != nil {
			if r, ok := errors.AsType[*Refusal](err); !ok || r.Code != wire.CodeTicketRefused && r.Code != wire.CodeTicketExpired {
				t.Errorf("%s: %v", claims, err)
			}
			return
		}
		read, err := ReadTicket(text)
		now := time.Now()
		if err != nil || read.Route != here || read.Grant != grant || now.Before(read.NotBefore) || now.After(read.Until) {
			t.Errorf("%s is admitted as %+v and reads as %+v, %v", claims, grant, read, err)
		}
		if grant.Rate < 0 || grant.Sessions < 0 || grant.Volume < 0 || grant.Weight < 0 {
			t.Errorf("%s is admitted with a negative term: %+v", claims, grant)
		}
	})
}
