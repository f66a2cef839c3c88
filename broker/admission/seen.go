package admission

import (
	"crypto/sha256"
	"strings"
	"sync"
	"time"

	"github.com/signetbus/signet/broker/policy"
)

// Bounds of what Seen remembers, of all principals, of those of one tenant, and of
// one. An entry takes some 40 bytes. Where they are reached signed events are refused:
// what cannot be remembered cannot be told from a replay.
const (
	maxSeen             = 1 << 20
	maxSeenPerTenant    = maxSeen / 2
	maxSeenPerPrincipal = maxSeen / 4
)

// seenStep is how much recordedtime is dropped together.
const seenStep = 15 * time.Second

// seenLongest is how long an event stays at most, by a clock that only goes forward:
// one that was recorded as far ahead as is let in, at the start of a step.
const seenLongest = policy.ReplayFuture + seenStep + policy.ReplayPast

// Seen remembers the signed events that this node has let through on ephemeral
// subjects, which no stream deduplicates, for as long as their recordedtime would let
// them in again; and since when this process knows what it let in, for streams that
// know an event again only while it is stored or the process lasts. What it has forgotten it refuses by that time, so a clock that is
// stepped makes nothing new. It belongs to the node and outlives chains; the zero
// value is ready. Safe for concurrent use. It starts empty with the process (see
// Begin), and knows nothing of what other nodes have let through.
type Seen struct {
	mu sync.Mutex
	// Guarded by mu.
	steps   map[int64]*seenEvents // by recordedtime in units of seenStep
	count   map[string]int        // by principal, and by tenant with a trailing "/"
	total   int
	floor   time.Time // what was recorded before is not let in: it may have been before
	expires time.Time // when the oldest step is dropped; zero without one
}

type seenEvents struct {
	ids   map[seenID]struct{}
	count map[string]int // by principal
}

type seenID [16]byte

// verdict of Seen.
type seenVerdict int

const (
	seenNew seenVerdict = iota
	seenBefore
	seenFull
	seenForgotten // recorded at a time that is not remembered
)

func seenIDOf(key []byte) seenID {
	sum := sha256.Sum256(key)
	return seenID(sum[:])
}

// Begin says that the process began now: what was recorded before may have been let
// in by the process before it, and is refused. recordedtime has whole seconds, and those of
// the second that now is in are let in: no process ends and begins in one.
func (s *Seen) Begin(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.floor = now.Truncate(time.Second)
}

// missed is how long before the time from which on everything is known it was recorded; 0
// or less: it was not. What was let in before that time, and stored, may be forgotten.
func (s *Seen) missed(recorded, now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(now)
	return s.floor.Sub(recorded)
}

// look says whether id, recorded then, is known, may not be known any more, or finds
// no room. It changes nothing that counts: an event that is refused later must not be
// remembered.
func (s *Seen) look(id seenID, principal string, recorded, now time.Time) seenVerdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(now)
	return s.lookLocked(id, principal, recorded)
}

func (s *Seen) lookLocked(id seenID, principal string, recorded time.Time) seenVerdict {
	// At most seenLongest/seenStep of them: the same id may come with another time.
	for _, step := range s.steps {
		if _, ok := step.ids[id]; ok {
			return seenBefore
		}
	}
	switch {
	case recorded.Before(s.floor):
		return seenForgotten
	case s.total >= maxSeen || s.count[principal] >= maxSeenPerPrincipal || s.count[tenantShare(principal)] >= maxSeenPerTenant:
		return seenFull
	}
	return seenNew
}

// take remembers id, unless another connection was faster.
func (s *Seen) take(id seenID, principal string, recorded, now time.Time) seenVerdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(now)
	if v := s.lookLocked(id, principal, recorded); v != seenNew {
		return v
	}
	if s.steps == nil {
		s.steps, s.count = make(map[int64]*seenEvents), make(map[string]int)
	}
	at := stepOf(recorded)
	step := s.steps[at]
	if step == nil {
		step = &seenEvents{ids: make(map[seenID]struct{}), count: make(map[string]int)}
		s.steps[at] = step
		if gone := stepEnd(at).Add(policy.ReplayPast); s.expires.IsZero() || gone.Before(s.expires) {
			s.expires = gone
		}
	}
	step.ids[id] = struct{}{}
	step.count[principal]++
	s.countLocked(principal, 1)
	return seenNew
}

// Sweep frees what is too old to matter, where no event comes that would.
func (s *Seen) Sweep(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(now)
}

// dropLocked forgets the steps whose events are all too old to be let in, and remembers
// up to when: a clock that goes back does not let them in again.
func (s *Seen) dropLocked(now time.Time) {
	if s.expires.IsZero() || now.Before(s.expires) {
		return
	}
	s.expires = time.Time{}
	for at, step := range s.steps {
		end := stepEnd(at)
		if gone := end.Add(policy.ReplayPast); now.Before(gone) {
			if s.expires.IsZero() || gone.Before(s.expires) {
				s.expires = gone
			}
			continue
		}
		delete(s.steps, at)
		for principal, n := range step.count {
			s.countLocked(principal, -n)
		}
		if end.After(s.floor) {
			s.floor = end
		}
	}
}

func (s *Seen) countLocked(principal string, n int) {
	s.total += n
	for _, who := range [...]string{principal, tenantShare(principal)} {
		if s.count[who] += n; s.count[who] == 0 {
			delete(s.count, who)
		}
	}
}

// tenantShare is "shop/" of shop/checkout: no principal has that name.
func tenantShare(principal string) string {
	return principal[:strings.IndexByte(principal, '/')+1]
}

func stepOf(t time.Time) int64 { return t.Unix() / int64(seenStep/time.Second) }

func stepEnd(step int64) time.Time {
	return time.Unix((step+1)*int64(seenStep/time.Second), 0)
}
