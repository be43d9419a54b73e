package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/blindrelay/blindrelay/relay/admit"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// byteSize is a number of bytes on the command line: 65536, 64K, 256M, 2G, with
// factors of 1024.
type byteSize int64

func (b *byteSize) UnmarshalText(text []byte) error {
	s := strings.ToUpper(string(text))
	s = strings.TrimSuffix(strings.TrimSuffix(s, "B"), "I")
	digits := strings.TrimRight(s, "KMGT")
	shift, ok := map[string]int{"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[s[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || n < 0 || n > math.MaxInt64>>shift {
		return fmt.Errorf("%q is not a size: write a number of bytes, or 64K, 256M, 2G", text)
	}
	*b = byteSize(n << shift)
	return nil
}

// bitRate is a number of bits per second on the command line: 500k, 20M, 1G, 2.5G,
// with factors of 1000.
type bitRate int64

func (r *bitRate) UnmarshalText(text []byte) error {
	s := strings.ToUpper(string(text))
	digits := strings.TrimRight(s, "KMG")
	factor, ok := map[string]float64{"": 1, "K": 1e3, "M": 1e6, "G": 1e9}[s[len(digits):]]
	n, err := strconv.ParseFloat(digits, 64)
	if n *= factor; !ok || err != nil || !(n >= admit.MinRate && n <= 1e15) {
		return fmt.Errorf("%q is not a rate in bits per second from 100k on: write for example 20M or 1G", text)
	}
	*r = bitRate(n)
	return nil
}

// routeFlag is a route on the command line.
type routeFlag wire.Route

func (r *routeFlag) UnmarshalText(text []byte) error {
	route, err := wire.ParseRoute(strings.TrimSpace(string(text)))
	*r = routeFlag(route)
	return err
}
