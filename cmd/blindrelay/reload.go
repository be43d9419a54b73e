package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"reflect"
	"time"

	"github.com/blindrelay/blindrelay/relay"
	"github.com/blindrelay/blindrelay/relay/admit"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// certified is a listener whose certificate can be replaced.
type certified interface{ SetCertificate(tls.Certificate) }

// live is what a reload changes in a relay that runs. It belongs to Run until
// follow runs, and then to follow.
type live struct {
	*loaded // in effect
	terms   terms
	policy  admit.Policy
	level   slog.LevelVar
	log     *slog.Logger
	relay   *relay.Relay
	shown   []certified
	pin     wire.KeyPin
}

// admit makes the policy of the settings.
func (v *live) admit(c *serveCmd) error {
	t, err := c.admission.load()
	if err != nil {
		return err
	}
	p, err := t.policy()
	if err != nil {
		return err
	}
	v.terms, v.policy = t, p
	return nil
}

// follow reloads at each signal until ctx ends.
func (v *live) follow(ctx context.Context, hangup <-chan os.Signal) {
	for {
		select {
		case <-hangup:
			if err := v.reload(ctx); err != nil {
				v.log.Error("the config was not reloaded, what was before stays in effect", "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// reload reads the config and the files that it names again. It changes all
// that can be changed, or after a mistake nothing.
func (v *live) reload(ctx context.Context) error {
	next, err := load(v.args)
	if err != nil {
		return err
	}
	c := &next.cli.Serve
	if err := c.check(); err != nil {
		return next.file.locate(err)
	}
	certificate, err := c.identity().reload()
	if err != nil {
		return err
	}
	before, policy := v.terms, v.policy
	if err := v.admit(c); err != nil {
		return next.file.locate(err)
	}
	for _, name := range restarts(v.loaded, next) {
		v.log.Warn("a changed setting takes a restart", "setting", name)
	}
	v.loaded = next
	v.level.Set(c.LogLevel)
	for _, l := range v.shown {
		l.SetCertificate(certificate)
	}
	if pin := transport.PinOf(certificate.Leaf); pin != v.pin {
		v.pin = pin
		v.log.Warn("the relay has another key from now on: agents need its new address line", "pin", pin.String())
	}
	if reflect.DeepEqual(v.terms, before) {
		closePolicy(v.policy)
		v.policy = policy
	} else {
		c.admission.announce(v.log)
		v.relay.SetPolicy(ctx, v.policy)
		closePolicy(policy)
	}
	v.relay.SetLimits(c.limits.relay())
	v.log.Info("reloaded", "certificate_until", certificate.Leaf.NotAfter.UTC().Format(time.RFC3339))
	return nil
}

// restarts names the settings that differ and that a reload does not change.
func restarts(a, b *loaded) (names []string) {
	before := make(map[string]reflect.Value)
	for _, f := range settings(a.command.Kong) {
		before[f.Name] = f.Target
	}
	for _, f := range settings(b.command.Kong) {
		if !f.Tag.Has("reload") && !reflect.DeepEqual(before[f.Name].Interface(), f.Target.Interface()) {
			names = append(names, f.Name)
		}
	}
	return names
}

// dryRun finds all that serve would not start with, as far as that can be known
// without starting. It makes no file.
func (c *serveCmd) dryRun() error {
	if err := c.check(); err != nil {
		return err
	}
	for _, a := range []struct{ name, address string }{{"listen", c.Listen}, {"ops", c.Ops}, {"listen-tcp", c.tcpAddress(0)}} {
		if _, _, err := net.SplitHostPort(a.address); err != nil && (a.address != "" || a.name == "listen") {
			return usageError{fmt.Sprintf("--%s: %q is not an address: write HOST:PORT, or :PORT for all addresses of the machine", a.name, a.address), a.name}
		}
	}
	if _, err := relay.New(relay.Config{BufferMemory: int64(c.BufferMemory), JitterBuffer: int(c.JitterBuffer)}); err != nil {
		return usageError{err.Error() + ": see --buffer-memory and --jitter-buffer", "buffer-memory"}
	}
	terms, err := c.admission.load()
	if err != nil {
		return err
	}
	policy, err := terms.policy()
	if err != nil {
		return err
	}
	closePolicy(policy)
	files := c.identity()
	if c.TLSKey != "" {
		if _, err := files.reload(); err != nil {
			return usageError{err.Error(), "tls-key"}
		}
	}
	for _, key := range []struct{ name, path string }{{"reset-key", c.ResetKey}, {"token-key", c.TokenKey}} {
		if key.path == "" {
			continue
		}
		if _, err := files.secretKey(key.path, ""); err != nil {
			return usageError{err.Error(), key.name}
		}
	}
	return nil
}
