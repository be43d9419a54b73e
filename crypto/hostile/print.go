package hostile

import (
	"fmt"
	"io"
	"regexp"
	"strings"
)

// named are the results of all attacks of one name.
type named struct {
	name                  string
	tried, refused, whole int
	survived              []Result
	seen                  []string // sentences, the most frequent first
	count                 map[string]int
}

// pinText is a pin or a number of the relay's in a sentence, which differ from
// run to run.
var pinText = regexp.MustCompile(`\(its key is [^)]*\)`)

func group(results []Result) (all []*named) {
	byName := make(map[string]*named)
	for _, r := range results {
		g := byName[r.Attack]
		if g == nil {
			g = &named{name: r.Attack, count: make(map[string]int)}
			byName[r.Attack] = g
			all = append(all, g)
		}
		g.tried++
		switch {
		case r.Survived != "":
			g.survived = append(g.survived, r)
		case r.Whole:
			g.whole++
		default:
			g.refused++
			text := strings.TrimSpace(pinText.ReplaceAllString(r.Seen, ""))
			if g.count[text]++; g.count[text] == 1 {
				g.seen = append(g.seen, text)
			}
		}
	}
	return all
}

// sentences is how many different ones of an attack Print shows.
const sentences = 2

// Print writes a table of results for people: for each attack at how many
// positions it was tried, how often it was refused, how often all arrived whole
// because the endpoints made the damage good or there was none, and what the
// person at the device was told. It returns how many succeeded.
func Print(w io.Writer, results []Result) (survivors int, err error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%-58s %6s %8s %8s %9s\n", "what the relay does", "tried", "refused", "whole", "SUCCEEDED")
	tried, refused, whole := 0, 0, 0
	for _, g := range group(results) {
		fmt.Fprintf(&b, "%-58s %6d %8d %8d %9d\n", g.name, g.tried, g.refused, g.whole, len(g.survived))
		for i, text := range g.seen {
			if i == sentences {
				fmt.Fprintf(&b, "    and %d other sentences\n", len(g.seen)-sentences)
				break
			}
			fmt.Fprintf(&b, "    you see: %s\n", text)
		}
		for _, r := range g.survived {
			fmt.Fprintf(&b, "    SUCCEEDED at %s: %s (seen: %q, at home: %q)\n", r.Position, r.Survived, r.Seen, r.AtHome)
		}
		tried, refused, whole, survivors = tried+g.tried, refused+g.refused, whole+g.whole, survivors+len(g.survived)
	}
	fmt.Fprintf(&b, "%-58s %6d %8d %8d %9d\n", "all", tried, refused, whole, survivors)
	_, err = io.WriteString(w, b.String())
	return survivors, err
}
