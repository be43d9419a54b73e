package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/blindrelay/blindrelay/relay"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/udp"
	"github.com/blindrelay/blindrelay/transport/wire"
	"golang.org/x/term"
)

type serveCmd struct {
	Config    string  `type:"path" placeholder:"FILE" help:"Config file, whose keys are the flags below with _ for -; \"blindrelay config\" prints one. Flags and variables go before it. Default none."`
	Listen    string  `default:":4433" placeholder:"HOST:PORT" help:"UDP address to listen on; without HOST all addresses of the machine. Default ${default}."`
	ListenTCP *string `name:"listen-tcp" placeholder:"HOST:PORT" example:":443" help:"TCP address for endpoints whose network blocks UDP, best with port 443; \"\" is none. Default that of --listen, the same port."`
	State     string  `placeholder:"DIR" type:"path" example:"/var/lib/blindrelay" help:"Directory of the relay's identity: its key, hence its PIN, and what lets endpoints notice a restart. Made on the first start. Default $$STATE_DIRECTORY, else $$XDG_STATE_HOME/blindrelay, else ~/.local/state/blindrelay."`
	Ops       string  `default:"127.0.0.1:9464" placeholder:"HOST:PORT" help:"TCP address of /status, a page for people, /metrics, /healthz and /readyz, which ask for no password; \"\" is none. Default ${default}."`

	admission

	BufferMemory byteSize `placeholder:"SIZE" example:"256M" help:"Memory that all forwarded streams together may hold, buffers and QUIC windows. Default a quarter of the memory of the machine or of the control group."`
	JitterBuffer byteSize `default:"1M" placeholder:"SIZE" help:"What one direction of one stream may buffer. Default ${default}."`

	limits

	handshakeLimits

	TLSCert  string `name:"tls-cert" type:"path" placeholder:"FILE" example:"/etc/blindrelay/fullchain.pem" reload:"" help:"Certificate chain (PEM) that is publicly trusted for this host, so that agents need no #PIN. Needs --tls-key."`
	TLSKey   string `name:"tls-key" type:"path" placeholder:"FILE" example:"/etc/blindrelay/privkey.pem" reload:"" help:"Private key (PEM) in place of hop.key in the state directory. Replicas of a relay share it."`
	ResetKey string `type:"path" placeholder:"FILE" example:"/etc/blindrelay/reset.key" help:"32 bytes in base64 in place of reset.key in the state directory. Replicas share it."`
	TokenKey string `type:"path" placeholder:"FILE" example:"/etc/blindrelay/token.key" help:"32 bytes in base64 in place of token.key in the state directory. Replicas share it."`

	DrainTimeout time.Duration `default:"30s" placeholder:"DURATION" help:"How long endpoints may take to move elsewhere after SIGTERM or SIGINT, before the relay ends their sessions; 0: it does so at once. Default ${default}."`

	Sandbox      string     `enum:"require,best-effort,off" default:"best-effort" placeholder:"require|best-effort|off" help:"Once it listens, this process gives up what it does not need: writing files, reading others than certificates, starting programs, leaving a core (Landlock and seccomp). require: it ends where the kernel lacks any of that; best-effort: it says so. Default ${default}."`
	Sockets      int        `placeholder:"N" example:"2" help:"UDP sockets that share the port. Default one for each core."`
	LogRoutes    bool       `example:"true" help:"Name routes in the log. Otherwise it has a keyed hash of each, with a key that ends with this process."`
	LogAddresses string     `enum:"none,network" default:"none" placeholder:"none|network" help:"network: the log names the network of an endpoint's address, IPv4 /24 or IPv6 /48. It never has a whole one. Default ${default}."`
	LogFormat    string     `enum:"auto,text,json" default:"auto" placeholder:"auto|text|json" help:"auto is text on a terminal and JSON elsewhere. Default ${default}."`
	LogLevel     slog.Level `default:"info" placeholder:"LEVEL" reload:"" help:"debug, info, warn or error. Default ${default}."`
}

// endWithin bounds everything between the end of a drain and the end.
const endWithin = 4 * time.Second

func (c *serveCmd) Run(ctx context.Context, l *loaded) error {
	hangup := make(chan os.Signal, 1) // sent to by the runtime; one signal stands for all that come meanwhile
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	if err := c.check(); err != nil {
		return err
	}
	// quic-go would print about small socket buffers by itself; the sockets'
	// warnings say it with what to do.
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	now := &live{loaded: l}
	now.level.Set(c.LogLevel)
	log := c.logger(os.Stderr, &now.level)
	now.log = log
	if err := noCore(); err != nil {
		return err
	}

	id, err := c.identity().load()
	if err != nil {
		return err
	}
	receipts, err := id.receipts()
	if err != nil {
		return err
	}
	if err := now.admit(c); err != nil {
		return err
	}
	defer func() { closePolicy(now.policy) }()
	r, err := relay.New(relay.Config{
		Admit:        now.policy,
		BufferMemory: int64(c.BufferMemory),
		JitterBuffer: int(c.JitterBuffer),

		Limits:   c.limits.relay(),
		Receipts: receipts,

		Log:         log,
		NameRoute:   c.nameRoute(),
		NameAddress: c.nameAddress(),
	})
	if err != nil {
		return fmt.Errorf("%w: see --buffer-memory and --jitter-buffer", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer cancel()
	background.Go(func() { tidy(ctx, r.Forwarded) })

	metrics := newRegistry()
	metrics.MustRegister(r.Collectors()...)
	handshakes := c.handshakeLimits.count()
	metrics.MustRegister(handshakeCollectors(handshakes)...)
	var o *ops
	if c.Ops != "" {
		if o, err = listenOps(c.Ops, metrics, log); err != nil {
			return err
		}
		defer o.close()
	}

	sockets, err := udp.Listen(udp.Config{Addr: c.Listen, Sockets: c.Sockets})
	if err != nil {
		return err
	}
	defer sockets.Close()
	for _, w := range sockets.Warnings() {
		log.Warn("UDP takes more CPU or loses more here than it has to", "warning", w)
	}
	ln, err := listen(sockets, id, handshakes, r.HandshakeFailed)
	if err != nil {
		return err
	}
	defer ln.Close()

	socket, err := listenDrain(c.State, r.Endpoints)
	if err != nil {
		log.Warn("`blindrelay drain` cannot reach this relay, SIGTERM can", "err", err)
	} else {
		defer socket.close()
	}

	listeners := []listener{ln}
	now.relay, now.pin, now.shown = r, transport.PinOf(id.certificate.Leaf), []certified{ln}
	udpPort := sockets.Conns()[0].LocalAddr().(*net.UDPAddr).Port
	tcpPort := udpPort
	if address := c.tcpAddress(udpPort); address != "" {
		tcp, port, err := c.listenTCP(address, id, handshakes, r.HandshakeFailed, log)
		if err != nil {
			return err
		}
		defer tcp.Close()
		listeners, tcpPort = append(listeners, tcp), port
		now.shown = append(now.shown, tcp)
	}

	if err := c.confine(log); err != nil {
		return err
	}
	if err := c.announce(log, id, udpPort, tcpPort); err != nil {
		return err
	}
	background.Go(func() { now.follow(ctx, hangup) })
	if o != nil {
		o.ready.Store(true)
	}
	err = c.serve(ctx, r, listeners, socket, func(within time.Duration) {
		if o != nil {
			o.ready.Store(false)
		}
		log.Info("ending: no new sessions, endpoints are asked to move", "endpoints", r.Endpoints(), "within", within)
	})
	log.Info("shutting down", "endpoints", r.Endpoints())
	if socket != nil {
		socket.close()
	}
	ending, done := context.WithTimeout(context.Background(), endWithin)
	defer done()
	errs := []error{err}
	for _, l := range listeners {
		errs = append(errs, l.Stop())
	}
	return errors.Join(append(errs, r.Shutdown(ending))...)
}

// serve accepts sessions until a signal ends ctx or somebody asks at the
// socket, which may be nil, then calls leaving and empties the relay. It
// accepts on meanwhile, as new endpoints are to hear that they go elsewhere.
func (c *serveCmd) serve(ctx context.Context, r *relay.Relay, listeners []listener, socket *drainServer, leaving func(within time.Duration)) error {
	serving, stop := context.WithCancel(context.Background())
	served := make(chan error, 1) // the goroutine's one value
	go func() { served <- serveAll(serving, r, listeners) }()
	var asked chan time.Duration
	if socket != nil {
		asked = socket.asked
	}
	select {
	case err := <-served:
		stop()
		return err
	case within := <-asked:
		leaving(within)
		r.Drain(ctx, within)
	case <-ctx.Done():
		leaving(c.DrainTimeout)
	}
	if ctx.Err() != nil && c.DrainTimeout > 0 {
		r.Drain(context.Background(), c.DrainTimeout)
	}
	stop()
	return <-served
}

// check finds what flags cannot say together, and fills in defaults that
// depend on the machine.
func (c *serveCmd) check() error {
	if err := c.admission.check(); err != nil {
		return err
	}
	if err := c.limits.check(); err != nil {
		return err
	}
	if err := c.handshakeLimits.check(); err != nil {
		return err
	}
	switch {
	case c.TLSCert != "" && c.TLSKey == "":
		return usageError{"--tls-cert needs the certificate's key: --tls-key FILE", "tls-cert"}
	case c.DrainTimeout < 0:
		return usageError{"--drain-timeout takes a time from 0 on, for example 30s", "drain-timeout"}
	case os.Getenv("QUIC_GO_LOG_LEVEL") != "":
		return usageError{"QUIC_GO_LOG_LEVEL is set: quic-go would write the addresses of endpoints to stderr; unset it", ""}
	case c.Sockets < 0:
		return usageError{"--sockets takes a number from 1, or none for one for each core", "sockets"}
	}
	if c.State == "" {
		c.State = defaultStateDir(os.Getenv)
	}
	if c.State == "" && (c.TLSKey == "" || c.ResetKey == "" || c.TokenKey == "") {
		return usageError{"there is no home directory to keep the relay's identity in: --state DIR says where", "state"}
	}
	if c.BufferMemory == 0 {
		memory := machineMemory(os.DirFS("/"))
		if memory == 0 {
			memory = fallbackMemory
		}
		c.BufferMemory = byteSize(memory / 4)
	}
	return nil
}

func (c *serveCmd) identity() identityFiles {
	return identityFiles{
		dir:     c.State,
		tlsCert: c.TLSCert, tlsKey: c.TLSKey,
		resetKey: c.ResetKey, tokenKey: c.TokenKey,
	}
}

func (c *serveCmd) logger(w *os.File, level slog.Leveler) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "text" || c.LogFormat == "auto" && term.IsTerminal(int(w.Fd())) {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}

func listen(sockets *udp.Group, id *identity, handshakes *transport.Handshakes, failed func(wire.Code)) (*transport.Listener, error) {
	cfg := transport.ListenConfig{
		Certificate: id.certificate,
		ResetKey:    id.resetKey,
		TokenKey:    id.tokenKey,
		Handshakes:  handshakes,
		Failed:      failed,
	}
	for i, conn := range sockets.Conns() {
		cfg.Sockets = append(cfg.Sockets, transport.Socket{Conn: conn, IDs: sockets.ConnectionIDGenerator(i)})
	}
	return transport.Listen(cfg)
}

// announce prints the line that an operator passes on, and logs what else
// they should know.
func (c *serveCmd) announce(log *slog.Logger, id *identity, udpPort, tcpPort int) error {
	leaf := id.certificate.Leaf
	pin := transport.PinOf(leaf)
	address := wire.Relay{Addr: publicHostPort(c.Listen, udpPort, leaf), Pin: pin}
	if tcpPort != udpPort {
		address.TCPPort = uint16(tcpPort)
	}
	log.Info("listening", "address", address.String(), "buffer_memory", int64(c.BufferMemory), "state", c.State)
	c.admission.announce(log)
	if c.TLSCert != "" && time.Now().After(leaf.NotAfter) {
		log.Warn("the certificate of --tls-cert has expired", "at", leaf.NotAfter)
	}
	_, err := io.WriteString(os.Stdout, address.String()+"\n")
	return err
}
