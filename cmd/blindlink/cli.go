package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"runtime"
	"runtime/debug"

	"github.com/blindrelay/blindrelay/transport/wire"
)

const description = `Reach your media server through a relay that can read nothing.

    at home    blindlink share --relay HOST:PORT#PIN --to http://127.0.0.1:8096
               blindlink invite
    elsewhere  blindlink open INVITE

Every flag has an environment variable, shown behind it. Logs go to stderr,
results to stdout. Exit codes: 0 done, 1 failed, 2 wrong usage.`

// cli is the command line. Flags of one name have one variable.
type cli struct {
	LogFormat string     `help:"Format of the log: text or json." enum:"text,json" default:"text"`
	LogLevel  slog.Level `help:"Least level that is logged: debug, info, warn or error." default:"info"`

	Share    shareCmd    `cmd:"" help:"Make a media server reachable. Runs at home until it is stopped."`
	Invite   inviteCmd   `cmd:"" help:"Print an invite for one device."`
	Devices  devicesCmd  `cmd:"" help:"List, revoke or rename the devices that may come."`
	On       onCmd       `cmd:"" help:"Allow remote access again."`
	Off      offCmd      `cmd:"" help:"Forbid remote access: ends every session within a second, also after restarts."`
	Open     openCmd     `cmd:"" help:"Bring the media server to a local port of this device. Runs until it is stopped."`
	Status   statusCmd   `cmd:"" help:"Show what share or open are doing."`
	Verify   verifyCmd   `cmd:"" help:"Show six words for each live session, at home and on the device. If both show the same, nobody stands between. On a device without a running open it connects."`
	Doctor   doctorCmd   `cmd:"" help:"Examine the relays, the line to them and the media server. Takes up to 20 s and moves some megabytes. Exit code 0: a film at 8 Mbit/s would play."`
	Selftest selftestCmd `cmd:"" help:"Try on this machine, without a network, that the end-to-end encryption works; with --hostile also that a relay which lies, changes, cuts and replays gets nothing. Exit code 0: it holds."`
	Version  versionCmd  `cmd:"" help:"Print the version."`
}

// homeState is the --state flag of the commands at home.
type homeState struct {
	State string `placeholder:"DIR" help:"Directory with the keys and the device list, closed to other users. Default: ~/.local/state/blindlink/share."`
}

func (s homeState) dir() (string, error) { return stateDir(s.State, "share") }

// target is where `share` finds the media server.
type target struct{ url *url.URL }

// UnmarshalText parses http://, https:// and tcp:// addresses.
func (t *target) UnmarshalText(b []byte) error {
	u, err := url.Parse(string(b))
	if err != nil {
		return fmt.Errorf("this is not an address: write for example http://127.0.0.1:8096")
	}
	switch u.Scheme {
	case "http", "https":
	case "tcp":
		if _, port, err := net.SplitHostPort(u.Host); err != nil || port == "" || u.Path != "" {
			return fmt.Errorf("%q is not tcp://HOST:PORT", u.Redacted())
		}
	default:
		return fmt.Errorf("%q begins with none of http://, https:// and tcp://", u.Redacted())
	}
	if u.Hostname() == "" {
		return fmt.Errorf("%q has no host: write for example http://127.0.0.1:8096", u.Redacted())
	}
	t.url = u
	return nil
}

// relays are 1 to 3 relays.
type relays []wire.Relay

// Validate is called by the parser.
func (r relays) Validate() error {
	if len(r) > 3 {
		return fmt.Errorf("%d relays are given, at most 3 are possible", len(r))
	}
	for i, a := range r {
		for _, b := range r[:i] {
			if a.Addr == b.Addr {
				return fmt.Errorf("relay %s is given twice", a.Addr)
			}
		}
	}
	return nil
}

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(a *app) error {
	version := "(unknown)"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && version == "(devel)" {
				version = s.Value
			}
		}
	}
	_, err := fmt.Fprintf(a.stdout, "blindlink %s %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
