package main

import (
	"crypto/x509"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// publicHostPort returns what an operator gives to others: the host of listen
// if it names one, otherwise the certificate's name, the address from which
// this machine reaches the internet, or its name; with the port that was taken.
func publicHostPort(listen string, port int, cert *x509.Certificate) string {
	host, _, _ := net.SplitHostPort(listen)
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = machineHost(cert, err == nil && ip.Is4())
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

func machineHost(cert *x509.Certificate, only4 bool) string {
	for _, name := range cert.DNSNames {
		if !strings.HasPrefix(name, "*") {
			return name
		}
	}
	// Documentation addresses (RFC 5737, RFC 3849): the kernel picks the source
	// address of the default route, and a UDP socket that only connects sends
	// nothing.
	probes := []string{"192.0.2.1:9", "[2001:db8::1]:9"}
	if only4 {
		probes = probes[:1]
	}
	for _, to := range probes {
		c, err := net.Dial("udp", to)
		if err != nil {
			continue
		}
		ip := c.LocalAddr().(*net.UDPAddr).IP
		c.Close()
		if !ip.IsUnspecified() && !ip.IsLoopback() {
			return ip.String()
		}
	}
	if name, err := os.Hostname(); err == nil {
		return name
	}
	return "localhost"
}
