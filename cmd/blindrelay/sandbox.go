package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// reads returns what the relay may read once it runs: directories, and files
// that the metrics of the process come from. What is read again, certificates,
// settings and keys, is replaced by files of the same name or by links to new
// ones, so it is their directories, those that the links lead to as well. Who
// asks a service finds it by its name and verifies its certificate.
func (c *serveCmd) reads() (paths []string) {
	files := []string{c.TLSCert, c.TLSKey, c.Config, c.JWKS}
	if c.Admit == "ask" || c.Config != "" { // which may say so later
		files = append(files, "/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt")
	}
	for _, file := range files {
		if _, err := os.Stat(file); file == "" || err != nil {
			continue
		}
		paths = append(paths, filepath.Dir(file))
		if target, err := filepath.EvalSymlinks(file); err == nil {
			paths = append(paths, filepath.Dir(target))
		}
	}
	if c.Ops != "" {
		paths = append(paths, "/proc/self", "/proc/stat")
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// confine gives up for the rest of the process's life what a relay that listens
// does not need, as --sandbox says, and logs what came of it.
func (c *serveCmd) confine(log *slog.Logger) error {
	if c.Sandbox == "off" {
		log.Warn("this process is not confined (--sandbox off)")
		return nil
	}
	zone, _ := time.Now().Zone() // for the log; its file cannot be read later
	reads := c.reads()
	missing := confine(reads)
	if c.Sandbox == "require" && len(missing) > 0 {
		return fmt.Errorf("--sandbox require: %w; --sandbox best-effort does what can be done here", errors.Join(missing...))
	}
	for _, err := range missing {
		log.Warn("this process is not fully confined: --sandbox require would not start it", "missing", err)
	}
	if len(missing) == 0 {
		log.Info("confined: this process writes no file, starts no program, leaves no core", "reads", reads, "zone", zone)
	}
	return nil
}
