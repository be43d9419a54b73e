package pair

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName is the longest name of a device or a server, in bytes.
const maxName = 64

// checkName demands 1 to maxName bytes of printable text without a blank at
// either end. Printable excludes control characters and the invisible ones
// that turn the direction of text, so names are safe on a terminal.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("a name must not be empty")
	case len(name) > maxName:
		return fmt.Errorf("a name has at most %d bytes, this one has %d", maxName, len(name))
	case cleanName(name, "") != name:
		return fmt.Errorf("the name %q has characters that do not print, or a blank at an end", name)
	}
	return nil
}

// cleanName makes a valid name of what another machine sent: unprintable
// characters are dropped and the rest is cut to maxName bytes.
func cleanName(name, fallback string) string {
	name = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, name))
	if name = cut(name, maxName); name == "" {
		return fallback
	}
	return name
}

// cut shortens s to at most n bytes at a rune's border, without a blank at its end.
func cut(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return strings.TrimSpace(s)
}

// uniqueName returns name, or name with -2, -3 and so on, such that taken is
// false for it. taken must be false for some number.
func uniqueName(name string, taken func(string) bool) string {
	for n, try := 2, name; ; n++ {
		if !taken(try) {
			return try
		}
		end := fmt.Sprintf("-%d", n)
		try = cut(name, maxName-len(end)) + end
	}
}

// sameName compares as people do: TV and tv are one name.
func sameName(a, b string) bool { return strings.EqualFold(a, b) }
