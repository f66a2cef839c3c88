package ratelimit

import (
	"crypto/sha256"
	"encoding/base64"
	"math"
	"strconv"
	"time"
)

// Figures of buckets that are one over several nodes. What they promise together:
// docs/spec/limits.md.
const (
	// LeaseTime is how long a lease is good for, from the moment it was asked for.
	LeaseTime = 2 * time.Second
	// floors is what all nodes together may take of a rate without a lease.
	floors = 0.04
	// reportEvery is how often a bucket is reported at most, but for what is urgent.
	reportEvery = 150 * time.Millisecond
	// A demand beyond the whole rate is remembered up to mostDemand, so that a pause between two
	// dear requests is not taken for less of it; what is under leastDemand is none.
	mostDemand, leastDemand = 2, 0.01
	// reading is for how many nanoseconds of the caller's clock a reading of the spread's is good:
	// a wall clock that is set by less than that gives no more than that.
	reading = int64(time.Millisecond)
	// worthwhile is how much smaller a share must become for the owner to be told at once.
	worthwhile = 0.05
	// calm and settling are how long a bucket is reported after it was last asked for:
	// a full one, and one that owes something.
	calm     = 2 * time.Second
	settling = 30 * time.Second
	// A demand is measured over some requests, and over no less and no more than this.
	leastMeasure, mostMeasure = 50 * time.Millisecond, 4 * time.Second
	measured                  = 4 // requests
	// retryMost bounds what a refusal says where a greater share may come: shares move
	// within a second.
	retryMost = int64(time.Second) * ticksPerNano
)

// Dimensions of a limit.
const (
	inMessages = iota
	inBytes
	dimensions
)

// Spread says that the buckets of a Table are parts of buckets of a whole cluster.
type Spread struct {
	Nodes int // of the cluster, running or not; at least 2
	// Clock is a monotonic clock in nanoseconds, from any origin. What Take is given
	// counts for nothing then: a lease must end on time when the wall clock is set.
	Clock func() int64
	// Wake is called when a bucket begins to be asked for, and when it begins to
	// refuse. It must not block.
	Wake func()
}

// floorOf is the share of a rate that a node takes without a lease.
func floorOf(nodes int) float64 { return floors / float64(nodes) }

// coldBurst is the part of a burst that every node has by itself. The other half is with
// the owner, which gives it to whoever has the demand.
func coldBurst(burst int64, nodes int) int64 { return burst / int64(2*nodes) }

// part is what makes a Bucket one node's part of a bucket of the cluster. Its state stands
// under Bucket.mu. Costs are in ticks of the whole rate, so a share is a plain factor:
// each dimension has a clock that runs at the speed of the share, and what is owed stays
// owed when the share changes. No change of a share makes a token.
type part struct {
	spread *Spread
	key    string
	burst  int64 // ticks, of this node
	whole  int64 // ticks, of the cluster
	floor  float64

	until  int64 // tick at which the lease ends
	flows  [dimensions]flow
	hot    bool  // it is reported to the owner
	throng bool  // something was refused since the report before the last
	denied bool  // and since the last
	urgent bool  // it is reported before it is due
	readAt int64 // what Take was given as the time when the clock was read last
	read   int64 // tick that it said
	taken  int64 // tick of the last request
	told   int64 // tick of the last report
	count  int64 // requests since
}

// flow is one dimension of a part.
type flow struct {
	limited bool
	share   float64 // of the lease
	from    int64   // tick at which virtual was set
	virtual int64   // tick of the clock that runs at the speed of the share
	full    int64   // on that clock: when the bucket is full again
	extra   int64   // ticks given beyond the node's burst; void when the lease ends
	demand  float64 // of the whole rate, smoothed; at most mostDemand
	typical float64 // cost of a request
	asked   int64   // cost of all requests since the last report
	refused int64   // of those refused
}

func newPart(s *Spread, k key, l Limit, burst int64) *part {
	id := sha256.New()
	for _, s := range []string{
		k.principal, k.rule, strconv.FormatFloat(l.Messages, 'g', -1, 64), strconv.FormatFloat(l.Bytes, 'g', -1, 64), l.Burst.String(),
	} {
		id.Write([]byte(s))
		id.Write([]byte{0})
	}
	p := &part{spread: s, key: base64.RawURLEncoding.EncodeToString(id.Sum(nil)[:KeyBytes]), burst: coldBurst(burst, s.Nodes), whole: burst, floor: floorOf(s.Nodes)}
	now := p.now()
	p.until = now
	for d := range p.flows {
		p.flows[d].from, p.flows[d].limited = now, [dimensions]float64{l.Messages, l.Bytes}[d] > 0
	}
	return p
}

func (p *part) now() int64 { return p.spread.Clock() * ticksPerNano }

// speed is the share in force.
func (p *part) speed(f *flow, now int64) float64 {
	if now < p.until {
		return max(f.share, p.floor)
	}
	return p.floor
}

// at is the flow's own clock: at the speed of the lease while there is one, then of the floor.
func (p *part) at(f *flow, now int64) int64 {
	if now <= p.until {
		return f.virtual + int64(float64(max(0, now-f.from))*max(f.share, p.floor))
	}
	leased := float64(max(0, p.until-f.from)) * max(f.share, p.floor)
	return f.virtual + int64(leased+float64(now-max(p.until, f.from))*p.floor)
}

// takePart is Take for a part. nowNanos only tells how old the last reading of the clock is: a
// reading costs more than the rest.
func (b *Bucket) takePart(nowNanos int64, bytes int) Decision {
	costs := [dimensions]int64{inMessages: b.messageCost}
	if b.byteCost > 0 && bytes > 0 {
		costs[inBytes] = clampTicks(float64(bytes) * b.byteCost)
	}
	p := b.part
	b.mu.Lock()
	since := nowNanos - p.readAt
	if since <= -reading || since >= reading || p.read == 0 {
		p.readAt, p.read, since = nowNanos, p.now(), 0
	}
	decision, wake := p.takeLocked(p.read+max(0, since)*ticksPerNano, &costs)
	b.mu.Unlock()
	if wake {
		p.spread.Wake()
	}
	return decision
}

// takeLocked takes or refuses a request, and counts it as demand. The caller holds Bucket.mu.
func (p *part) takeLocked(now int64, costs *[dimensions]int64) (decision Decision, wake bool) {
	var after, fromExtra, wait [dimensions]int64
	for d := range p.flows {
		if costs[d] > 0 {
			after[d], fromExtra[d], wait[d] = p.next(&p.flows[d], now, costs[d])
		}
	}
	decision.OK = wait[inMessages] == 0 && wait[inBytes] == 0
	if wake = !p.hot; wake {
		p.hot, p.urgent, p.told = true, true, now
	}
	p.taken = now
	p.count++
	for d := range p.flows {
		if f := &p.flows[d]; costs[d] > 0 {
			f.asked = min(f.asked+costs[d], maxTicks)
			if decision.OK {
				f.full, f.extra = after[d], f.extra-fromExtra[d]
			}
		}
	}
	if decision.OK {
		return decision, wake
	}
	worse := inMessages
	if wait[inBytes] > wait[inMessages] {
		worse, decision.Bytes = inBytes, true
	}
	decision.RetryAfter = time.Duration((wait[worse] + ticksPerNano - 1) / ticksPerNano)
	p.flows[worse].refused = min(p.flows[worse].refused+costs[worse], maxTicks)
	if p.denied = true; !p.throng {
		wake, p.urgent, p.throng = true, true, true
	}
	return decision, wake
}

// next is Bucket.next for a flow: with what is taken of the extra tokens, and how long to wait, 0
// where the request passes.
func (p *part) next(f *flow, now, cost int64) (after, fromExtra, wait int64) {
	here := p.at(f, now)
	after = max(f.full, here) + cost
	over := after - here - max(p.burst, cost)
	if over <= 0 {
		return after, 0, 0
	}
	if now < p.until {
		fromExtra = min(over, f.extra)
	}
	if over -= fromExtra; over > 0 {
		wait = p.patience(over, p.speed(f, now))
	}
	return after - fromExtra, fromExtra, wait
}

// patience is what a refusal tells to wait for the missing ticks: at the share in force,
// and less where a greater share would do.
func (p *part) patience(missing int64, speed float64) int64 {
	return max(1, min(clampTicks(float64(missing)/speed), max(missing, retryMost)))
}

// report is what the owner is told of the bucket; due is false where that is nothing, and hot where it
// is idle. One that becomes idle gives its lease back with its last report.
func (b *Bucket) report() (a Ask, due, hot bool) {
	p := b.part
	now := p.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !p.hot || !p.urgent && now-p.told < int64(reportEvery)*ticksPerNano {
		return Ask{}, false, p.hot
	}
	a = Ask{Key: p.key, Burst: b.limit.Burst}
	leased, quiet := now < p.until, calm
	for d := range p.flows {
		f := &p.flows[d]
		f.measure(now-p.told, p.count)
		if f.full > p.at(f, now) {
			quiet = settling
		}
		a.Demand[d] = min(f.demand, 1)
		a.Short[d] = min(time.Duration(f.refused/ticksPerNano), b.limit.Burst)
		if leased {
			a.Holds[d], a.Extra[d] = f.share, time.Duration(f.extra/ticksPerNano)
		}
		f.asked, f.refused = 0, 0
	}
	p.told, p.count, p.throng, p.denied, p.urgent = now, 0, p.denied, false, false
	if now-p.taken > int64(quiet)*ticksPerNano {
		p.setLocked(now, now, Lease{})
		p.hot = false
		return Ask{Key: p.key, Burst: b.limit.Burst, Gone: true}, leased, false
	}
	return a, true, true
}

// measure updates the demand from what was asked in so many ticks. It forgets slowly where
// requests are few and dear, so that one a second is not taken for none or for five.
func (f *flow) measure(ticks, requests int64) {
	ticks = max(ticks, 1)
	if requests > 0 {
		f.typical = float64(f.asked) / float64(requests)
	}
	span := min(max(measured*f.typical, float64(leastMeasure*ticksPerNano)), float64(mostMeasure*ticksPerNano))
	weight := -math.Expm1(-float64(ticks) / span)
	f.demand = min(mostDemand, f.demand+weight*(float64(f.asked)/float64(ticks)-f.demand))
	if f.demand < leastDemand {
		f.demand = 0
	}
}

// apply puts a lease in force, until the given nanosecond of the spread's clock. It says
// whether a share became smaller: the owner can give the rest away when it hears of that.
func (b *Bucket) apply(l Lease, until int64) (less bool) {
	p := b.part
	now := p.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if until *= ticksPerNano; until <= now || !p.hot {
		return false
	}
	less = p.setLocked(now, until, l)
	p.urgent = p.urgent || less
	return less
}

func (p *part) setLocked(now, until int64, l Lease) (less bool) {
	for d := range p.flows {
		f := &p.flows[d]
		less = less || f.limited && now < p.until && l.Share[d] < f.share-worthwhile
		f.virtual, f.from = p.at(f, now), now
		if now >= p.until {
			f.extra = 0
		}
		f.share = l.Share[d]
		f.extra = min(f.extra+int64(l.Extra[d])*ticksPerNano, p.whole)
	}
	if p.until = until; until <= now {
		for d := range p.flows {
			p.flows[d].share, p.flows[d].extra = 0, 0
		}
	}
	return less
}

// idlePart is idle for a part.
func (b *Bucket) idlePart(since time.Duration) bool {
	p := b.part
	now := p.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.hot || now-p.taken < int64(since)*ticksPerNano {
		return false
	}
	for d := range p.flows {
		if f := &p.flows[d]; f.full > p.at(f, now) {
			return false
		}
	}
	return true
}

// held returns the greater of the two shares in force, 0 without a lease.
func (b *Bucket) held() (share float64, hot bool) {
	p := b.part
	now := p.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if now >= p.until {
		return 0, p.hot
	}
	if b.messageCost > 0 {
		share = p.flows[inMessages].share
	}
	if b.byteCost > 0 {
		share = max(share, p.flows[inBytes].share)
	}
	return share, p.hot
}
