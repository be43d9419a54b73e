package netwatch

import (
	"context"
	"net"
	"slices"
	"strings"
	"time"
)

// poll compares the interfaces every so often and calls moved when they have
// changed. It does not see routes.
func poll(every time.Duration) func(ctx context.Context, moved func()) {
	return func(ctx context.Context, moved func()) {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		last := interfaces()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if now := interfaces(); now != last {
				last = now
				moved()
			}
		}
	}
}

// interfaces describes the addresses of the interfaces that are up, other than
// loopback and link-local ones.
func interfaces() string {
	all, err := net.Interfaces()
	if err != nil {
		return ""
	}
	var lines []string
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLinkLocalUnicast() {
				lines = append(lines, i.Name+" "+a.String())
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
