package gate

import (
	"crypto/sha256"
	"net/netip"
	"sync"
	"time"

	"github.com/signetbus/signet/broker/identity"
)

// What the memory of failed logins goes by. Proofs are keys of 256 bits, so there is
// nothing to guess: the limits are there for the work and the log lines that failures
// cost, and must not become a way to keep others out.
const (
	knownShare  = 20               // how much more an address may fail that somebody has logged in from lately
	knownFor    = 10 * time.Minute // lately
	knockShare  = 0.1              // of a failure that an attempt of a name is which has to wait
	freeStrikes = 5                // failures of one name at one address before it has to wait
	firstBar    = 2 * time.Second  // then; it doubles with each failure
	longestBar  = 5 * time.Minute
	strikesFor  = 10 * time.Minute // without a failure, after which strikes are forgotten
	trustedFor  = time.Hour        // after a login, in which the name never has to wait at the address
	sweepEvery  = 10 * time.Second
)

// attempts remembers failed logins. Per address it is a bucket of failures: while it is
// empty, connections of the address are closed unheard. Per name it counts at each
// address by itself: whoever names a key of somebody else makes it wait where he is, not
// where the other is. Safe for concurrent use.
type attempts struct {
	perSecond float64 // failures of an address; below 0: no limit
	burst     float64

	mu      sync.Mutex
	origins map[netip.Addr]origin
	names   map[nameAt]strikes
	swept   time.Time
}

type origin struct {
	left     float64 // failures
	at, good time.Time
}

// nameAt is a name as a client states it, proven or not, and where from.
type nameAt struct {
	addr netip.Addr
	name [16]byte
}

type strikes struct {
	n                 int
	last, until, good time.Time
}

func newAttempts(perMinute int) *attempts {
	return &attempts{
		perSecond: float64(perMinute) / 60, burst: max(float64(perMinute), 1),
		origins: make(map[netip.Addr]origin), names: make(map[nameAt]strikes),
	}
}

// statedName is what a client says it is: the key, certificate or token, cut to a hash,
// so that nobody's choice of names costs memory. ok is false where it says nothing.
func statedName(c *identity.Credentials) (name [16]byte, ok bool) {
	var text []byte
	switch {
	case c.NkeyPublic != "":
		text = []byte(c.NkeyPublic)
	case c.AuthToken+c.JWT != "":
		text = []byte(c.AuthToken + c.JWT)
	case c.TLS != nil && len(c.TLS.PeerCertificates) > 0:
		text = c.TLS.PeerCertificates[0].Raw
	default:
		return name, false
	}
	sum := sha256.Sum256(text)
	return [16]byte(sum[:16]), true
}

// shut reports whether connections of the address are closed unheard.
func (a *attempts) shut(addr netip.Addr, now time.Time) bool {
	if a.perSecond < 0 {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sweepLocked(now)
	o, known := a.origins[addr]
	return known && a.refilled(o, now).left < 1
}

// refilled is o as it is now.
func (a *attempts) refilled(o origin, now time.Time) origin {
	times := 1.0
	if now.Sub(o.good) < knownFor {
		times = knownShare
	}
	o.left = min(a.burst*times, o.left+now.Sub(o.at).Seconds()*a.perSecond*times)
	o.at = now
	return o
}

// barred returns how long the name has to wait at the address; 0: its proof is checked.
func (a *attempts) barred(addr netip.Addr, name [16]byte, now time.Time) time.Duration {
	if a.perSecond < 0 {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.names[nameAt{addr, name}]
	if now.Sub(s.good) < trustedFor {
		return 0
	}
	return max(0, s.until.Sub(now))
}

// failed counts a login that failed. named is false where no name was stated.
func (a *attempts) failed(addr netip.Addr, name [16]byte, named bool, now time.Time) {
	if a.perSecond < 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sweepLocked(now)
	a.chargeLocked(addr, 1, now)
	key := nameAt{addr, name}
	s, known := a.names[key]
	if !named || !known && len(a.names) >= maxAddresses {
		return
	}
	if now.Sub(s.last) > strikesFor {
		s.n = 0
	}
	s.n, s.last = s.n+1, now
	if over := s.n - freeStrikes; over >= 0 {
		s.until = now.Add(min(longestBar, firstBar<<min(over, 16)))
	}
	a.names[key] = s
}

// knocked counts an attempt of a name that has to wait. Its proof was not looked at: it
// is a small part of a failure, so that many workloads with one credential that ended do not shut
// their address, and not nothing, so that nobody knocks without end.
func (a *attempts) knocked(addr netip.Addr, now time.Time) {
	if a.perSecond < 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sweepLocked(now)
	a.chargeLocked(addr, knockShare, now)
}

func (a *attempts) chargeLocked(addr netip.Addr, failures float64, now time.Time) {
	o, known := a.origins[addr]
	if !known {
		if len(a.origins) >= maxAddresses {
			return
		}
		o = origin{left: a.burst, at: now}
	}
	o = a.refilled(o, now)
	o.left = max(0, o.left-failures)
	a.origins[addr] = o
}

// succeeded notes a login.
func (a *attempts) succeeded(addr netip.Addr, name [16]byte, now time.Time) {
	if a.perSecond < 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sweepLocked(now)
	a.knowLocked(addr, now)
	if key := (nameAt{addr, name}); len(a.names) < maxAddresses {
		a.names[key] = strikes{good: now}
	}
}

// left notes that an authenticated connection has ended: its client comes back, and what
// others there have done must not be in its way.
func (a *attempts) left(addr netip.Addr, now time.Time) {
	if a.perSecond < 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.knowLocked(addr, now)
}

// knowLocked makes addr one that somebody has logged in from.
func (a *attempts) knowLocked(addr netip.Addr, now time.Time) {
	o, known := a.origins[addr]
	if !known {
		o = origin{left: a.burst, at: now}
	}
	if !known && len(a.origins) >= maxAddresses {
		return
	}
	if o = a.refilled(o, now); now.Sub(o.good) >= knownFor {
		o.left += a.burst // at once more than what others there have used up
	}
	o.good = now
	a.origins[addr] = o
}

// sweepLocked forgets what decides nothing any more.
func (a *attempts) sweepLocked(now time.Time) {
	if now.Sub(a.swept) < sweepEvery {
		return
	}
	a.swept = now
	for k, o := range a.origins {
		if now.Sub(o.good) >= knownFor && a.refilled(o, now).left >= a.burst {
			delete(a.origins, k)
		}
	}
	for k, s := range a.names {
		if now.Sub(s.good) >= trustedFor && now.Sub(s.last) > strikesFor && !now.Before(s.until) {
			delete(a.names, k)
		}
	}
}
