package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/blindrelay/blindrelay/transport/wire"
)

const examplePath = "../../deploy/blindrelay.yaml.example"

func example(t *testing.T) string {
	t.Helper()
	k, err := newParser(new(cli), kong.DefaultEnvars(envPrefix))
	if err != nil {
		t.Fatal(err)
	}
	return exampleText(k)
}

// TestExample compares the committed example with what the code makes.
func TestExample(t *testing.T) {
	got := example(t)
	if *update {
		if err := os.WriteFile(examplePath, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(examplePath)
	if err != nil || got != string(want) {
		t.Errorf("%s is not what the flags of serve make (%v): if they changed, run `go test ./cmd/blindrelay -run TestExample -update`", examplePath, err)
	}
}

// TestExampleIsTaken removes the comment signs before the settings: there is
// one for every flag, with a value that it takes.
func TestExampleIsTaken(t *testing.T) {
	text := regexp.MustCompile(`(?m)^#([a-z_]+:|  - )`).ReplaceAllString(example(t), "$1")
	f, err := parseConfig("example", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, flag := range f.choices {
		if _, ok := f.values[flag.Name]; !ok {
			t.Errorf("the example has no %s", keyOf(flag.Name))
		}
		if !flag.HasDefault && !flag.Tag.Has("example") {
			t.Errorf("--%s has neither a default nor an example", flag.Name)
		}
		if flag.Help == "" {
			t.Errorf("--%s has no help", flag.Name)
		}
	}
	if len(f.choices) < 20 {
		t.Errorf("%d settings", len(f.choices))
	}
}

// TestConfigMistakes is what `blindrelay check` says about a file by itself.
func TestConfigMistakes(t *testing.T) {
	route := wire.Route{}.String()
	for text, want := range map[string][]string{
		"":                   nil,
		"# nothing\n":        nil,
		"---\nadmit: open\n": nil,
		"listen: :4433\nops: \"\"\nbuffer_memory: 64M\nallow: [" + route + "]\n": nil,
		"allow:\n  - " + route + "\n  - " + route + "\n":                         nil,
		"allow: " + route + "," + route + "\n":                                   nil,
		"log_level: 'debug'\ndrain_timeout: 0\nsockets: 1":                       nil,

		"admitt: open\n":                  {`f:1: unknown key "admitt": write "admit"`},
		"\n\nlisten-tcp: :1\n":            {`f:3: unknown key "listen-tcp": write "listen_tcp"`},
		"Listen: :1\n":                    {`f:1: unknown key "Listen": write "listen"`},
		"colour: blue\n":                  {"f:1: unknown key \"colour\": `blindrelay config` prints all that there are"},
		"config: other\n":                 {"f:1: unknown key \"config\": `blindrelay config` prints all that there are"},
		"help: true\n":                    {"f:1: unknown key \"help\": `blindrelay config` prints all that there are"},
		"admit: everyone\n":               {`f:1: admit: must be one of "allow","ticket","ask","open" but got "everyone"; write for example "admit: allow"`},
		"buffer_memory: lots\n":           {`f:1: buffer_memory: "lots" is not a size: write a number of bytes, or 64K, 256M, 2G; write for example "buffer_memory: 256M"`},
		"drain_timeout: 30\n":             {`f:1: drain_timeout: expected duration but got "30": time: missing unit in duration "30"; write for example "drain_timeout: 30s"`},
		"sockets: two\n":                  {`f:1: sockets: expected a valid 64 bit int but got "two"; write for example "sockets: 2"`},
		"listen:\n":                       {`f:1: listen: it has no value; write for example "listen: :4433"`},
		"listen: [a, b]\n":                {`f:1: listen: it takes one value, not a list; write for example "listen: :4433"`},
		"listen: {port: 4433}\n":          {`f:1: listen: its value is not a plain one; write for example "listen: :4433"`},
		"listen: &a :1\n":                 {`f:1: listen: its value is not a plain one; write for example "listen: :4433"`},
		"allow: []\n":                     {`f:1: allow: its list is empty: remove the key; write for example "allow:\n  - aaaaaaaaaaaaaaaaaaaaaaaaaa"`},
		"allow: [[" + route + "]]":        {`f:1: allow: it takes one value, not a list; write for example "allow:\n  - aaaaaaaaaaaaaaaaaaaaaaaaaa"`},
		"admit: open\nadmit: ask":         {`f:2: this is not YAML: mapping key "admit" already defined at [1:1]; write lines of the form "key: value"`},
		"- admit\n":                       {`f:1: this is not a key with a value: write lines of the form "key: value"`},
		"admit\n":                         {`f:1: this is not a key with a value: write lines of the form "key: value"`},
		"admit: open\n---\nadmit: open\n": {"f:3: a second document begins here: write all keys in one"},
		"admit: \"open\nlisten: :1\n":     {`f:1: this is not YAML: could not find end character of double-quoted text; write lines of the form "key: value"`},

		"admitt: open\nlisten: :1\nsockets: x\n": {
			`f:1: unknown key "admitt": write "admit"`,
			`f:3: sockets: expected a valid 64 bit int but got "x"; write for example "sockets: 2"`,
		},
	} {
		t.Run(text, func(t *testing.T) {
			_, err := parseConfig("f", []byte(text))
			if err == nil && want == nil {
				return
			}
			wrong, ok := errors.AsType[*configError](err)
			if !ok || strings.Join(wrong.problems, "\n") != strings.Join(want, "\n") {
				t.Errorf("it says\n%v\nwant\n%s", err, strings.Join(want, "\n"))
			}
		})
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("admit: open\nallow:\n  - aaaaaaaaaaaaaaaaaaaaaaaaaa\n"))
	f.Add([]byte("listen: &a {b: *a}\n? x\n: |\n  y\n---\n<<: *a\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 200 {
			return // each key makes a command line anew
		}
		if _, err := parseConfig("f", b); err != nil {
			if wrong, ok := errors.AsType[*configError](err); !ok || len(wrong.problems) == 0 {
				t.Errorf("an error of another kind: %v", err)
			}
		}
	})
}

// config writes a config file.
func config(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "blindrelay.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestPrecedence gives one setting in the file, in the environment and on the
// command line: the later goes before the earlier.
func TestPrecedence(t *testing.T) {
	path := config(t, "drain_timeout: 1s\nbuffer_memory: 1M\nallow: [aaaaaaaaaaaaaaaaaaaaaaaaaa, eaaaaaaaaaaaaaaaaaaaaaaaaa]\nlisten_tcp: \"\"\n")
	timeout := func(args ...string) time.Duration {
		t.Helper()
		l, err := load(append([]string{"serve"}, args...))
		if err != nil {
			t.Fatal(err)
		}
		return l.cli.Serve.DrainTimeout
	}
	if d := timeout(); d != 30*time.Second {
		t.Errorf("without a file: %v", d)
	}
	if d := timeout("--config", path); d != time.Second {
		t.Errorf("from the file: %v", d)
	}
	t.Setenv("BLINDRELAY_DRAIN_TIMEOUT", "2s")
	if d := timeout("--config", path); d != 2*time.Second {
		t.Errorf("from the environment: %v", d)
	}
	if d := timeout("--config", path, "--drain-timeout", "3s"); d != 3*time.Second {
		t.Errorf("from the command line: %v", d)
	}
	t.Setenv("BLINDRELAY_CONFIG", path)
	l, err := load([]string{"serve"})
	if err != nil {
		t.Fatal(err)
	}
	c := l.cli.Serve
	if c.BufferMemory != 1<<20 || len(c.Allow) != 2 || c.ListenTCP == nil || *c.ListenTCP != "" || l.file == nil {
		t.Errorf("the file of the environment is not read: %+v", c)
	}
	if _, err := load([]string{"version"}); err != nil {
		t.Errorf("another command: %v", err)
	}
}

// TestRestarts names what a reload does not change.
func TestRestarts(t *testing.T) {
	read := func(text string) *loaded {
		t.Helper()
		l, err := load([]string{"serve", "--config", config(t, text)})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	before := read("listen: :1\nadmit: open\nlisten_tcp: :1\n")
	if got := restarts(before, read("listen: :1\nadmit: allow\nlog_level: debug\nlisten_tcp: :1\n")); len(got) != 0 {
		t.Errorf("%v take no restart", got)
	}
	if got := strings.Join(restarts(before, read("listen: :2\nsockets: 2\n")), " "); got != "listen listen-tcp sockets" {
		t.Errorf("a restart is said to be for %q", got)
	}
}

func TestBitRate(t *testing.T) {
	for text, want := range map[string]bitRate{"100k": 100_000, "20M": 20_000_000, "2.5g": 2_500_000_000, "200000": 200_000} {
		var r bitRate
		if err := r.UnmarshalText([]byte(text)); err != nil || r != want {
			t.Errorf("%s is %d, %v; want %d", text, r, err, want)
		}
	}
	for _, text := range []string{"", "0", "99k", "-1M", "1T", "1e30", "20MB", "NaN", "Inf", "+Inf"} {
		var r bitRate
		if err := r.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken for %d bit/s", text, r)
		}
	}
}
