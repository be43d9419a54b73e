// Package loadtest watches many films through a relay at once and says whether
// anybody had to wait. A viewer reads a film at its bitrate over the whole real
// path, device, sealed stream, relay, agent, origin, verifies each byte, and
// counts stalls as a media player has them.
//
//	report, err := loadtest.Run(ctx, loadtest.Config{Relay: relay, Viewers: 50, Bitrate: 8_000_000, Duration: time.Minute})
//	report.Write(os.Stdout)
package loadtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/crypto/endpoint"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// Config says what to load a relay with.
type Config struct {
	Relay           wire.Relay    // must admit any agent
	Viewers         int           // at least 1
	ViewersPerAgent int           // how many share one home; 0: 4
	Bitrate         int64         // of each film, in bit/s
	Duration        time.Duration // from when all viewers have begun
	Ramp            time.Duration // over which the viewers begin
	Log             *slog.Logger  // nil: nothing is logged
}

// filmSeconds is how long a film is before it begins again.
const filmSeconds = 600

// home is one agent with its origin.
type home struct {
	film  Film
	state *pair.Home
	agent *endpoint.Agent
	serve sync.WaitGroup
}

// Run makes agents and paired devices, lets the viewers watch, and reports.
// It returns early with what it has if ctx ends.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if cfg.ViewersPerAgent == 0 {
		cfg.ViewersPerAgent = 4
	}
	if cfg.Viewers < 1 || cfg.ViewersPerAgent < 1 || cfg.Bitrate < 8_000 || cfg.Duration <= 0 || cfg.Ramp < 0 {
		return nil, errors.New("a run needs at least one viewer, a bitrate of at least 8 kbit/s and a duration")
	}
	dir, err := os.MkdirTemp("", "blindload-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)

	begun := time.Now()
	report := &Report{Viewers: cfg.Viewers, Bitrate: cfg.Bitrate}
	var homes []*home
	var dialers []*endpoint.Dialer
	defer func() {
		for _, d := range dialers {
			d.Close()
		}
		for _, h := range homes {
			h.close()
		}
	}()
	var viewers []*viewer
	for i := range cfg.Viewers {
		if i%cfg.ViewersPerAgent == 0 {
			h, err := newHome(ctx, cfg, filepath.Join(dir, strconv.Itoa(i)), uint64(i))
			if err != nil {
				return nil, fmt.Errorf("agent %d: %w", len(homes), err)
			}
			homes = append(homes, h)
		}
		h := homes[len(homes)-1]
		d, err := h.newDevice(ctx, cfg.Log)
		if err != nil {
			return nil, fmt.Errorf("device %d: %w", i, err)
		}
		dialers = append(dialers, d)
		viewers = append(viewers, &viewer{
			client: &http.Client{Transport: &http.Transport{DialContext: d.DialContext}},
			url:    "http://home/film",
			film:   h.film,
			rate:   float64(cfg.Bitrate) / 8,
		})
	}
	report.Agents = len(homes)
	report.PairedIn = time.Since(begun)

	report.Each = make([]Seen, len(viewers))
	watching, cancel := context.WithTimeout(ctx, cfg.Ramp+cfg.Duration)
	defer cancel()
	start := time.Now()
	var wait sync.WaitGroup
	for i, v := range viewers {
		wait.Go(func() {
			sleep(watching, cfg.Ramp*time.Duration(i)/time.Duration(len(viewers)))
			report.Each[i] = v.watch(watching)
			v.client.CloseIdleConnections()
		})
	}
	wait.Wait()
	report.Duration = time.Since(start)
	report.summarise()
	return report, nil
}

// newHome makes an agent whose origin serves one film.
func newHome(ctx context.Context, cfg Config, dir string, seed uint64) (*home, error) {
	state, err := pair.OpenHome(dir)
	if err != nil {
		return nil, err
	}
	h := &home{state: state, film: Film{Seed: seed, Size: cfg.Bitrate / 8 * filmSeconds}}
	h.agent, err = endpoint.NewAgent(endpoint.AgentConfig{Home: state, Relays: []wire.Relay{cfg.Relay}, Log: cfg.Log})
	if err != nil {
		return nil, errors.Join(err, state.Close())
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	h.serve.Go(func() { server.Serve(h.agent.Listen()) })
	if err := h.agent.Ready(ctx); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// ServeHTTP is the origin.
func (h *home) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(h.film, 0, h.film.Size))
}

func (h *home) close() {
	h.agent.Close()
	h.serve.Wait()
	h.state.Close()
}

// newDevice pairs a device with the home and waits until it may come in.
func (h *home) newDevice(ctx context.Context, log *slog.Logger) (*endpoint.Dialer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	inv, err := h.state.NewInvite("", 0, false)
	if err != nil {
		return nil, err
	}
	if err := h.agent.Publish(ctx); err != nil {
		return nil, err
	}
	server, err := endpoint.Pair(ctx, endpoint.PairConfig{Identity: key, Invite: inv, Name: "viewer", Log: log})
	if err != nil {
		return nil, err
	}
	d, err := endpoint.NewDialer(endpoint.DialerConfig{Identity: key, Server: server, Log: log})
	if err != nil {
		return nil, err
	}
	if err := d.Connect(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}
