package freeport

import (
	"net"
	"testing"
)

// TestAddrIsFreeAndNotGivenTwice: also where somebody listens at the next one, and where
// another process asks at the same time.
func TestAddrIsFreeAndNotGivenTwice(t *testing.T) {
	other := &owned{} // as another process has it
	defer other.end()
	seen := map[string]bool{}
	for range 3 * size {
		for _, get := range []func() (string, error){Addr, other.addr} {
			addr, err := get()
			if err != nil {
				t.Fatal(err)
			}
			if seen[addr] {
				t.Fatalf("%s twice", addr)
			}
			seen[addr] = true
			l, err := net.Listen("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestRounds: a process that has its blocks begins anew, and passes over what is in use.
func TestRounds(t *testing.T) {
	o := &owned{}
	defer o.end()
	held, err := o.addr()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", held)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 2 * mostBlocks * size {
		addr, err := o.addr()
		if err != nil {
			t.Fatal(err)
		}
		if addr == held {
			t.Fatalf("%s is in use", addr)
		}
	}
	if len(o.first) > mostBlocks {
		t.Errorf("%d blocks, at most %d", len(o.first), mostBlocks)
	}
}

func (o *owned) end() {
	for _, l := range o.locks {
		_ = l.Close()
	}
}
