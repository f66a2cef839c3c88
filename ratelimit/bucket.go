package ratelimit

import (
	"math"
	"sync"
	"time"
)

// Mode says what happens to a request that is over the limit.
type Mode uint8

const (
	// Reject answers at once with the time after which a retry passes. It is the default.
	Reject Mode = iota
	// Wait lets the gate hold the request for a short time (at most 250 ms) before it rejects.
	Wait
)

// String returns the word that the policy uses.
func (m Mode) String() string {
	if m == Wait {
		return "wait"
	}
	return "reject"
}

// Limit is one rate limit. It is comparable: equal limits share a bucket over a
// policy reload.
type Limit struct {
	Name     string
	Messages float64 // messages per second; 0 is unlimited
	Bytes    float64 // bytes per second; 0 is unlimited

	// Burst is how much of the rate may be taken at once after a pause: Messages
	// x Burst messages and Bytes x Burst bytes. A single request larger than that
	// passes only when the bucket is full, and is then paid off at the rate; so a
	// zero Burst means one request at a time, evenly spaced.
	Burst  time.Duration
	Exceed Mode
}

// Decision is the answer of Take.
type Decision struct {
	OK         bool
	RetryAfter time.Duration // when OK is false: after this long the same request passes, if nobody else takes before
	Bytes      bool          // when OK is false: the byte limit is the one that decided, not the message limit
}

// Time inside a bucket is counted in sixteenths of a nanosecond since the first
// Take, so that rounding a cost up to a whole tick stays negligible at any rate;
// an int64 holds 18 years of them.
const (
	ticksPerNano = 16
	maxTicks     = 1 << 58 // about 208 days: clamp of one cost and of the burst
	// clockStep is the smallest move backwards that is taken for a stepped clock;
	// less is the normal disagreement between connections that read the time early.
	clockStep = int64(time.Second) * ticksPerNano
)

// Bucket is a token bucket kept as two theoretical arrival times (GCRA): one for
// messages, one for bytes. A request takes from both or from none, which is why
// the state stands under one mutex (held for a few nanoseconds) and not in two
// atomics: a refund after a failed second half could lose somebody else's take.
//
// Over any window of length t it admits at most Burst x rate + t x rate, or, if
// that is more, one request larger than Burst x rate and what the rate allows beside it.
type Bucket struct {
	limit       Limit
	burst       int64
	messageCost int64   // ticks per message, 0 is unlimited
	byteCost    float64 // ticks per byte, 0 is unlimited
	part        *part   // nil: the bucket is whole, not one node's part of it

	mu       sync.Mutex
	started  bool
	base     int64 // caller's nanoseconds at tick 0
	last     int64 // latest tick seen
	messages int64 // tick at which the message bucket is full again
	bytes    int64 // tick at which the byte bucket is full again
}

// NewBucket returns a full bucket. A negative or NaN rate limits to nothing
// sensible and is treated as unlimited; policy refuses such rates.
func NewBucket(l Limit) *Bucket {
	b := &Bucket{limit: l}
	if l.Burst > 0 {
		b.burst = clampTicks(float64(l.Burst) * ticksPerNano)
	}
	if l.Messages > 0 {
		b.messageCost = clampTicks(float64(time.Second) * ticksPerNano / l.Messages)
	}
	if l.Bytes > 0 {
		b.byteCost = float64(time.Second) * ticksPerNano / l.Bytes
	}
	return b
}

// clampTicks rounds up, so that a bucket never admits more than its rate.
func clampTicks(f float64) int64 {
	return int64(math.Min(math.Ceil(f), maxTicks))
}

// Limit returns the limit that the bucket was made with.
func (b *Bucket) Limit() Limit { return b.limit }

// Take takes one message and bytes bytes, or nothing. nowNanos is the caller's
// clock in nanoseconds, from any fixed origin. A clock that runs back by less than a second
// is held at the latest time seen; a larger step back moves the bucket with it,
// so that a corrected wall clock never blocks a principal. It does not allocate.
//
// The bucket of a table that is spread (Table.Spread) goes by the clock of that instead, which
// it reads once in a millisecond of nowNanos. It admits by the share of this node, and RetryAfter is an
// estimate: shares move.
func (b *Bucket) Take(nowNanos int64, bytes int) Decision {
	if b.part != nil {
		return b.takePart(nowNanos, bytes)
	}
	var byteCost int64
	if b.byteCost > 0 && bytes > 0 {
		byteCost = clampTicks(float64(bytes) * b.byteCost)
	}
	b.mu.Lock()
	now := b.tickLocked(nowNanos)
	messagesAt, messageWait := b.next(b.messages, now, b.messageCost)
	bytesAt, byteWait := b.next(b.bytes, now, byteCost)
	if messageWait <= 0 && byteWait <= 0 {
		b.messages, b.bytes = messagesAt, bytesAt
		b.mu.Unlock()
		return Decision{OK: true}
	}
	b.mu.Unlock()
	d := Decision{Bytes: byteWait > messageWait}
	// Rounded up: a caller that waits exactly this long must pass.
	d.RetryAfter = time.Duration((max(messageWait, byteWait) + ticksPerNano - 1) / ticksPerNano)
	return d
}

// next returns the arrival time after a take of cost, and how many ticks are
// missing until that take is allowed (none if <= 0).
func (b *Bucket) next(at, now, cost int64) (after, wait int64) {
	if cost == 0 {
		return at, 0
	}
	after = max(at, now) + cost
	return after, after - now - max(b.burst, cost)
}

// tickLocked converts the caller's time; see Take for clocks that run back.
func (b *Bucket) tickLocked(nowNanos int64) int64 {
	if !b.started {
		b.started, b.base = true, nowNanos
	}
	now := (nowNanos - b.base) * ticksPerNano
	switch {
	case now >= b.last:
		b.last = now
	case b.last-now < clockStep:
		now = b.last
	default:
		// Keep what is owed, measured from the new present.
		b.messages -= b.last - now
		b.bytes -= b.last - now
		b.last = now
	}
	return now
}

// idle reports whether the bucket is full and was not taken from since the given
// number of nanoseconds before nowNanos.
func (b *Bucket) idle(nowNanos int64, since time.Duration) bool {
	if b.part != nil {
		return b.idlePart(since)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.started {
		return true
	}
	now := (nowNanos - b.base) * ticksPerNano
	return now-b.last >= int64(since)*ticksPerNano && b.messages <= now && b.bytes <= now
}
