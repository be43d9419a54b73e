package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	yaml "github.com/goccy/go-yaml/token"
)

// The config file is YAML: one mapping, whose keys are the flags of serve with
// _ for -. A value is what the flag takes; a list stands for a flag that may be
// given again. Nothing else of YAML has a meaning here.

// maxConfig is the longest config file, in bytes.
const maxConfig = 1 << 20

// configFile is a config file as read.
type configFile struct {
	path    string
	values  map[string]string // by flag, lists with commas
	lines   map[string]int    // by flag
	choices []*kong.Flag      // what the file may set
}

// configError is a mistake in a config file.
type configError struct{ problems []string }

func (e *configError) Error() string { return strings.Join(e.problems, "\n") }

// keyOf is the key of a flag in the file.
func keyOf(flag string) string { return strings.ReplaceAll(flag, "-", "_") }

// settings returns the flags of serve that a config file may set, in their order.
func settings(k *kong.Kong) []*kong.Flag {
	var all []*kong.Flag
	for _, n := range k.Model.Children {
		if n.Name != "serve" {
			continue
		}
		for _, f := range n.Flags {
			if f.Name != "help" && f.Name != "config" {
				all = append(all, f)
			}
		}
	}
	return all
}

// readConfig reads a config file and checks each of its lines by itself. The
// error has a line for each mistake.
func readConfig(path string) (*configFile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, noConfig(err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxConfig {
		return nil, &configError{[]string{fmt.Sprintf("%s: this is no config file: a config file is a plain file of at most %d bytes", path, maxConfig)}}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, noConfig(err)
	}
	return parseConfig(path, text)
}

func noConfig(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: `blindrelay config` prints one to begin with", err)
	}
	return &configError{[]string{fmt.Sprintf("config file: %v", err)}}
}

func parseConfig(path string, text []byte) (*configFile, error) {
	k, err := newParser(new(cli))
	if err != nil {
		return nil, err
	}
	f := &configFile{path: path, values: make(map[string]string), lines: make(map[string]int), choices: settings(k)}
	problems := &configError{}
	say := func(t *yaml.Token, format string, args ...any) {
		line := 1
		if t != nil && t.Position != nil {
			line = t.Position.Line
		}
		problems.problems = append(problems.problems, fmt.Sprintf("%s:%d: %s", path, line, fmt.Sprintf(format, args...)))
	}
	tree, err := parser.ParseBytes(text, 0)
	if err != nil {
		what := "this is not YAML"
		var at *yaml.Token
		var syntax interface {
			error
			GetToken() *yaml.Token
			GetMessage() string
		}
		if errors.As(err, &syntax) {
			what, at = what+": "+syntax.GetMessage(), syntax.GetToken()
		}
		say(at, "%s; write lines of the form %q", what, "key: value")
		return nil, problems
	}
	for n, doc := range tree.Docs {
		switch body := doc.Body.(type) {
		case nil, *ast.CommentGroupNode:
		case *ast.MappingNode:
			if n > 0 {
				say(body.GetToken(), "a second document begins here: write all keys in one")
				continue
			}
			for _, entry := range body.Values {
				f.take(entry, say)
			}
		default:
			say(body.GetToken(), "this is not a key with a value: write lines of the form %q", "key: value")
		}
	}
	if len(problems.problems) > 0 {
		return nil, problems
	}
	return f, nil
}

// take reads one key and its value.
func (f *configFile) take(entry *ast.MappingValueNode, say func(*yaml.Token, string, ...any)) {
	at := entry.Key.GetToken()
	key := at.Value
	flag := f.flag(key)
	if flag == nil {
		say(at, "unknown key %q: %s", key, f.instead(key))
		return
	}
	values, problem := scalars(entry.Value, flag.IsSlice())
	if problem == "" {
		for _, v := range values {
			if problem = tryFlag(flag.Name, v); problem != "" {
				break
			}
		}
	}
	if problem != "" {
		say(at, "%s: %s; write for example %q", key, f.words(problem), exampleLine(flag))
		return
	}
	for i := range values {
		if flag.IsSlice() {
			values[i] = strings.ReplaceAll(values[i], ",", `\,`)
		}
	}
	f.values[flag.Name], f.lines[flag.Name] = strings.Join(values, ","), at.Position.Line
}

func (f *configFile) flag(key string) *kong.Flag {
	for _, flag := range f.choices {
		if keyOf(flag.Name) == key {
			return flag
		}
	}
	return nil
}

// scalars returns the text of a value, or of each value of a list.
func scalars(n ast.Node, list bool) (values []string, problem string) {
	switch n := n.(type) {
	case *ast.NullNode:
		return nil, "it has no value"
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return []string{n.GetToken().Value}, ""
	case *ast.LiteralNode:
		return []string{n.Value.Value}, ""
	case *ast.SequenceNode:
		if !list {
			return nil, "it takes one value, not a list"
		}
		for _, v := range n.Values {
			one, problem := scalars(v, false)
			if problem != "" {
				return nil, problem
			}
			values = append(values, one...)
		}
		if len(values) == 0 {
			return nil, "its list is empty: remove the key"
		}
		return values, ""
	}
	return nil, "its value is not a plain one"
}

// tryFlag has the flag read a value, and returns what is wrong with it.
func tryFlag(name, value string) string {
	k, err := newParser(new(cli))
	if err != nil {
		return err.Error()
	}
	if _, err := k.Parse([]string{"serve", "--" + name + "=" + value}); err != nil {
		text := strings.TrimPrefix(err.Error(), "--"+name)
		return strings.TrimSpace(strings.TrimPrefix(text, ":"))
	}
	return ""
}

// words puts the names of keys for those of flags.
func (f *configFile) words(text string) string {
	for _, flag := range f.choices {
		for _, end := range []string{" ", ":", ",", ".", ";", ")"} {
			text = strings.ReplaceAll(text, "--"+flag.Name+end, keyOf(flag.Name)+end)
		}
		if name, ok := strings.CutSuffix(text, "--"+flag.Name); ok {
			text = name + keyOf(flag.Name)
		}
	}
	return text
}

// instead says what to write for a key that does not exist.
func (f *configFile) instead(key string) string {
	best, distance := "", 3
	for _, flag := range f.choices {
		name := keyOf(flag.Name)
		if d := edits(strings.ToLower(strings.ReplaceAll(key, "-", "_")), name); d < distance {
			best, distance = name, d
		}
	}
	if best == "" {
		return "`blindrelay config` prints all that there are"
	}
	return fmt.Sprintf("write %q", best)
}

// edits counts the letters to insert, remove or replace between two words
// (Levenshtein's distance).
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := corner
			if a[i] != b[j] {
				cost++
			}
			corner = row[j+1]
			row[j+1] = min(cost, row[j]+1, corner+1)
		}
	}
	return row[len(b)]
}

// Resolve gives kong the file's value of a flag that the command line does not
// set, unless the environment does.
func (f *configFile) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	value, ok := f.values[flag.Name]
	if !ok {
		return nil, nil
	}
	for _, name := range flag.Envs {
		if _, set := os.LookupEnv(name); set {
			return nil, nil
		}
	}
	return value, nil
}

// Validate has nothing left to find.
func (f *configFile) Validate(*kong.Application) error { return nil }

// locate names the line of the file that a mistake is about.
func (f *configFile) locate(err error) error {
	wrong, ok := errors.AsType[usageError](err)
	if f == nil || !ok {
		return err
	}
	if line, ok := f.lines[wrong.flag]; ok {
		return &configError{[]string{fmt.Sprintf("%s:%d: %s", f.path, line, f.words(wrong.text))}}
	}
	return err
}
