package gate

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker/identity"
	"github.com/signetbus/signet/internal/wire"
)

var (
	attacker = netip.MustParseAddr("192.0.2.1")
	victim   = netip.MustParseAddr("198.51.100.7")
	zero     = time.Unix(1_800_000_000, 0)
)

func named(s string) [16]byte {
	n, _ := statedName(&identity.Credentials{NkeyPublic: s})
	return n
}

// An address that fails too often is shut out until it has not for a while, and no
// other one is.
func TestFailedLoginsShutAnAddress(t *testing.T) {
	a := newAttempts(60)
	for i := range 60 {
		if a.shut(attacker, zero) {
			t.Fatalf("shut after %d", i)
		}
		a.failed(attacker, named(fmt.Sprint(i)), true, zero)
	}
	if !a.shut(attacker, zero) || a.shut(victim, zero) {
		t.Error("the wrong one is shut out")
	}
	if !a.shut(attacker, zero.Add(900*time.Millisecond)) || a.shut(attacker, zero.Add(1100*time.Millisecond)) {
		t.Error("not one more failure a second")
	}
}

// Who shares an address with an attacker and has logged in from there is not kept out by
// what the attacker can do to strangers.
func TestKnownAddressBearsMore(t *testing.T) {
	a := newAttempts(60)
	a.succeeded(attacker, named("good"), zero)
	for i := range 600 {
		at := zero.Add(time.Duration(i) * 100 * time.Millisecond) // ten times what shuts a stranger out
		if a.shut(attacker, at) {
			t.Fatalf("shut after %d failures of others", i)
		}
		a.failed(attacker, named("bad"), true, at)
	}
	// Who was connected all the time is not a stranger when he comes back.
	back := zero.Add(2 * knownFor)
	for range 200 {
		a.failed(attacker, named("bad"), true, back)
	}
	if !a.shut(attacker, back) {
		t.Fatal("200 failures of a stranger")
	}
	if a.left(attacker, back); a.shut(attacker, back) {
		t.Error("who was connected is shut out with the strangers")
	}
	later := back.Add(knownFor + time.Minute)
	for range 61 {
		a.failed(attacker, named("bad"), true, later)
	}
	if !a.shut(attacker, later) {
		t.Error("known for ever")
	}
}

// A name waits where it failed, longer each time, and nowhere else: naming somebody
// else's key does nothing to him.
func TestNameWaitsWhereItFailed(t *testing.T) {
	a := newAttempts(1_000_000)
	key := named("victim's public key")
	now := zero
	for range freeStrikes - 1 {
		a.failed(attacker, key, true, now)
	}
	if w := a.barred(attacker, key, now); w != 0 {
		t.Errorf("waits %s after %d", w, freeStrikes-1)
	}
	for want := firstBar; want < 10*longestBar; want *= 2 {
		a.failed(attacker, key, true, now)
		if w := a.barred(attacker, key, now); w != min(want, longestBar) {
			t.Errorf("waits %s, want %s", w, min(want, longestBar))
		}
	}
	if a.barred(victim, key, now) != 0 {
		t.Error("the victim has to wait")
	}
	if a.barred(attacker, named("another"), now) != 0 {
		t.Error("another name has to wait")
	}
	if w := a.barred(attacker, key, now.Add(longestBar)); w != 0 {
		t.Errorf("waits %s more", w)
	}
	now = now.Add(longestBar + strikesFor + time.Second)
	a.failed(attacker, key, true, now)
	if a.barred(attacker, key, now) != 0 {
		t.Error("strikes are never forgotten")
	}
	// Who has come in from there does not wait, whatever is tried in its name beside it.
	a.succeeded(attacker, key, now)
	for range 100 {
		a.failed(attacker, key, true, now)
	}
	if a.barred(attacker, key, now) != 0 {
		t.Error("who came in before has to wait")
	}
}

// TestKnockingIsBounded: a name that has to wait cannot be stated without end either; it
// costs its address a tenth of a failure.
func TestKnockingIsBounded(t *testing.T) {
	a := newAttempts(60)
	for range 500 {
		a.knocked(attacker, zero)
	}
	if a.shut(attacker, zero) {
		t.Error("500 attempts shut the address")
	}
	for range 100 {
		a.knocked(attacker, zero)
	}
	if !a.shut(attacker, zero) || a.shut(victim, zero) {
		t.Errorf("after 600 attempts: attacker %v, victim %v", a.shut(attacker, zero), a.shut(victim, zero))
	}
	if a.shut(attacker, zero.Add(2*time.Second)) {
		t.Error("it stays shut")
	}
}

// The memory is bounded, whatever names and addresses there are, and is given back.
func TestAttemptsAreBounded(t *testing.T) {
	a := newAttempts(60)
	for i := range maxAddresses + 1000 {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		a.failed(addr, named(fmt.Sprint(i)), true, zero)
		a.succeeded(addr, named(fmt.Sprint("x", i)), zero)
	}
	if len(a.origins) > maxAddresses || len(a.names) > maxAddresses {
		t.Errorf("%d addresses, %d names", len(a.origins), len(a.names))
	}
	late := zero.Add(trustedFor + strikesFor + time.Minute)
	a.shut(victim, late)
	if len(a.origins)+len(a.names) != 0 {
		t.Errorf("%d addresses and %d names are left", len(a.origins), len(a.names))
	}
}

// TestFailedLogins: through the gate. A bad signature in a key's name makes it wait, is
// answered as every failure, and is on record under its own code; then the address is
// shut; whoever is in stays in.
func TestFailedLogins(t *testing.T) {
	w := newWorld(t, func(c *Config, _ *Deps) { c.Limits.FailedLogins = 12 })
	in := w.connect("writer")
	stranger, err := nkeys.CreateUser()
	check(t, err)
	public, err := stranger.PublicKey()
	check(t, err)
	try := func() string {
		r, _ := w.dial()
		r.send(fmt.Sprintf("CONNECT {\"nkey\":%q,\"sig\":\"x\"}\r\nPING\r\n", public))
		return r.line()
	}
	for range freeStrikes + 1 {
		if got := try(); got != "-ERR 'Authorization Violation'" {
			t.Fatalf("got %q", got)
		}
	}
	w.until("the name has to wait", func() bool {
		w.sink.mu.Lock()
		defer w.sink.mu.Unlock()
		return strings.Contains(strings.Join(w.sink.refused, "\n"), wire.CodeLoginBarred.String()+" connect")
	})
	// A login that is known makes the address bear 20 times as much; without it:
	w.gate.door.tries.mu.Lock()
	clear(w.gate.door.tries.origins)
	w.gate.door.tries.mu.Unlock()
	w.until("the address is shut", func() bool {
		nc, err := net.Dial("tcp", w.gate.Addr().String())
		if err == nil {
			_, _ = nc.Write([]byte("CONNECT {}\r\nPING\r\n"))
			_, _ = io.Copy(io.Discard, nc)
			nc.Close()
		}
		return w.gate.Stats().TurnedAway["gate.failedLogins"] > 0
	})
	check(t, in.FlushTimeout(testTimeout))
}
