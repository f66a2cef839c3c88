package gate

import (
	"context"
	"sync"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// ownerKey names a consumer.
type ownerKey struct{ tenant, stream, consumer string }

const (
	// ownerUnsettled is how long after a create or delete was forwarded an answer
	// may still be from before it; such an answer is kept for ownerBrief only.
	ownerUnsettled = 5 * time.Second
	ownerBrief     = time.Second
	// ownerCacheSize is the number of consumers in one generation.
	ownerCacheSize = 1 << 15
)

// ownerCache remembers who owns a consumer, for all connections: an ack must not
// cost a look-up. It keeps positive answers only, and forgets a consumer when a
// request that may create or delete it passes. Two generations bound its size.
// Safe for concurrent use.
type ownerCache struct {
	source  Owners
	timeout time.Duration // for one question to source
	ttl     time.Duration // bounds how long another node's change can go unseen

	mu       sync.Mutex
	now, old map[ownerKey]ownerEntry
}

type ownerEntry struct {
	owner   string // empty with a changed time: nothing is known
	expires time.Time
	changed time.Time // a create or delete was forwarded
}

func (o *ownerCache) get(k ownerKey, now time.Time) (owner string, known bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e, ok := o.findLocked(k)
	if !ok || !now.Before(e.expires) {
		return "", false
	}
	return e.owner, true
}

// ask asks the source, and remembers a positive answer.
func (o *ownerCache) ask(ctx context.Context, k ownerKey) (owner string, found bool, refusal *wire.Refusal) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	began := time.Now()
	owner, found, err := o.source.ConsumerOwner(ctx, k.tenant, k.stream, k.consumer)
	if err != nil {
		return "", false, wire.Refuse(wire.CodeUnavailable, "read-guard", "the owner of the consumer is not known now")
	}
	if found {
		o.put(k, owner, began)
	}
	return owner, found, nil
}

// put remembers an answer to a question that was asked at began.
func (o *ownerCache) put(k ownerKey, owner string, began time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e, _ := o.findLocked(k)
	if e.changed.After(began) {
		return // the answer may be older than the change
	}
	ttl := o.ttl
	if began.Sub(e.changed) < ownerUnsettled {
		ttl = min(ttl, ownerBrief)
	}
	o.storeLocked(k, ownerEntry{owner: owner, expires: began.Add(ttl), changed: e.changed})
}

// forget drops what is known of a consumer that is about to change.
func (o *ownerCache) forget(k ownerKey, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.storeLocked(k, ownerEntry{changed: now})
}

func (o *ownerCache) findLocked(k ownerKey) (ownerEntry, bool) {
	if e, ok := o.now[k]; ok {
		return e, true
	}
	e, ok := o.old[k]
	return e, ok
}

func (o *ownerCache) storeLocked(k ownerKey, e ownerEntry) {
	if len(o.now) >= ownerCacheSize {
		o.old, o.now = o.now, nil
	}
	if o.now == nil {
		o.now = make(map[ownerKey]ownerEntry)
	}
	o.now[k] = e
}
