package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/blindrelay/blindrelay/crypto/endpoint"
)

func TestHelp(t *testing.T) {
	for _, args := range [][]string{
		{"--help"}, {"share", "--help"}, {"invite", "-h"}, {"devices", "--help"}, {"devices", "revoke", "--help"},
		{"on", "--help"}, {"off", "--help"}, {"open", "--help"}, {"status", "--help"}, {"doctor", "--help"}, {"selftest", "--help"},
	} {
		r := blindlink(t, "", nil, args...).want(t, 0)
		if !strings.Contains(r.stdout, "Usage: blindlink") || r.stderr != "" {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if r := blindlink(t, "", nil, "version").want(t, 0); strings.Count(r.stdout, "\n") != 1 {
		t.Errorf("version: %+v", r)
	}
	if r := blindlink(t, "", nil, "open", "--help"); !strings.Contains(r.stdout, "$BLINDLINK_INVITE") {
		t.Errorf("no word of the variable: %s", r.stdout)
	}
}

// TestVariables demands a variable for every flag.
func TestVariables(t *testing.T) {
	p, err := kong.New(&cli{}, kong.DefaultEnvars("BLINDLINK"))
	if err != nil {
		t.Fatal(err)
	}
	flags := 0
	if err := kong.Visit(p.Model, func(n kong.Visitable, next kong.Next) error {
		if f, ok := n.(*kong.Flag); ok && f.Name != "help" {
			flags++
			want := "BLINDLINK_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
			if len(f.Envs) != 1 || f.Envs[0] != want {
				t.Errorf("--%s has the variables %q, want %s", f.Name, f.Envs, want)
			}
		}
		return next(nil)
	}); err != nil {
		t.Fatal(err)
	}
	if flags < 10 {
		t.Errorf("only %d flags were visited", flags)
	}
}

func TestUsage(t *testing.T) {
	relay := []string{"share", "--to", "http://127.0.0.1:1", "--state", "x", "--relay"}
	to := []string{"share", "--relay", "127.0.0.1:1", "--state", "x", "--to"}
	for _, tc := range []struct {
		args []string
		word string
	}{
		{nil, "expected one of"},
		{[]string{"nonsense"}, "unexpected"},
		{[]string{"status", "--nonsense"}, "unknown flag"},
		{[]string{"share"}, "--relay"},
		{append(relay, "no-port"), "HOST:PORT"},
		{append(relay, "127.0.0.1:1#short"), "pin"},
		{append(relay, "a:1,b:2,c:3,d:4"), "at most 3"},
		{append(relay, "a:1,a:1"), "twice"},
		{append(relay, "a:1", "--relay", "b:2", "--relay", "a:1"), "twice"},
		{append(relay, "a:1", "--relay", "b:2", "--relay", "c:3,d:4"), "at most 3"},
		{append(to, "ftp://127.0.0.1"), "tcp://"},
		{append(to, "127.0.0.1:8096"), "http://"},
		{append(to, "http://"), "host"},
		{append(to, "tcp://127.0.0.1"), "tcp://HOST:PORT"},
		{[]string{"invite", "--ttl", "soon"}, "--ttl"},
		{[]string{"invite", "--ttl", "0s"}, "--ttl"},
		{[]string{"devices", "revoke"}, "name"},
		{[]string{"open", "--listen", "8096", "--state", "x"}, "HOST:PORT"},
		{[]string{"status", "--log-format", "xml"}, "--log-format"},
		{[]string{"open", "--urgency", "now"}, "--urgency"},
		{[]string{"status", "--log-level", "loud"}, "--log-level"},
	} {
		t.Run(strings.Join(tc.args, " "), func(t *testing.T) {
			t.Chdir(t.TempDir())
			r := blindlink(t, "", nil, tc.args...).want(t, 2, tc.word, "--help")
			if r.stdout != "" {
				t.Errorf("stdout: %q", r.stdout)
			}
		})
	}
	blindlink(t, "", []string{"BLINDLINK_RELAY=no-port", "BLINDLINK_TO=http://127.0.0.1:1"}, "share").want(t, 2, "HOST:PORT")
}

// TestNoState asks for what is not there, and nothing must be made of it.
func TestNoState(t *testing.T) {
	dir := newDir(t)
	for _, args := range [][]string{{"invite"}, {"invite", "--approve"}, {"devices"}, {"devices", "revoke", "tv"}, {"on"}, {"off"}, {"status"}, {"doctor"}} {
		blindlink(t, "", nil, append(args, "--state", dir)...).want(t, 1, dir, "blindlink share")
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a command that found no state made some")
	}
	blindlink(t, "", nil, "status").want(t, 1, "share", "open")
}

func TestOpenStateIsRefused(t *testing.T) {
	dir := newDir(t)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"share", "--relay", "127.0.0.1:1", "--to", "http://127.0.0.1:1"},
		{"invite"}, {"devices"}, {"on"}, {"off"}, {"open", "--listen", "127.0.0.1:0"},
	} {
		blindlink(t, "", nil, append(args, "--state", dir)...).want(t, 1, "chmod 700 "+dir)
	}
}

// TestRelayLine is what status says about a way to a relay.
func TestRelayLine(t *testing.T) {
	since := time.Now().Add(-time.Hour)
	for _, c := range []struct {
		status endpoint.RelayStatus
		want   string
	}{
		{endpoint.RelayStatus{Relay: "192.0.2.1:1#pin", State: "reachable", Protocol: "QUIC", Connections: 1, RTT: 12_340_000}, "192.0.2.1:1 reachable since %, QUIC, round trip 12.3ms"},
		{endpoint.RelayStatus{Relay: "r.example:1", Address: "192.0.2.1", State: "leaving", Protocol: "QUIC, TCP", Connections: 3}, "r.example:1 (192.0.2.1) leaving since %, QUIC, TCP, 3 connections"},
		{endpoint.RelayStatus{Relay: "r.example:1", State: "reachable", Protocol: "QUIC", Until: since}, "r.example:1 reachable since %, QUIC, ticket until " + when(since)},
		{endpoint.RelayStatus{Relay: "r.example:1", State: "connecting", Error: "no"}, "r.example:1 connecting since %: no"},
		{endpoint.RelayStatus{Relay: "r.example:1", State: "reachable", Limits: []endpoint.LimitStatus{{Text: "at most 20 Mbit/s for this server (reached)"}, {Text: "3 of 5 devices at a time"}}},
			"r.example:1 reachable since %\n  limit\tat most 20 Mbit/s for this server (reached)\n  limit\t3 of 5 devices at a time"},
	} {
		c.status.Since = since
		var b strings.Builder
		printRelay(&b, c.status)
		printLimits(&b, "  ", c.status)
		if want := "relay\t" + strings.Replace(c.want, "%", when(since), 1) + "\n"; b.String() != want {
			t.Errorf("got %q, want %q", b.String(), want)
		}
	}
}
