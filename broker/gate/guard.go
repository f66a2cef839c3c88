package gate

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/signetbus/signet/broker/jsapi"
	"github.com/signetbus/signet/internal/wire"
)

// guard judges one request to the JetStream API, an ack or a flow control answer.
func (b *batch) guard(cmd *command) error {
	if err := b.headers.Parse(cmd.header); err != nil {
		b.refuse(cmd, wire.Refuse(wire.CodeHeaderMalformed, "read-guard", strings.TrimPrefix(err.Error(), "wire: ")))
		return nil
	}
	tenant := b.principal.Tenant.Name
	req := jsapi.Request{
		Principal: b.principal, Session: b.box.token,
		Subject: string(cmd.subject), Reply: string(cmd.reply),
		Header: &b.headers, Body: cmd.payload, MapInbox: b.mapper,
	}
	v := b.gate.deps.Guard.Judge(&req, func(stream, consumer string) (string, bool, bool) {
		owner, ok := b.gate.owners.get(ownerKey{tenant, stream, consumer}, b.now)
		return owner, ok, ok
	})
	if v.Action == jsapi.NeedOwner {
		// The look-up is the only thing on this path that waits: what is accepted
		// already must not wait with it.
		if err := b.flush(); err != nil {
			return err
		}
		owner, found, refusal := b.lookupOwner(ownerKey{tenant, v.Stream, v.Consumer})
		b.begin()
		if refusal != nil {
			b.refuseAPI(cmd, refusal, v.APIType, v.Status)
			return nil
		}
		v = b.gate.deps.Guard.Judge(&req, func(string, string) (string, bool, bool) { return owner, found, true })
	}
	switch {
	case v.Action != jsapi.Forward:
		r := v.Refusal
		if r == nil {
			r = wire.Refuse(wire.CodeInternal, "read-guard", "")
		}
		b.refuseAPI(cmd, r, v.APIType, v.Status)
		return nil
	case v.Effect != jsapi.EffectNone:
		b.gate.owners.forget(ownerKey{tenant, v.Stream, v.Consumer}, b.now)
	}
	if len(v.Header) > 0 {
		b.frame = wire.AppendHPub(b.frame[:0], []byte(v.Subject), []byte(v.Reply), v.Header, v.Body)
	} else {
		b.frame = wire.AppendPub(b.frame[:0], []byte(v.Subject), []byte(v.Reply), v.Body)
	}
	b.admission.Frame(b.frame)
	b.messages++
	b.ok()
	return nil
}

// lookupOwner asks who owns a consumer and remembers a positive answer.
func (b *batch) lookupOwner(k ownerKey) (owner string, found bool, refusal *wire.Refusal) {
	ctx, cancel := context.WithTimeout(b.life, b.gate.cfg.Timeouts.Owner)
	defer cancel()
	began := time.Now()
	owner, found, err := b.gate.deps.Owners.ConsumerOwner(ctx, k.tenant, k.stream, k.consumer)
	if err != nil {
		return "", false, wire.Refuse(wire.CodeUnavailable, "read-guard", "the owner of the consumer is not known now")
	}
	if found {
		b.gate.owners.put(k, owner, began)
	}
	return owner, found, nil
}

// ownerKey names a consumer.
type ownerKey struct{ tenant, stream, consumer string }

const (
	// ownerTTL bounds how long another node's change can go unseen.
	ownerTTL = time.Minute
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

// put remembers an answer to a question that was asked at began.
func (o *ownerCache) put(k ownerKey, owner string, began time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e, _ := o.findLocked(k)
	if e.changed.After(began) {
		return // the answer may be older than the change
	}
	ttl := ownerTTL
	if began.Sub(e.changed) < ownerUnsettled {
		ttl = ownerBrief
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
