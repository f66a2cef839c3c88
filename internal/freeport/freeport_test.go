package freeport

import (
	"net"
	"testing"
)

// TestAddrIsFreeAndNotGivenTwice: also where somebody listens at the next one.
func TestAddrIsFreeAndNotGivenTwice(t *testing.T) {
	seen := map[string]bool{}
	for range 50 {
		addr, err := Addr()
		if err != nil {
			t.Fatal(err)
		}
		if seen[addr] {
			t.Errorf("%s twice", addr)
		}
		seen[addr] = true
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		next.Add(^uint32(0)) // so that the next one tried is the one in use
	}
}
