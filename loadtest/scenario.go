// Package loadtest watches many films through a relay at once and says whether
// anybody had to wait: viewers that behave as media players do, over the whole
// real path from device to origin, verify each byte and count stalls.
//
//	res, err := loadtest.Run(ctx, scenario, loadtest.Target{Relay: &relay})
//	report.Text(os.Stdout, res)
package loadtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/slo"
	"github.com/blindrelay/blindrelay/loadtest/units"
	"github.com/blindrelay/blindrelay/loadtest/viewer"
	"github.com/blindrelay/blindrelay/transport/netsim"
	"github.com/goccy/go-yaml"
)

// Scenario says who watches what, for how long, behind which lines.
type Scenario struct {
	Title    string        `yaml:"title" json:"title"`
	Duration time.Duration `yaml:"duration" json:"duration_ns"` // after the ramp
	Ramp     time.Duration `yaml:"ramp" json:"ramp_ns"`         // over which the viewers of a closed load arrive
	// Arrivals makes the load open: so many viewers arrive each second, as a
	// Poisson process, whether or not the path can carry them. 0: closed, each
	// group has its fixed number.
	Arrivals       float64 `yaml:"arrivals" json:"arrivals_per_second"`
	Link           string  `yaml:"link" json:"link"`           // netsim profile of each device's line
	HomeLink       string  `yaml:"home_link" json:"home_link"` // of each home's
	ViewersPerHome int     `yaml:"viewers_per_home" json:"viewers_per_home"`
	Seed           uint64  `yaml:"seed" json:"seed"`
	SLO            string  `yaml:"slo" json:"slo"`
	Groups         []Group `yaml:"groups" json:"groups"`
}

// Group is viewers that behave alike.
type Group struct {
	Kind       viewer.Kind   `yaml:"kind" json:"kind"`
	Viewers    int           `yaml:"viewers" json:"viewers"` // of an open load: its share of the arrivals
	Bitrate    units.Bitrate `yaml:"bitrate" json:"bitrate"`
	Adaptive   bool          `yaml:"adaptive" json:"adaptive"`
	PauseEvery time.Duration `yaml:"pause_every" json:"pause_every_ns"` // mean picture between pauses; 0: none
	LeaveAfter time.Duration `yaml:"leave_after" json:"leave_after_ns"` // mean visit; 0: stays
}

// maxViewers bounds one run on one machine.
const maxViewers = 20_000

// Load reads a scenario file in YAML. Unknown keys are errors.
func Load(path string) (Scenario, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Scenario{}, err
	}
	s := Scenario{}
	if err := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict()).Decode(&s); err != nil {
		return Scenario{}, fmt.Errorf("%s: %s", path, yaml.FormatError(err, false, true))
	}
	if err := s.check(); err != nil {
		return Scenario{}, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// check fills in defaults and refuses what cannot be run.
func (s *Scenario) check() error {
	if s.ViewersPerHome == 0 {
		s.ViewersPerHome = 4
	}
	if s.Seed == 0 {
		s.Seed = 1
	}
	if s.SLO != "" {
		if _, err := slo.Parse(s.SLO); err != nil {
			return err
		}
	}
	n := s.viewers()
	switch {
	case s.Duration < time.Second || s.Ramp < 0:
		return errors.New("a run takes a duration of at least 1s, and a ramp that is not negative")
	case s.Arrivals < 0 || s.Arrivals > 1000:
		return errors.New("arrivals are from 0 (closed) to 1000 each second")
	case n < 1 || n > maxViewers:
		return fmt.Errorf("%d viewers: a run takes from 1 to %d", n, maxViewers)
	}
	for _, link := range []string{s.Link, s.HomeLink} {
		if link == "" {
			continue
		}
		if _, err := netsim.ParseProfile(link); err != nil {
			return err
		}
	}
	for i, g := range s.Groups {
		if !slices.Contains(viewer.Kinds(), g.Kind) {
			return fmt.Errorf("group %d: %q is no kind of viewer: there are %v", i+1, g.Kind, viewer.Kinds())
		}
		if g.Viewers < 0 || g.Bitrate == 0 && !g.Adaptive {
			return fmt.Errorf("group %d: it needs viewers and a bitrate", i+1)
		}
	}
	if s.Title == "" {
		s.Title = s.line()
	}
	return nil
}

func (s *Scenario) viewers() int {
	n := 0
	for _, g := range s.Groups {
		n += g.Viewers
	}
	return n
}

// line says the scenario in one line.
func (s *Scenario) line() string {
	var b bytes.Buffer
	for i, g := range s.Groups {
		if i > 0 {
			b.WriteString(" + ")
		}
		fmt.Fprintf(&b, "%d %s at %s", g.Viewers, g.Kind, units.Rate(float64(g.Bitrate)))
	}
	if s.Link != "" {
		fmt.Fprintf(&b, ", device on %s", s.Link)
	}
	if s.HomeLink != "" {
		fmt.Fprintf(&b, ", home on %s", s.HomeLink)
	}
	fmt.Fprintf(&b, ", %v", s.Duration)
	return b.String()
}
