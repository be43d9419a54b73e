package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/blindrelay/blindrelay/crypto/endpoint"
	"github.com/blindrelay/blindrelay/crypto/pair"
)

type statusCmd struct {
	State string `placeholder:"DIR" help:"State directory of share or open. Default: those of both."`
	JSON  bool   `help:"Print JSON."`
}

// shareStatus is what a home shows.
type shareStatus struct {
	Running      bool     `json:"running"`
	RemoteAccess bool     `json:"remote_access"`
	Server       string   `json:"server"` // its name
	Route        string   `json:"route"`
	Devices      int      `json:"devices"` // how many may come
	Known        []string `json:"known_relays"`
	endpoint.AgentStatus
}

// openStatus is what a running `open` shows.
type openStatus struct {
	URL string `json:"url"`
	endpoint.DialerStatus
}

// pairedServer is a server that a device may open.
type pairedServer struct {
	Name   string    `json:"name"`
	Device string    `json:"device"` // what the server calls this device
	Paired time.Time `json:"paired"`
}

// overview is what `status` prints. What there is none of is null.
type overview struct {
	Share   *shareStatus   `json:"share"`
	Open    []openStatus   `json:"open"`    // those that run
	Servers []pairedServer `json:"servers"` // those that can be opened
}

func (o *owner) status() *shareStatus {
	s := &shareStatus{
		Running:      o.agent != nil,
		RemoteAccess: o.home.Enabled(),
		Server:       o.home.Server(),
		Route:        o.home.Route().String(),
		Devices:      len(o.home.Devices()),
	}
	for _, r := range o.home.Relays() {
		s.Known = append(s.Known, r.String())
	}
	if o.agent != nil {
		s.AgentStatus = o.agent.Status()
	}
	return s
}

// Run prints what share and open are doing.
func (c statusCmd) Run(a *app) error {
	share, err := stateDir(c.State, "share")
	if err != nil {
		return err
	}
	open, err := stateDir(c.State, "open")
	if err != nil {
		return err
	}
	var v overview
	if holds(share, homeFile) {
		r, _, err := askOwner(share, request{Do: doStatus})
		if err != nil {
			return err
		}
		v.Share = r.Share
	}
	if holds(open, awayFile) {
		if err := v.addOpen(open); err != nil {
			return err
		}
	}
	if v.Share == nil && v.Open == nil && v.Servers == nil {
		return fmt.Errorf("there is no state at %s: run `blindlink share` or `blindlink open` first, or say where it is with --state DIR", where(share, open))
	}
	if c.JSON {
		return printJSON(a.stdout, v)
	}
	return v.print(a.stdout)
}

func where(share, open string) string {
	if share == open {
		return share
	}
	return share + " or " + open
}

// addOpen asks every running `open` of a state directory.
func (v *overview) addOpen(dir string) error {
	away, err := pair.OpenAway(dir)
	if err != nil {
		return err
	}
	defer away.Close()
	servers, err := away.Servers()
	if err != nil {
		return err
	}
	v.Servers, v.Open = []pairedServer{}, []openStatus{}
	for _, s := range servers {
		v.Servers = append(v.Servers, pairedServer{s.Name, s.Device, s.Paired})
	}
	replies, err := askOpens(dir, request{Do: doStatus})
	if err != nil {
		return err
	}
	for _, r := range replies {
		if r.Open != nil {
			v.Open = append(v.Open, *r.Open)
		}
	}
	return nil
}

// askOpens performs a request in every running `open` of a state directory. The
// error joins those of the ones that did not answer well.
func askOpens(dir string, req request) (replies []reply, failed error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if !isOpenSocket(f.Name()) {
			continue
		}
		d, err := dialControl(dir, f.Name())
		if err != nil {
			if errors.Is(err, syscall.ECONNREFUSED) { // left behind by one that crashed
				os.Remove(filepath.Join(dir, f.Name()))
			}
			continue
		}
		r, err := exchange(d, req)
		if err = errors.Join(err, d.Close()); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		replies = append(replies, r)
	}
	return replies, failed
}

func (v overview) print(w io.Writer) error {
	t := table(w)
	if s := v.Share; s != nil {
		s.print(t)
	}
	for _, o := range v.Open {
		fmt.Fprintf(t, "open\t%s at %s\n", o.Server, o.URL)
		printRelay(t, o.RelayStatus)
		printLimits(t, "", o.RelayStatus)
		for _, c := range o.Carriers {
			fmt.Fprintf(t, "carrier\t%s, round trip %v, %s received, %s sent\n",
				c.Protocol, c.RTT.Round(100*time.Microsecond), size(c.BytesIn), size(c.BytesOut))
		}
	}
	for _, s := range v.Servers {
		fmt.Fprintf(t, "paired\t%s since %s, as %s\n", s.Name, when(s.Paired), s.Device)
	}
	return t.Flush()
}

func (s *shareStatus) print(t io.Writer) {
	state := "not running"
	if s.Running {
		state = "running"
	}
	fmt.Fprintf(t, "share\t%s, %s\n", s.Server, state)
	access := "on"
	if !s.RemoteAccess {
		access = "off (`blindlink on` allows it)"
	}
	fmt.Fprintf(t, "remote access\t%s\n", access)
	fmt.Fprintf(t, "route\t%s\n", s.Route)
	fmt.Fprintf(t, "devices\t%d may come, %d sessions now\n", s.Devices, len(s.Sessions))
	if !s.Running {
		for _, r := range s.Known {
			fmt.Fprintf(t, "relay\t%s\n", address(r))
		}
	}
	for _, r := range s.Relays {
		printRelay(t, r)
		printLimits(t, "", r)
	}
	for _, d := range s.Sessions {
		fmt.Fprintf(t, "session\t%s since %s, %d streams, %s received, %s sent\n",
			d.Device, when(d.Since), d.Streams, size(d.BytesIn), size(d.BytesOut))
	}
}

func printRelay(t io.Writer, r endpoint.RelayStatus) {
	text := fmt.Sprintf("%s since %s", r.State, when(r.Since))
	if r.Relay != "" {
		at := address(r.Relay)
		if r.Address != "" {
			at += " (" + r.Address + ")"
		}
		text = at + " " + text
	}
	if r.Protocol != "" {
		text += ", " + r.Protocol
	}
	if r.Connections > 1 {
		text += fmt.Sprintf(", %d connections", r.Connections)
	}
	if r.RTT > 0 {
		text += fmt.Sprintf(", round trip %v", r.RTT.Round(100*time.Microsecond))
	}
	if !r.Until.IsZero() {
		text += ", ticket until " + when(r.Until)
	}
	if r.Error != "" {
		text += ": " + r.Error
	}
	fmt.Fprintf(t, "relay\t%s\n", text)
}

// printLimits prints what the relay has said of its limits, in rows below its own.
func printLimits(t io.Writer, indent string, r endpoint.RelayStatus) {
	for _, l := range r.Limits {
		fmt.Fprintf(t, "%slimit\t%s\n", indent, l.Text)
	}
}

// address is a relay without its pin.
func address(relay string) string {
	addr, _, _ := strings.Cut(relay, "#")
	return addr
}

// size writes a number of bytes for people.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/unit, 0
	for f >= unit && i < 3 {
		f /= unit
		i++
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGT"[i])
}
