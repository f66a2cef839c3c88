package ratelimit

import "math"

// GiveBack undoes one Take of bytes bytes that was OK: of a request that another bucket has
// refused. It is exact, whoever took in between: a take moves the arrival times by its cost,
// and GiveBack moves them back by as much. It does not allocate.
//
// For the time between the two the bucket counts the request: where the bucket is just at
// its border, another one may be refused that would have passed.
func (b *Bucket) GiveBack(bytes int) {
	var byteCost int64
	if b.byteCost > 0 && bytes > 0 {
		byteCost = clampTicks(float64(bytes) * b.byteCost)
	}
	b.mu.Lock()
	b.messages -= b.messageCost
	b.bytes -= byteCost
	b.mu.Unlock()
}

// Left returns how many messages, one after the other, and how many bytes a Take would
// admit now; -1 for what the bucket does not limit. Others may take before the caller does.
func (b *Bucket) Left(nowNanos int64) (messages, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.tickLocked(nowNanos)
	messages, bytes = -1, -1
	if b.messageCost > 0 {
		messages = max(0, (b.burst-max(0, b.messages-now))/b.messageCost)
		if b.messages <= now {
			messages = max(messages, 1) // one request larger than the burst
		}
	}
	if b.byteCost > 0 {
		bytes = int64(math.Max(0, float64(b.burst-max(0, b.bytes-now))/b.byteCost))
	}
	return messages, bytes
}
