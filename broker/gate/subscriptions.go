package gate

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/signetbus/signet/internal/wire"
)

// subscription is one live SUB of a client.
type subscription struct {
	sid     string
	subject string // as the client wrote it
	queue   string
	inbox   bool // subject is in the inbox space

	// The rest is guarded by subscriptions.mu.
	seen     int // frames delivered by the server
	injected int // frames delivered by the gate; the server does not count them
	max      int // 0: no limit
}

// subscriptions mirrors the server's table of one connection, so that refusals can
// be delivered to the right sid and limits be counted. Safe for concurrent use.
type subscriptions struct {
	open    *atomic.Int64 // the sum over all connections; changes with bySID
	of      *usage        // of the principal, which counts them too; set before the first
	mu      sync.Mutex
	bySID   map[string]*subscription
	literal map[string][]*subscription // inboxes without a wildcard, by subject
	wild    []*subscription            // inboxes with one
	last    *subscription              // of the last delivered frame
}

// add stores s unless its sid is taken: then the first one stays, as on the server.
func (t *subscriptions) add(s *subscription) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.bySID[s.sid]; ok {
		return false
	}
	if t.bySID == nil {
		t.bySID = make(map[string]*subscription)
	}
	t.bySID[s.sid] = s
	t.countLocked(1)
	switch {
	case !s.inbox:
	case wire.CheckRawSubject(s.subject, false) != nil:
		t.wild = append(t.wild, s)
	default:
		if t.literal == nil {
			t.literal = make(map[string][]*subscription)
		}
		t.literal[s.subject] = append(t.literal[s.subject], s)
	}
	return true
}

func (t *subscriptions) countLocked(n int64) {
	t.open.Add(n)
	if t.of != nil {
		t.of.subscriptions.Add(n)
	}
}

// count returns how many are live.
func (t *subscriptions) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.bySID)
}

// has reports whether the sid is live.
func (t *subscriptions) has(sid []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.bySID[string(sid)]
	return ok
}

// filter returns what sid listens on, as the client wrote it; ok is false if it is none of
// the inboxes.
func (t *subscriptions) filter(sid []byte) (filter string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.bySID[string(sid)]
	if s == nil || !s.inbox {
		return "", false
	}
	return s.subject, true
}

// list returns the live ones, in no order.
func (t *subscriptions) list() []*subscription {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*subscription, 0, len(t.bySID))
	for _, s := range t.bySID {
		out = append(out, s)
	}
	return out
}

// limit sets the number of frames after which sid ends, 0 for at once. It returns
// the limit to forward, which leaves out what the gate delivered itself (the server
// does not count that); 0 means that the subscription is gone. live is false if
// there is no such subscription.
func (t *subscriptions) limit(sid []byte, limit int) (forward int, live bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.bySID[string(sid)]
	if s == nil {
		return 0, false
	}
	if limit == 0 || s.seen+s.injected >= limit {
		t.dropLocked(s)
		return 0, true
	}
	s.max = limit
	return limit - s.injected, true
}

// drop removes a subscription.
func (t *subscriptions) drop(s *subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropLocked(s)
}

// delivered counts one frame from the server to sid.
func (t *subscriptions) delivered(sid []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.last
	if s == nil || s.sid != string(sid) {
		if s = t.bySID[string(sid)]; s == nil {
			return // unsubscribed while the frame was on its way
		}
		t.last = s
	}
	s.seen++
	if s.max > 0 && s.seen+s.injected >= s.max {
		t.dropLocked(s)
	}
}

// close empties the table at the end of the connection, after which the reader adds
// nothing. The relay and Reload may still call.
func (t *subscriptions) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.countLocked(-int64(len(t.bySID)))
	t.bySID, t.literal, t.wild, t.last = nil, nil, nil, nil
}

func (t *subscriptions) dropLocked(s *subscription) {
	if t.bySID[s.sid] != s {
		return
	}
	delete(t.bySID, s.sid)
	t.countLocked(-1)
	if t.last == s {
		t.last = nil
	}
	if !s.inbox {
		return
	}
	if same, ok := t.literal[s.subject]; ok {
		if same = without(same, s); len(same) == 0 {
			delete(t.literal, s.subject)
		} else {
			t.literal[s.subject] = same
		}
		return
	}
	t.wild = without(t.wild, s)
}

func without(list []*subscription, s *subscription) []*subscription {
	for i := range list {
		if list[i] == s {
			list[i] = list[len(list)-1]
			list[len(list)-1] = nil
			return list[:len(list)-1]
		}
	}
	return list
}

// hasInbox reports whether the client listens on this inbox (as it writes it).
func (t *subscriptions) hasInbox(subject []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.literal[string(subject)]) > 0 {
		return true
	}
	for _, s := range t.wild {
		if wire.Match(s.subject, string(subject)) {
			return true
		}
	}
	return false
}

// target is where a frame of the gate goes.
type target struct {
	sid string
	// end says that the delivery was the last one the client asked for; otherwise
	// limit > 0 is the new limit that the server must be told.
	end   bool
	limit int
}

// Bounds on what one refusal can cost.
const (
	// maxWildInboxes is how many inbox subscriptions with a wildcard a connection may
	// have. Client libraries use one or two; each is tried for every refusal.
	maxWildInboxes = 128
	// maxTargets is how many subscriptions get the same refusal.
	maxTargets = 16
)

// wildInboxes returns how many inbox subscriptions have a wildcard.
func (t *subscriptions) wildInboxes() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.wild)
}

// inject counts one frame of the gate to the inbox subject and returns its targets:
// the plain subscriptions that match and one of each queue group, maxTargets at most.
func (t *subscriptions) inject(subject []byte) []target {
	t.mu.Lock()
	defer t.mu.Unlock()
	var matches []*subscription
	add := func(s *subscription) {
		same := func(o *subscription) bool { return s.queue != "" && o.queue == s.queue }
		if len(matches) < maxTargets && !slices.ContainsFunc(matches, same) {
			matches = append(matches, s)
		}
	}
	for _, s := range t.literal[string(subject)] {
		add(s)
	}
	for _, s := range t.wild {
		if wire.Match(s.subject, string(subject)) {
			add(s)
		}
	}
	out := make([]target, 0, len(matches))
	for _, s := range matches {
		s.injected++
		to := target{sid: s.sid}
		if s.max > 0 {
			if s.seen+s.injected >= s.max {
				to.end = true
				t.dropLocked(s)
			} else {
				to.limit = s.max - s.injected
			}
		}
		out = append(out, to)
	}
	return out
}
