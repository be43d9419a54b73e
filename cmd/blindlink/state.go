package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// stateDir returns the state directory that was given, or the role's default:
// $XDG_STATE_HOME/blindlink/ROLE (XDG Base Directory Specification 0.8), on
// Windows below the user's configuration.
func stateDir(given, role string) (string, error) {
	if given != "" {
		return filepath.Clean(given), nil
	}
	base := os.Getenv("XDG_STATE_HOME")
	if runtime.GOOS == "windows" {
		dir, err := os.UserConfigDir()
		if err != nil {
			return "", fmt.Errorf("%w; say where the state is with --state DIR", err)
		}
		base = dir
	} else if !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("%w; say where the state is with --state DIR", err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "blindlink", role), nil
}

// Files that tell whose a state directory is; package pair makes them.
const (
	homeFile = "home.json"
	awayFile = "away.json"
)

// holds reports whether a file is in a directory.
func holds(dir, file string) bool {
	_, err := os.Lstat(filepath.Join(dir, file))
	return err == nil
}

// mustBeHome refuses a directory in which `share` never ran, before anything is
// made there.
func mustBeHome(dir string) error {
	_, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no state at %s: run `blindlink share` first, or say where its state is with --state DIR", dir)
	case err != nil:
		return fmt.Errorf("state directory: %w", err)
	case holds(dir, awayFile) && !holds(dir, homeFile):
		return fmt.Errorf("%s is the state of `blindlink open`: say where that of `blindlink share` is with --state DIR", dir)
	}
	return nil
}
