package admit

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func TestIssuerText(t *testing.T) {
	for _, key := range []crypto.Signer{newEd25519(t), newP256(t)} {
		i, err := IssuerOf(key)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseIssuer(" " + i.String() + "\n")
		if err != nil || again.String() != i.String() {
			t.Errorf("%s is read as %v, %v", i, again, err)
		}
	}
	for _, text := range []string{"", "x", "AAAA", "-----BEGIN PUBLIC KEY-----"} {
		if _, err := ParseIssuer(text); err == nil || !strings.Contains(err.Error(), "ticket new") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestParseKey(t *testing.T) {
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	for _, key := range []crypto.Signer{newEd25519(t), newP256(t)} {
		got, err := ParseKey(pkcs8(key))
		if err != nil || !reflect.DeepEqual(got.Public(), key.Public()) {
			t.Errorf("%T: got %T, %v", key, got, err)
		}
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		text []byte
		want string
	}{
		{nil, "no PEM block"},
		{[]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "not a PKCS #8"},
		{pkcs8(p384), "another kind"},
	} {
		if _, err := ParseKey(test.text); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v, want %q", test.text, err, test.want)
		}
	}
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// TestJWKS takes a ticket of each key of a set, and with the identifier of one
// that of no other.
func TestJWKS(t *testing.T) {
	ed, ec := newEd25519(t), newP256(t)
	point, err := ec.Public().(*ecdsa.PublicKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	x := b64(ed.Public().(ed25519.PublicKey))
	okp := fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","kid":"one","use":"sig","alg":"EdDSA","x":%q}`, x)
	p256 := fmt.Sprintf(`{"kty":"EC","crv":"P-256","kid":"two","x":%q,"y":%q}`, b64(point[1:33]), b64(point[33:]))
	foreign := `{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"oct"},{"kty":"EC","crv":"P-384","x":"","y":""},{"kty":"OKP","crv":"Ed25519","use":"enc"}`
	issuers, err := ParseJWKS([]byte(`{"keys":[` + foreign + "," + okp + "," + p256 + `],"more":1}`))
	if err != nil || len(issuers) != 2 {
		t.Fatalf("%v, %v", issuers, err)
	}
	p, err := NewTickets(issuers)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		method jwt.SigningMethod
		key    crypto.Signer
		id     any
		ok     bool
	}{
		{jwt.SigningMethodEdDSA, ed, nil, true}, {jwt.SigningMethodES256, ec, nil, true},
		{jwt.SigningMethodEdDSA, ed, "one", true}, {jwt.SigningMethodES256, ec, "two", true},
		{jwt.SigningMethodEdDSA, ed, "two", false}, {jwt.SigningMethodEdDSA, ed, "three", false},
	} {
		token := jwt.NewWithClaims(tc.method, jwt.MapClaims{"route": here.String(), "exp": time.Now().Add(time.Hour).Unix()})
		if tc.id != nil {
			token.Header["kid"] = tc.id
		}
		text, err := token.SignedString(tc.key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Admit(t.Context(), Request{here, text}); (err == nil) != tc.ok {
			t.Errorf("%s with kid %v: %v", tc.method.Alg(), tc.id, err)
		}
	}
	for text, word := range map[string]string{
		"":                           "not a JSON Web Key Set",
		"{}":                         "no key",
		`{"keys":[]}`:                "no key",
		`{"keys":[` + foreign + `]}`: "no key",
		`{"keys":[` + foreign + "," + strings.Replace(okp, `"x"`, `"d":"AA","x"`, 1) + `]}`: "key 5 is a private one",
		`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AAAA"}]}`:                               "32 bytes",
		`{"keys":[{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA"}]}`:                       "32 bytes",
		fmt.Sprintf(`{"keys":[{"kty":"EC","crv":"P-256","x":%q,"y":%q}]}`, x, x):            "point",
	} {
		if _, err := ParseJWKS([]byte(text)); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%.60s: %v, want a word of %q", text, err, word)
		}
	}
}

func FuzzParseJWKS(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		issuers, err := ParseJWKS(b)
		if err != nil {
			return
		}
		for _, i := range issuers {
			if again, err := ParseIssuer(i.String()); err != nil || again.String() != i.String() {
				t.Errorf("%s is read as %v, %v", i, again, err)
			}
		}
	})
}
