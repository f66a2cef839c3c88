package admission

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/signetbus/signet/broker/policy"
)

// seenWindow is how long a signed event that is not stored is remembered: as long as
// its recordedtime would let it in again.
const seenWindow = policy.ReplayPast + policy.ReplayFuture

// Bounds of what Seen remembers in two windows, of all principals and of one. An
// entry takes some 40 bytes. Where they are reached signed events are refused: what
// cannot be remembered cannot be told from a replay.
const (
	maxSeen             = 1 << 20
	maxSeenPerPrincipal = maxSeen / 4
)

// Seen remembers the signed events that this node has let through on ephemeral
// subjects, which no stream deduplicates. It belongs to the node and outlives
// chains; the zero value is ready. Safe for concurrent use. It starts empty with the
// process, and knows nothing of what other nodes have let through.
type Seen struct {
	mu sync.Mutex
	// Guarded by mu. Two generations: the older one is dropped once everything in it
	// is older than seenWindow.
	young, old generation
	turned     time.Time // when young became that
}

type generation struct {
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
)

func seenIDOf(key []byte) seenID {
	sum := sha256.Sum256(key)
	return seenID(sum[:])
}

// look says whether id is known or there is no room for it. It changes nothing that
// counts: an event that is refused later must not be remembered.
func (s *Seen) look(id seenID, principal string, now time.Time) seenVerdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turnLocked(now)
	return s.lookLocked(id, principal)
}

func (s *Seen) lookLocked(id seenID, principal string) seenVerdict {
	if _, ok := s.young.ids[id]; ok {
		return seenBefore
	}
	if _, ok := s.old.ids[id]; ok {
		return seenBefore
	}
	if len(s.young.ids)+len(s.old.ids) >= maxSeen || s.young.count[principal]+s.old.count[principal] >= maxSeenPerPrincipal {
		return seenFull
	}
	return seenNew
}

// take remembers id, unless another connection was faster.
func (s *Seen) take(id seenID, principal string, now time.Time) seenVerdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turnLocked(now)
	v := s.lookLocked(id, principal)
	if v != seenNew {
		return v
	}
	if s.young.ids == nil {
		s.young = generation{ids: make(map[seenID]struct{}), count: make(map[string]int)}
	}
	s.young.ids[id] = struct{}{}
	s.young.count[principal]++
	return seenNew
}

// Sweep frees what is too old to matter, where no event comes that would.
func (s *Seen) Sweep(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turnLocked(now)
}

// turnLocked starts a generation every seenWindow, so each entry stays for one to
// two of them. A clock that goes back only makes entries stay longer.
func (s *Seen) turnLocked(now time.Time) {
	switch age := now.Sub(s.turned); {
	case s.turned.IsZero():
		s.turned = now
	case age >= 2*seenWindow:
		s.young, s.old, s.turned = generation{}, generation{}, now
	case age >= seenWindow:
		s.old, s.young, s.turned = s.young, generation{}, now
	}
}
