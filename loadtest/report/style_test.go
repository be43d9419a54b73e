package report

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// colours returns the variables of each form of the page: light, dark, print.
func colours(t *testing.T) []map[string]string {
	t.Helper()
	variable := regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{3,6});`)
	var all []map[string]string
	for _, block := range regexp.MustCompile(`(?s):root \{.*?\}`).FindAllString(pageStyle, -1) {
		form := make(map[string]string)
		for _, m := range variable.FindAllStringSubmatch(block, -1) {
			form[m[1]] = m[2]
		}
		all = append(all, form)
	}
	if len(all) != 3 {
		t.Fatalf("%d forms of the page, want light, dark and print", len(all))
	}
	return all
}

// luminance is the relative luminance of WCAG 2.2.
func luminance(t *testing.T, colour string) float64 {
	t.Helper()
	digits := strings.TrimPrefix(colour, "#")
	if len(digits) == 3 {
		digits = string([]byte{digits[0], digits[0], digits[1], digits[1], digits[2], digits[2]})
	}
	var sum float64
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(digits[2*i:2*i+2], 16, 8)
		if err != nil {
			t.Fatalf("%q is no colour: %v", colour, err)
		}
		c := float64(n) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}

// TestContrast holds the colours to WCAG 2.2: 4.5 for text, 3 for lines that
// carry meaning. The fills of a stack stand apart from each other as well.
func TestContrast(t *testing.T) {
	for i, form := range colours(t) {
		for _, c := range []struct {
			over, under string
			least       float64
		}{
			{"ink", "paper", 4.5}, {"ink", "card", 4.5}, {"soft", "paper", 4.5}, {"soft", "card", 4.5}, {"soft", "alarm-paper", 4.5},
			{"accent", "card", 4.5}, {"accent", "paper", 4.5}, {"alarm", "card", 4.5}, {"alarm", "alarm-paper", 4.5}, {"ink", "alarm-paper", 4.5},
			{"accent", "accent-fill", 3}, {"other", "card", 3}, {"alarm-fill", "card", 3}, {"alarm-fill", "accent-fill", 1.5}, {"accent-fill", "card", 1.5},
		} {
			a, b := luminance(t, form[c.over]), luminance(t, form[c.under])
			if ratio := (max(a, b) + 0.05) / (min(a, b) + 0.05); ratio < c.least {
				t.Errorf("form %d: %s on %s has a contrast of %.2f, want %v", i, c.over, c.under, ratio, c.least)
			}
		}
	}
}
