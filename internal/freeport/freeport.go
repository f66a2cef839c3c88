// Package freeport gives tests addresses on loopback at which servers are stopped and
// started again.
//
// A port that the system chose (":0") can be somebody else's as soon as its listener is
// closed: other tests run beside this one and ask the system too. These ports are below
// the range from which Linux, macOS and Windows choose.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
)

const (
	lowest = 20000
	count  = 10000
)

// ErrNone means that all ports are in use.
var ErrNone = errors.New("freeport: no port of 127.0.0.1 from 20000 to 29999 is free")

// next goes through the ports from a place of this process's own, so that programs
// that run at the same time seldom come to the same ones.
var next atomic.Uint32

func init() { next.Store(rand.Uint32N(count)) } //nolint:gosec // no secret: a place to begin

// Addr returns an address on 127.0.0.1 where nobody listens. It is not returned again
// by this process before all others were. Safe for concurrent use.
//
// Errors: ErrNone.
func Addr() (string, error) {
	for range count {
		addr := fmt.Sprintf("127.0.0.1:%d", lowest+next.Add(1)%count)
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		if err := l.Close(); err == nil {
			return addr, nil
		}
	}
	return "", ErrNone
}
