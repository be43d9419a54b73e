package main

import (
	"fmt"

	"github.com/blindrelay/blindrelay/loadtest/report"
	"github.com/blindrelay/blindrelay/loadtest/result"
)

type compareCmd struct {
	A    string   `arg:"" type:"existingfile" help:"Report before, as --json wrote it."`
	B    string   `arg:"" type:"existingfile" help:"Report after."`
	Also []string `placeholder:"FILE" type:"existingfile" help:"Another run of the first kind; may be given again. With several runs of each kind noise can be told from a difference."`
	With []string `placeholder:"FILE" type:"existingfile" help:"Another run of the second kind; may be given again."`
}

func (c *compareCmd) Run() error {
	a, err := readAll(append([]string{c.A}, c.Also...))
	if err != nil {
		return err
	}
	b, err := readAll(append([]string{c.B}, c.With...))
	if err != nil {
		return err
	}
	fmt.Print(report.Compare(a, b))
	return nil
}

type mergeCmd struct {
	outputFlags
	Files []string `arg:"" type:"existingfile" help:"Reports of the same run on several machines, as --json wrote them."`
	Mixed bool     `help:"Add up reports of different scenarios too."`
}

func (c *mergeCmd) Run() error {
	all, err := readAll(c.Files)
	if err != nil {
		return err
	}
	res, err := report.Merge(all, c.Mixed)
	if err != nil {
		return err
	}
	if err := c.write(res); err != nil {
		return err
	}
	return verdict(res)
}

func readAll(files []string) ([]*result.Result, error) {
	var all []*result.Result
	for _, f := range files {
		r, err := result.ReadFile(f)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}
