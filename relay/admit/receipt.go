package admit

import (
	"errors"
	"fmt"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/golang-jwt/jwt/v5"
)

// Month is a calendar month in UTC, "2026-11".
type Month string

const monthLayout = "2006-01"

// MonthOf returns the month of a time.
func MonthOf(t time.Time) Month { return Month(t.UTC().Format(monthLayout)) }

// End returns when the month is over; zero for what is no month.
func (m Month) End() time.Time {
	t, err := time.Parse(monthLayout, string(m))
	if err != nil {
		return time.Time{}
	}
	return t.AddDate(0, 1, 0)
}

// Receipts makes and reads a relay's notes of how much of its volume a route has
// used. An agent keeps them for the relay, which then needs no database. A
// receipt is a JSON Web Token (RFC 7519) with HS256: its owner can read it, and
// only who has the key can make one.
type Receipts struct {
	key    []byte
	parser *jwt.Parser
}

// usage is a receipt's claims.
type usage struct {
	Route string `json:"route"`
	Month Month  `json:"month"`
	Used  int64  `json:"used"` // bytes
	jwt.RegisteredClaims
}

// receiptAudience keeps a receipt from being taken for any other token.
const receiptAudience = "blindrelay receipt"

// NewReceipts returns those of a key, which all replicas of a relay share, and
// which outlives a restart if the receipts are to.
func NewReceipts(key [32]byte) *Receipts {
	return &Receipts{key[:], jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithAudience(receiptAudience),
		jwt.WithStrictDecoding(),
	)}
}

// Sign returns a receipt, of at most wire.MaxReceipt bytes: so many bytes were
// used in the month.
func (r *Receipts) Sign(route wire.Route, m Month, used int64) string {
	c := usage{Route: route.String(), Month: m, Used: used}
	c.Audience = jwt.ClaimStrings{receiptAudience}
	text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, &c).SignedString(r.key)
	if err != nil {
		panic("admit: " + err.Error()) // HMAC does not fail, and the claims are plain
	}
	return text
}

// Read returns how many bytes a receipt says the route has used in the month of
// now. The error says why it is none of this relay, route or month.
func (r *Receipts) Read(text string, route wire.Route, now time.Time) (used int64, err error) {
	var c usage
	if _, err := r.parser.ParseWithClaims(text, &c, func(*jwt.Token) (any, error) { return r.key, nil }); err != nil {
		return 0, fmt.Errorf("not a receipt of this relay: %w", err)
	}
	switch {
	case c.Route != route.String():
		return 0, errors.New("a receipt of another route")
	case c.Month != MonthOf(now):
		return 0, fmt.Errorf("a receipt of %s", c.Month)
	case c.Used < 0:
		return 0, errors.New("a receipt of less than nothing")
	}
	return c.Used, nil
}
