package pair

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// An invite in bytes, integers big-endian:
//
//	version u8 (1) | flags u8 | server pin 32 | secret 16 | route 16 | expiry u32 (Unix seconds)
//	| n u8 (1..3) | n x (length u8 | "host:port" or "host:port/tcpport") | with flagPins: n x relay pin 32
//	| check 4 = SHA-256("blindrelay-invite/1" || 0x00 || all before)[:4]
//
// Its text is "BR1:" and the base32 of these bytes (RFC 4648, upper case, no
// padding). Later versions keep the version byte first and the check last.
const (
	invitePrefix  = "BR1:"
	inviteVersion = 1

	flagApprove = 1 << 0 // the owner must approve
	flagPins    = 1 << 1 // relay pins follow the addresses; set only if one of them is not zero

	checkLen = 4
	// maxInviteText bounds what ParseInvite looks at: the longest invite is
	// 1,272 characters, the rest is room for blanks and dashes.
	maxInviteText = 8192
)

// ErrNotInvite says that a text does not begin as an invite does, so it may be
// meant as something else.
var ErrNotInvite = errors.New("this is not an invite: an invite is a text that begins with BR1")

var (
	errTypo  = errors.New("the invite has a typo")
	errCut   = errors.New("the invite is cut off")
	errNewer = errors.New("the invite is from a newer version: update blindlink on this device")
)

var inviteText = base32.StdEncoding.WithPadding(base32.NoPadding)

// Invite lets one device pair with a server, once, until it expires. It holds
// a secret: [Invite.Text] shows it, formatting with the fmt package does not.
type Invite struct {
	Server  e2e.Pin      // the server's identity
	Route   wire.Route   // the server's name on relays
	Expires time.Time    // whole seconds
	Relays  []wire.Relay // 1 to 3, in the order to try
	Approve bool         // the owner must compare six words and approve
	secret  [16]byte
}

// String names the invite without its secret.
func (i Invite) String() string { return "invite to " + i.Route.String() }

// GoString is String, so that no format shows the secret.
func (i Invite) GoString() string { return i.String() }

// Text returns the invite for people and QR codes: "BR1:" and base32, which
// fits the alphanumeric mode of a QR code.
func (i Invite) Text() string { return invitePrefix + inviteText.EncodeToString(i.encode()) }

// Token returns what a device that is not paired yet shows the relay:
// HMAC-SHA256(secret, "blindrelay-invite-tok/1" || 0x00)[:16].
func (i Invite) Token() wire.Token {
	m := hmac.New(sha256.New, i.secret[:])
	m.Write([]byte("blindrelay-invite-tok/1\x00"))
	return wire.Token(m.Sum(nil)[:16])
}

// Expired returns nil while the invite is good at now, and an error that says
// since when it is not. A device's clock may be wrong and the server decides,
// so a device uses this to explain a refusal and not instead of trying.
func (i Invite) Expired(now time.Time) error {
	if now.Before(i.Expires) {
		return nil
	}
	return fmt.Errorf("the invite expired on %s: ask for a new one (`blindlink invite` at home)",
		i.Expires.UTC().Format("2 January 2006 at 15:04:05 MST"))
}

func (i Invite) encode() []byte {
	flags := byte(0)
	if i.Approve {
		flags |= flagApprove
	}
	if pinned(i.Relays) {
		flags |= flagPins
	}
	b := make([]byte, 0, 256)
	b = append(b, inviteVersion, flags)
	b = append(b, i.Server[:]...)
	b = append(b, i.secret[:]...)
	b = append(b, i.Route[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(i.Expires.Unix()))
	b = appendRelays(b, i.Relays)
	return append(b, inviteCheck(b)...)
}

func inviteCheck(b []byte) []byte {
	h := sha256.New()
	h.Write([]byte("blindrelay-invite/1\x00"))
	h.Write(b)
	return h.Sum(nil)[:checkLen]
}

// ParseInvite reads the text of an invite. It forgives case, blanks, line ends
// and dashes, and nothing else: there is one canonical text for each invite.
// It does not look at the expiry. Each error says what is wrong and what to
// do; [ErrNotInvite] marks a text that does not begin as an invite.
func ParseInvite(text string) (Invite, error) {
	if len(text) > maxInviteText {
		return Invite{}, fmt.Errorf("%w, and is shorter than %d characters", ErrNotInvite, maxInviteText)
	}
	text = squeeze(text)
	body, ok := strings.CutPrefix(text, invitePrefix)
	if !ok {
		switch v, _, colon := strings.Cut(text, ":"); {
		case colon && laterPrefix(v):
			return Invite{}, errNewer
		case text != "" && strings.HasPrefix(invitePrefix, text):
			return Invite{}, fmt.Errorf("%w: only its first characters are here, copy it whole", errCut)
		}
		return Invite{}, ErrNotInvite
	}
	for i, c := range []rune(body) {
		if !('A' <= c && c <= 'Z' || '2' <= c && c <= '7') {
			return Invite{}, fmt.Errorf("%w: %q at character %d, invites have only the letters A to Z and the digits 2 to 7", errTypo, c, len(invitePrefix)+i+1)
		}
	}
	b, err := inviteText.DecodeString(body)
	if err != nil {
		return Invite{}, fmt.Errorf("%w or has a character too few or too many: copy it whole", errCut)
	}
	if inviteText.EncodeToString(b) != body {
		return Invite{}, fmt.Errorf("%w in its last character: copy it again", errTypo)
	}
	return decodeInvite(b)
}

// squeeze drops what people and mail programs add and turns ASCII letters to
// upper case.
func squeeze(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r), unicode.Is(unicode.Dash, r):
			return -1
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		}
		return r
	}, text)
}

// laterPrefix reports whether s is BR and a version of two or more.
func laterPrefix(s string) bool {
	n, ok := strings.CutPrefix(s, "BR")
	return ok && n != "" && len(n) <= 3 && n[0] != '0' && n != "1" && strings.Trim(n, "0123456789") == ""
}

func decodeInvite(b []byte) (Invite, error) {
	head := len(b) - checkLen
	intact := head > 0 && string(inviteCheck(b[:head])) == string(b[head:])
	if intact && (b[0] > inviteVersion || b[0] == inviteVersion && head > 1 && b[1]&^(flagApprove|flagPins) != 0) {
		return Invite{}, errNewer
	}
	c := cursor{b: b}
	version, flags := c.u8(), c.u8()
	i := Invite{
		Server:  e2e.Pin(c.take(32)),
		secret:  [16]byte(c.take(16)),
		Route:   wire.Route(c.take(16)),
		Expires: time.Unix(int64(binary.BigEndian.Uint32(c.take(4))), 0).UTC(),
		Approve: flags&flagApprove != 0,
	}
	i.Relays = c.relays(flags&flagPins != 0)
	c.take(checkLen)
	switch {
	case !intact && c.short:
		return Invite{}, fmt.Errorf("%w: it ends after %d characters, copy it whole", errCut, len(invitePrefix)+inviteText.EncodedLen(len(b)))
	case !intact:
		return Invite{}, fmt.Errorf("%w: its check does not match, compare it with the original or copy it again", errTypo)
	case c.short, len(c.b) > 0, version != inviteVersion:
		return Invite{}, errors.New("the invite is malformed although its check matches: it was not made by blindlink")
	case (flags&flagPins != 0) != pinned(i.Relays):
		return Invite{}, errors.New("the invite is malformed: it announces relay pins and has none")
	}
	if err := checkRelays(i.Relays); err != nil {
		return Invite{}, fmt.Errorf("the invite is malformed: %w", err)
	}
	return i, nil
}
