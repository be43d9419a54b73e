package cinema

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"flag"
	"net"
	"net/http"
	"os"
	"os/signal"
	"testing"

	"go.uber.org/goleak"
)

var (
	look    = flag.String("look", "", "serve the page at this `address` until interrupted, instead of running tests")
	lookDir = flag.String("look.dir", "", "with -look: the film `folder`; empty: the built-in clip")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *look != "" {
		os.Exit(serveLook())
	}
	goleak.VerifyTestMain(m)
}

// serveLook serves the page without a relay, so that it can be seen and worked
// on alone:
//
//	go test ./cmd/demo/internal/cinema -look 127.0.0.1:8097
//
// In the relay's place each connection's bytes are enciphered under a throwaway
// key before the Wire sees them, so that sizes and times are true.
func serveLook() int {
	wire := NewWire()
	c, err := New(Config{Dir: *lookDir, Wire: wire})
	if err != nil {
		println(err.Error())
		return 1
	}
	defer c.Close()
	l, err := net.Listen("tcp", *look)
	if err != nil {
		println(err.Error())
		return 1
	}
	server := &http.Server{Handler: c}
	done := make(chan os.Signal, 1) // signal.Notify sends; one is enough to end
	signal.Notify(done, os.Interrupt)
	go func() {
		<-done
		server.Close()
	}()
	println("http://" + l.Addr().String() + "/")
	server.Serve(sealedListener{l, wire})
	return 0
}

type sealedListener struct {
	net.Listener
	wire *Wire
}

func (l sealedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.wire.StreamOpened()
	return &sealedConn{Conn: c, wire: l.wire, seal: [2]cipher.Stream{throwaway(), throwaway()}}, nil
}

// throwaway returns a key stream that nobody can repeat.
func throwaway() cipher.Stream {
	var key, iv [16]byte
	rand.Read(key[:])
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err)
	}
	return cipher.NewCTR(block, iv[:])
}

type sealedConn struct {
	net.Conn
	wire *Wire
	seal [2]cipher.Stream // by Direction
}

func (c *sealedConn) saw(d Direction, p []byte) {
	sealed := make([]byte, len(p))
	c.seal[d].XORKeyStream(sealed, p)
	c.wire.Seen(d, sealed)
}

func (c *sealedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.saw(ToAgent, p[:n])
	return n, err
}

func (c *sealedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.saw(ToDevice, p[:n])
	return n, err
}

func (c *sealedConn) Close() error {
	c.wire.StreamClosed()
	return c.Conn.Close()
}
