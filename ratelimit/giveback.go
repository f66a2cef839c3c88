package ratelimit

import "math"

// GiveBack undoes one Take of bytes bytes, which was answered with d: of a request that another
// bucket has refused. It is exact, whoever took in between: a take moves the arrival times by
// its cost, and GiveBack moves them back by as much. It does not allocate.
//
// For the time between the two the bucket counts the request: where the bucket is just at
// its border, another one may be refused that would have passed.
//
// Of one node's part of a bucket it also takes back that the request was asked for, whether d is
// OK or not: a share that the other bucket keeps from being used is one that other nodes miss.
func (b *Bucket) GiveBack(d Decision, bytes int) {
	if !d.OK && b.part == nil {
		return
	}
	var byteCost int64
	if b.byteCost > 0 && bytes > 0 {
		byteCost = clampTicks(float64(bytes) * b.byteCost)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.part != nil {
		b.part.giveBackLocked(d, [dimensions]int64{b.messageCost, byteCost})
		return
	}
	b.messages -= b.messageCost
	b.bytes -= byteCost
}

// giveBackLocked undoes a take. What came of tokens given beyond the node's burst becomes
// part of that burst, which holds no more than it may: no token is made. What the owner was
// told of already stays told. The caller holds Bucket.mu.
func (p *part) giveBackLocked(d Decision, costs [dimensions]int64) {
	p.count = max(0, p.count-1)
	for i := range p.flows {
		f := &p.flows[i]
		f.asked = max(0, f.asked-costs[i])
		if d.OK {
			f.full -= costs[i]
		} else if d.Bytes == (i == inBytes) {
			f.refused = max(0, f.refused-costs[i])
		}
	}
}

// Left returns how many messages, one after the other, and how many bytes a Take would
// admit now, at this node; -1 for what the bucket does not limit. Others may take before the caller does.
func (b *Bucket) Left(nowNanos int64) (messages, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var room [dimensions]int64 // ticks
	var full bool
	if p := b.part; p != nil {
		now := p.now()
		for d := range p.flows {
			f := &p.flows[d]
			room[d] = p.burst - max(0, f.full-p.at(f, now))
			if now < p.until {
				room[d] += f.extra
			}
		}
		full = p.flows[inMessages].full <= p.at(&p.flows[inMessages], now)
	} else {
		now := b.tickLocked(nowNanos)
		room = [dimensions]int64{inMessages: b.burst - max(0, b.messages-now), inBytes: b.burst - max(0, b.bytes-now)}
		full = b.messages <= now
	}
	messages, bytes = -1, -1
	if b.messageCost > 0 {
		messages = max(0, room[inMessages]/b.messageCost)
		if full {
			messages = max(messages, 1) // one request larger than the burst
		}
	}
	if b.byteCost > 0 {
		bytes = int64(math.Max(0, float64(room[inBytes])/b.byteCost))
	}
	return messages, bytes
}
