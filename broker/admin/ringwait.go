package admin

import (
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/adminapi"
)

// Limits of the readers that wait for a newer keyring. One beyond them is answered at
// once with what there is, and asks again later.
const (
	maxRingWaiters   = 20_000 // of all callers together
	maxRingWaitsEach = maxRingWaiters / 2
)

// errWaits is what a handler returns when the answer comes later.
var errWaits = errors.New("admin: the answer comes later")

// ringWaiters are the readers that wait for a keyring newer than theirs. A waiter costs
// its message and a timer, no goroutine.
type ringWaiters struct {
	mu     sync.Mutex
	all    map[*ringWaiter]struct{}
	of     map[string]int // by principal
	closed bool
}

type ringWaiter struct {
	msg   *nats.Msg
	call  call
	timer *time.Timer
}

// add makes the request wait; false when there are too many, or none any more.
func (w *ringWaiters) add(c *call, wait time.Duration, late func(*ringWaiter)) (*ringWaiter, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.all) >= maxRingWaiters || w.of[c.Principal] >= maxRingWaitsEach {
		return nil, false
	}
	if w.all == nil {
		w.all, w.of = map[*ringWaiter]struct{}{}, map[string]int{}
	}
	x := &ringWaiter{msg: c.msg, call: *c}
	x.timer = time.AfterFunc(wait, func() {
		if w.take(x) {
			late(x)
		}
	})
	w.all[x] = struct{}{}
	w.of[c.Principal]++
	return x, true
}

// take makes the caller the one that answers x.
func (w *ringWaiters) take(x *ringWaiter) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.takeLocked(x)
}

func (w *ringWaiters) takeLocked(x *ringWaiter) bool {
	if _, ok := w.all[x]; !ok {
		return false
	}
	delete(w.all, x)
	if w.of[x.call.Principal]--; w.of[x.call.Principal] == 0 {
		delete(w.of, x.call.Principal)
	}
	x.timer.Stop()
	return true
}

// takeAll makes the caller the one that answers everybody; with last, nobody waits
// after it.
func (w *ringWaiters) takeAll(last bool) []*ringWaiter {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = w.closed || last
	out := make([]*ringWaiter, 0, len(w.all))
	for x := range w.all {
		if w.takeLocked(x) {
			out = append(out, x)
		}
	}
	return out
}

// awaitRing makes the request wait for a keyring that is newer than the one that the
// caller has; false when it is to be answered now.
func awaitRing(s *Service, r *request, q *adminapi.KeysRingRequest) bool {
	if r.msg == nil || q.WaitMs <= 0 || ringNewer(s, q.After) {
		return false
	}
	wait := time.Duration(min(q.WaitMs, adminapi.MaxRingWaitMs)) * time.Millisecond
	x, ok := s.waiting.add(&r.call, wait, func(x *ringWaiter) { s.answer(x.msg, &x.call, ringAnswer(s, &x.call), nil) })
	if !ok {
		return false
	}
	// It may have changed before the request began to wait. Whoever takes it answers.
	return !ringNewer(s, q.After) || !s.waiting.take(x)
}

func ringNewer(s *Service, than uint64) bool {
	ring, _ := s.cfg.Keyring()
	return ring.Version() > than
}

func ringAnswer(s *Service, c *call) adminapi.KeyRing {
	ring, doc := s.cfg.Keyring()
	return adminapi.KeyRing{Document: doc, Version: ring.Version(), Expires: ring.Expires(), Caller: c.Principal}
}

// RingChanged has s answer the readers that wait for a newer keyring: there is one. It
// does not wait for them.
func RingChanged(s *Service) {
	all := s.waiting.takeAll(false)
	if len(all) == 0 || s.life.Err() != nil {
		return
	}
	s.work.Go(func() {
		for _, x := range all {
			s.answer(x.msg, &x.call, ringAnswer(s, &x.call), nil)
		}
	})
}
