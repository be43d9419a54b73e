//go:build !linux

package udp

import "fmt"

// open opens one socket: sharing a port in a steered way needs Linux.
func (g *Group) open(network string, cfg Config) error {
	c, err := listenOne(network, cfg.Addr, nil)
	if err != nil {
		return err
	}
	g.conns = append(g.conns, c)
	if err := c.SetReadBuffer(cfg.Buffer); err != nil {
		g.warnings = append(g.warnings, bufferWarning("receive", cfg.Buffer))
	}
	if err := c.SetWriteBuffer(cfg.Buffer); err != nil {
		g.warnings = append(g.warnings, bufferWarning("send", cfg.Buffer))
	}
	return nil
}

func bufferWarning(which string, want int) string {
	return fmt.Sprintf("the UDP %s buffer stays below the %d KiB wanted, bursts may be lost: raise the system's limit of socket buffers", which, want>>10)
}
