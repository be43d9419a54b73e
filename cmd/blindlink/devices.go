package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

type devicesCmd struct {
	homeState
	JSON bool `help:"Print JSON."`

	List   listCmd   `cmd:"" default:"1" help:"List the devices that may come (the default)."`
	Revoke revokeCmd `cmd:"" help:"Shut a device out. When the command returns, its sessions have ended."`
	Rename renameCmd `cmd:"" help:"Give a device another name."`
}

type listCmd struct{}

type revokeCmd struct {
	Name string `arg:"" help:"The device's name, as the list shows it."`
}

type renameCmd struct {
	Old string `arg:"" help:"The device's name, as the list shows it."`
	New string `arg:"" help:"Its new name."`
}

// Run prints the list.
func (listCmd) Run(a *app, c *cli) error {
	r, err := c.Devices.ask(request{Do: doDevices})
	if err != nil {
		return err
	}
	if c.Devices.JSON {
		if r.Devices == nil {
			r.Devices = []device{}
		}
		return printJSON(a.stdout, r.Devices)
	}
	if len(r.Devices) == 0 {
		fmt.Fprintln(a.stderr, "No device may come yet: make an invite with `blindlink invite`.")
		return nil
	}
	t := table(a.stdout)
	fmt.Fprintln(t, "NAME\tPAIRED\tLAST USED")
	for _, d := range r.Devices {
		fmt.Fprintf(t, "%s\t%s\t%s\n", d.Name, when(d.Added), when(d.Seen))
	}
	return t.Flush()
}

// Run revokes a device.
func (r revokeCmd) Run(a *app, c *cli) error {
	if _, err := c.Devices.ask(request{Do: doRevoke, Name: r.Name}); err != nil {
		return err
	}
	return c.Devices.say(a, "revoked", r.Name)
}

// Run renames a device.
func (r renameCmd) Run(a *app, c *cli) error {
	if _, err := c.Devices.ask(request{Do: doRename, Name: r.Old, NewName: r.New}); err != nil {
		return err
	}
	return c.Devices.say(a, "renamed", r.New)
}

func (c *devicesCmd) ask(req request) (reply, error) {
	dir, err := c.dir()
	if err != nil {
		return reply{}, err
	}
	r, _, err := askOwner(dir, req)
	return r, err
}

func (c *devicesCmd) say(a *app, what, name string) error {
	if c.JSON {
		return printJSON(a.stdout, map[string]string{what: name})
	}
	_, err := fmt.Fprintf(a.stdout, "%s: %s\n", what, name)
	return err
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func table(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 0, 3, ' ', 0) }

// when writes a time for a table.
func when(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Local().Format("2006-01-02 15:04")
}
