package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// ticketCheck is how often the file of --ticket is read.
const ticketCheck = 2 * time.Second

// readTicket returns the ticket in a file, which other users must not be able
// to read. It is one line: three parts of base64url with dots between (RFC
// 7519), which is all that this side knows of it.
func readTicket(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("ticket: %w: --ticket takes the file with the ticket that the relay's operator gave you", err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("ticket: %s is not a file", path)
	}
	// The group may read it: that is how secrets are mounted into containers.
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o007 != 0 {
		return "", fmt.Errorf("ticket: every user of this machine may read %s (mode %04o); run `chmod 600 %s`", path, info.Mode().Perm(), path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("ticket: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, wire.MaxTicket+16))
	if err != nil {
		return "", fmt.Errorf("ticket: %w", err)
	}
	text := strings.TrimSpace(string(b))
	other := func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_.", r))
	}
	if len(text) > wire.MaxTicket || strings.Count(text, ".") != 2 || strings.ContainsFunc(text, other) {
		return "", fmt.Errorf("ticket: %s does not hold a ticket: it is one line with two dots in it, of at most %d characters, was it copied whole?", path, wire.MaxTicket)
	}
	return text, nil
}

// followTicket looks into the file at each tick and hands on each new ticket,
// until ctx ends. While the file has none the ticket before it stays.
func followTicket(ctx context.Context, path, ticket string, ticks <-chan time.Time, renew func(string), log *slog.Logger) {
	said := ""
	for {
		select {
		case <-ticks:
		case <-ctx.Done():
			return
		}
		next, err := readTicket(path)
		if err != nil {
			if text := err.Error(); text != said {
				said = text
				log.Warn("the ticket before it stays in use", "error", err)
			}
			continue
		}
		said = ""
		if next != ticket {
			ticket = next
			log.Info("a new ticket is in use", "file", path)
			renew(next)
		}
	}
}
