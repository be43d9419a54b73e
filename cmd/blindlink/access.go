package main

import "fmt"

type onCmd struct{ homeState }

// Run allows remote access.
func (c onCmd) Run(a *app) error { return c.set(a, doOn) }

type offCmd struct{ homeState }

// Run forbids remote access. No session is left when it returns.
func (c offCmd) Run(a *app) error { return c.set(a, doOff) }

func (s homeState) set(a *app, do string) error {
	dir, err := s.dir()
	if err != nil {
		return err
	}
	_, running, err := askOwner(dir, request{Do: do})
	if err != nil {
		return err
	}
	text := "remote access is " + do
	if do == doOn && !running {
		text += ", but `blindlink share` is not running"
	}
	_, err = fmt.Fprintln(a.stdout, text)
	return err
}
