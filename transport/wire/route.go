package wire

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"
)

// Route names a media server's agent on relays. It is the truncated hash of
// the agent's route key, so nobody can claim another's route and the relay
// needs no database of names.
type Route [16]byte

// RouteOf returns the route of a public key given as DER SubjectPublicKeyInfo:
// SHA-256("blindrelay-route/1" || 0x00 || SPKI)[:16].
func RouteOf(spki []byte) Route {
	h := sha256.New()
	h.Write([]byte("blindrelay-route/1\x00"))
	h.Write(spki)
	return Route(h.Sum(nil)[:16])
}

var routeText = base32.StdEncoding.WithPadding(base32.NoPadding)

// String returns the route in 26 lower-case base32 characters.
func (r Route) String() string { return strings.ToLower(routeText.EncodeToString(r[:])) }

// ParseRoute parses the text form of a route, in either case.
func ParseRoute(s string) (Route, error) {
	b, err := routeText.DecodeString(strings.ToUpper(s))
	if err != nil || len(b) != len(Route{}) {
		return Route{}, fmt.Errorf("%q is not a route: a route is 26 letters and digits, as `blindlink status` prints it", s)
	}
	r := Route(b)
	if r.String() != strings.ToLower(s) {
		return Route{}, fmt.Errorf("%q is not a route: it has stray bits at its end, was it copied whole?", s)
	}
	return r, nil
}

// Token is what a device shows the relay to be let through to a route. It
// shields the agent from strangers' load; it protects no content.
type Token [16]byte

// TokenHash is the SHA-256 of a token, as the agent registers it.
type TokenHash [32]byte

// Hash returns the form of the token that the relay keeps.
func (t Token) Hash() TokenHash { return sha256.Sum256(t[:]) }
