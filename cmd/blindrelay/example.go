package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/alecthomas/kong"
)

const exampleHead = `# Config of a relay: blindrelay serve --config FILE, or BLINDRELAY_CONFIG=FILE.
# "blindrelay check FILE" says what is wrong in it, line by line. A variable of
# the environment goes before the file, and a flag of the command line before
# both. On SIGHUP the relay reads the file again, and the files that it names:
# certificate, key and key set.
#
# "blindrelay config" prints this. What stands behind a comment sign is the
# default, or an example where there is none.
`

// exampleText is the commented config file with every key.
func exampleText(k *kong.Kong) string {
	var b strings.Builder
	b.WriteString(exampleHead)
	f := &configFile{choices: settings(k)}
	for _, flag := range f.choices {
		taken := "A change takes a restart."
		if flag.Tag.Has("reload") {
			taken = "A change is taken on SIGHUP."
		}
		env := ""
		if len(flag.Envs) > 0 {
			env = ", " + flag.Envs[0]
		}
		b.WriteString("\n")
		comment(&b, f.words(flag.Help)+" "+taken)
		fmt.Fprintf(&b, "# (--%s%s)\n", flag.Name, env)
		for line := range strings.SplitSeq(exampleLine(flag), "\n") {
			b.WriteString("#" + line + "\n")
		}
	}
	return b.String()
}

// exampleLine is how a setting is written in the file.
func exampleLine(flag *kong.Flag) string {
	value := flag.Default
	if !flag.HasDefault {
		value = flag.Tag.Get("example")
	}
	if value == "" {
		value = `""`
	}
	if flag.IsSlice() {
		return keyOf(flag.Name) + ":\n  - " + value
	}
	return keyOf(flag.Name) + ": " + value
}

// comment writes a text in lines of at most 80 characters.
func comment(b *strings.Builder, text string) {
	line := "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > 80 {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}

type configCmd struct{}

// Run prints the example.
func (configCmd) Run() error {
	k, err := newParser(new(cli), kong.DefaultEnvars(envPrefix))
	if err != nil {
		return err
	}
	_, err = os.Stdout.WriteString(exampleText(k))
	return err
}

type checkCmd struct {
	File string `arg:"" optional:"" type:"path" env:"BLINDRELAY_CONFIG" help:"Config file. Default $$BLINDRELAY_CONFIG."`
}

// Run says what serve would say about the config, without serving.
func (c *checkCmd) Run(context.Context) error {
	if c.File == "" {
		return usageError{text: "which config file? blindrelay check FILE"}
	}
	l, err := load([]string{"serve", "--config", c.File})
	if err != nil {
		return err
	}
	if err := l.file.locate(l.cli.Serve.dryRun()); err != nil {
		return err
	}
	_, err = fmt.Printf("%s: nothing is wrong with it\n", c.File)
	return err
}
