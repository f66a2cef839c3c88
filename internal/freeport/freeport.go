// Package freeport gives tests addresses on loopback at which servers are stopped and
// started again.
//
// A port that the system chose (":0") can be somebody else's as soon as its listener is
// closed: other tests run beside this one and ask the system too. These ports are below
// the range from which Linux, macOS and Windows choose, and a process has its own:
// they come in blocks, of which it holds the first port for as long as it lives.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

const (
	lowest = 20000
	blocks = 200
	size   = 50 // ports of a block, the first of which is its lock
)

// ErrNone means that other processes have all ports, or that all of this one are in use.
var ErrNone = errors.New("freeport: no port of 127.0.0.1 from 20000 to 29999 is free")

// owned are the blocks of this process.
type owned struct {
	mu    sync.Mutex
	locks []net.Listener // on the first ports of the blocks; closed by the end of the process
	first []int          // those ports
	used  int            // ports that were given out of the blocks, the first round
	round int            // where the second and later rounds are
}

var own owned

// Addr returns an address on 127.0.0.1 where nobody listens. It is not returned again
// by this process before some thousand others were, or by another process while this one
// lives. Safe for concurrent use.
//
// Errors: ErrNone.
func Addr() (string, error) { return own.addr() }

func (o *owned) addr() (string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for range blocks * size {
		port, ok := o.next()
		if !ok {
			break
		}
		if l, err := net.Listen("tcp", address(port)); err == nil && l.Close() == nil {
			return address(port), nil
		}
	}
	return "", ErrNone
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// mostBlocks is how many blocks a process takes before it begins anew with its first, so
// that there are enough for others.
const mostBlocks = 24

// next returns the port that follows, of a new block when those that are owned were all
// given out.
func (o *owned) next() (int, bool) {
	per := size - 1
	if o.used == len(o.first)*per && (len(o.first) >= mostBlocks || !o.take()) {
		if len(o.first) == 0 {
			return 0, false
		}
		o.round++
		i := o.round % o.used
		return o.first[i/per] + 1 + i%per, true
	}
	i := o.used
	o.used++
	return o.first[i/per] + 1 + i%per, true
}

// take makes a block this process's own.
func (o *owned) take() bool {
	begin := rand.IntN(blocks) //nolint:gosec // no secret: a place to begin
	for i := range blocks {
		first := lowest + (begin+i)%blocks*size
		if l, err := net.Listen("tcp", address(first)); err == nil {
			o.locks, o.first = append(o.locks, l), append(o.first, first)
			return true
		}
	}
	return false
}
