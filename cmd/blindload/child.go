package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/localrelay"
	"github.com/blindrelay/blindrelay/loadtest/probe"
	"github.com/blindrelay/blindrelay/loadtest/units"
	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// relayCmd is the relay of --self: a process of its own, so that its CPU and
// memory are its own. It ends with its standard input.
type relayCmd struct {
	BufferMemory units.Size
	JitterBuffer units.Size
}

func (c *relayCmd) Run(ctx context.Context) error {
	r, err := localrelay.Start(localrelay.Config{BufferMemory: int64(c.BufferMemory), JitterBuffer: int(c.JitterBuffer), TCP: true})
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(r.Collectors()...)
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return errors.Join(err, r.Close())
	}
	server := &http.Server{Handler: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan struct{}) // closed when Serve has returned
	go func() {
		defer close(served)
		server.Serve(ln)
	}()
	fmt.Println(r.At, ln.Addr())
	over := make(chan struct{}) // closed when the parent is gone
	go func() {
		defer close(over)
		io.Copy(io.Discard, os.Stdin)
	}()
	select {
	case <-over:
	case <-ctx.Done():
	}
	err = errors.Join(server.Close(), r.Close())
	<-served
	return err
}

// child is a relay in a process of its own.
type child struct {
	at    wire.Relay
	ops   probe.Ops
	cmd   *exec.Cmd
	stdin io.Closer
}

// startChild runs this program as a relay.
func startChild(bufferMemory, jitterBuffer units.Size) (*child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe, "relay",
		"--buffer-memory", strconv.FormatInt(int64(bufferMemory), 10),
		"--jitter-buffer", strconv.FormatInt(int64(jitterBuffer), 10))
	cmd.Stderr = os.Stderr
	ownGroup(cmd) // Ctrl-C is for blindload, which then ends its relay
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{cmd: cmd, stdin: stdin}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, errors.Join(err, c.end())
	}
	at, ops, _ := strings.Cut(strings.TrimSpace(line), " ")
	if c.at, err = wire.ParseRelay(at); err != nil {
		return nil, errors.Join(err, c.end())
	}
	c.ops = probe.Ops("http://" + ops + "/metrics")
	return c, nil
}

// endWithin is how long the relay may take to say goodbye.
const endWithin = 10 * time.Second

func (c *child) end() error {
	timer := time.AfterFunc(endWithin, func() { c.cmd.Process.Kill() })
	defer timer.Stop()
	return errors.Join(c.stdin.Close(), c.cmd.Wait())
}
