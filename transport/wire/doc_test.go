package wire

import (
	"encoding/hex"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// table returns the cells of the table in PROTOCOL.md whose header starts with
// the given cells.
func table(t *testing.T, header ...string) [][]string {
	t.Helper()
	doc, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	inside := false
	for line := range strings.Lines(string(doc)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			inside = false
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case inside && !strings.HasPrefix(cells[0], "--"):
			rows = append(rows, cells)
		case strings.HasPrefix(strings.Join(cells, "|"), strings.Join(header, "|")):
			inside = true
		}
	}
	if len(rows) == 0 {
		t.Fatalf("PROTOCOL.md has no table %q", header)
	}
	return rows
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

// least is the shortest payload that each frame's parser takes.
var least = map[FrameType]int{
	FrameHello: 2, FrameWelcome: 1, FrameRegister: 22, FrameRegistered: 20, FrameOpen: 33, FrameIncoming: 8, FrameGoodbye: 6,
	FrameMeasure: 37, FrameMeasured: 8, FrameLimit: 22, FrameReceipt: 0,
}

func TestDocFrames(t *testing.T) {
	types := regexp.MustCompile(`^[A-Z]+$`)
	documented := make(map[FrameType]string)
	for _, row := range table(t, "type", "name") {
		ft, name := FrameType(number(t, row[0])), row[1]
		if !types.MatchString(name) {
			t.Errorf("name %q", name)
		}
		documented[ft] = name
		if got := number(t, row[5]); got != least[ft] {
			t.Errorf("%s: the text says at least %d bytes, the code %d", name, got, least[ft])
		}
		if got := number(t, row[6]); got != maxPayload[ft] {
			t.Errorf("%s: the text says at most %d bytes, the code %d", name, got, maxPayload[ft])
		}
	}
	for name, ft := range constants(t, "frame.go", "Frame") {
		if documented[FrameType(ft)] != strings.ToUpper(name) {
			t.Errorf("type 0x%02x is %q in the code and %q in the text", ft, name, documented[FrameType(ft)])
		}
	}
	if len(documented) != len(maxPayload) {
		t.Errorf("the text has %d frames, the code %d", len(documented), len(maxPayload))
	}
}

func TestDocLimits(t *testing.T) {
	b, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := strings.Join(strings.Fields(string(b)), " ")
	for _, want := range []string{
		fmt.Sprintf("ALPN `%s`", ALPN),
		fmt.Sprintf("at most %d tokens", MaxTokens),
		fmt.Sprintf("a **ticket** has at most %d bytes", MaxTicket),
		fmt.Sprintf("A receipt has at most %d bytes", MaxReceipt),
		fmt.Sprintf("Their payload has at most %d bytes, and at most %d of them", MaxOptionalPayload, MaxOptionalFrames),
		fmt.Sprintf("Types from 0x%02x on are **optional**", uint8(firstOptional)),
		fmt.Sprintf("a sentence of at most %d bytes", MaxGoodbyeText),
		fmt.Sprintf("version 1.0 is minor %d", MaxVersion),
		fmt.Sprintf("at most %d stand beside each other", MaxConnections),
		fmt.Sprintf("bytes is at most %d", MaxMeasure),
		fmt.Sprintf("at most %d bytes in all", MaxMeasured),
	} {
		if !strings.Contains(doc, want) {
			t.Errorf("PROTOCOL.md does not say %q", want)
		}
	}
}

func TestDocGolden(t *testing.T) {
	rows := table(t, "frame", "with")
	if len(rows) != len(golden()) {
		t.Errorf("the text has %d golden frames, the code %d", len(rows), len(golden()))
	}
	for i, g := range golden() {
		if i >= len(rows) {
			break
		}
		name, with, text := rows[i][0], rows[i][1], strings.Trim(rows[i][2], "`")
		if name != g.name || with != g.with {
			t.Errorf("row %d is %s with %s, the test has %s with %s", i, name, with, g.name, g.with)
			continue
		}
		if got := hex.EncodeToString(g.frame); got != strings.ReplaceAll(text, " ", "") {
			t.Errorf("%s with %s: the code writes\n%s, the text says\n%s", name, with, got, text)
		}
	}
}

func TestDocCodes(t *testing.T) {
	rows := table(t, "code", "name", "meaning")
	if len(rows) != len(Codes()) {
		t.Errorf("the text has %d codes, the code %d", len(rows), len(Codes()))
	}
	comments := codeComments(t)
	for i, c := range Codes() {
		if i >= len(rows) {
			break
		}
		want := []string{fmt.Sprintf("0x%04x", uint16(c)), c.String(), comments[c]}
		for j := range want {
			if rows[i][j] != want[j] {
				t.Errorf("the text says %q, the code %q", rows[i][j], want[j])
			}
		}
	}
}

// TestCodesComplete compares Codes and the names with the constants as code.go
// declares them.
func TestCodesComplete(t *testing.T) {
	declared := constants(t, "code.go", "Code")
	listed := make(map[Code]bool)
	names := make(map[string]bool)
	last := -1
	for _, c := range Codes() {
		if int(c) <= last {
			t.Errorf("Codes is not ascending at %#x", uint16(c))
		}
		last = int(c)
		listed[c] = true
		if names[c.String()] || strings.HasPrefix(c.String(), "code_") {
			t.Errorf("code %#x has no name of its own: %s", uint16(c), c)
		}
		names[c.String()] = true
	}
	for name, v := range declared {
		if !listed[Code(v)] {
			t.Errorf("Codes misses Code%s", name)
		}
		if snake(name) != Code(v).String() {
			t.Errorf("Code%s is named %s", name, Code(v))
		}
	}
	if len(declared) != len(listed) || len(codeNames) != len(listed) {
		t.Errorf("%d constants, %d names, %d in Codes", len(declared), len(codeNames), len(listed))
	}
	if got := Code(0xfffe).String(); got != "code_0xfffe" {
		t.Errorf("an unknown code is written %s", got)
	}
}

func snake(s string) string {
	s = regexp.MustCompile(`(.)([A-Z])`).ReplaceAllString(s, "${1}_$2")
	return strings.ToLower(s)
}

// constants returns the constants of a file whose type is named like their
// prefix or FrameType, without the prefix.
func constants(t *testing.T, file, prefix string) map[string]uint16 {
	t.Helper()
	found := make(map[string]uint16)
	eachConstant(t, file, prefix, func(name string, v uint16, _ *ast.ValueSpec) { found[name] = v })
	return found
}

// codeComments returns what stands behind each Code's declaration.
func codeComments(t *testing.T) map[Code]string {
	t.Helper()
	found := make(map[Code]string)
	eachConstant(t, "code.go", "Code", func(_ string, v uint16, s *ast.ValueSpec) {
		found[Code(v)] = strings.TrimSpace(s.Comment.Text())
	})
	return found
}

func eachConstant(t *testing.T, file, prefix string, f func(string, uint16, *ast.ValueSpec)) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, d := range parsed.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			name, ok := strings.CutPrefix(v.Names[0].Name, prefix)
			if !ok || v.Type == nil {
				continue
			}
			f(name, uint16(number(t, v.Values[0].(*ast.BasicLit).Value)), v)
			n++
		}
	}
	if n == 0 {
		t.Fatalf("%s declares no %s constants", file, prefix)
	}
}
