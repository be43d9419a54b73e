//go:build !linux

package transport

import (
	"errors"
	"net"
	"time"
)

// tune leaves the system's settings.
func tune(net.Conn) {}

// kernelRTT knows nothing here.
func kernelRTT(net.Conn) time.Duration { return 0 }

// segments knows nothing here.
func segments(net.Conn) (sent, received uint64) { return 0, 0 }

// BBR returns errors.ErrUnsupported.
func BBR(*net.TCPListener) error { return errors.ErrUnsupported }
