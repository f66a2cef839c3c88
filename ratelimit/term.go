package ratelimit

import "time"

// PromiseTime is how long a node that gave its vote gives it to nobody else. An owner that
// does not hear from a majority for that long is none any more.
const PromiseTime = time.Second

// longAgo is longer than it takes any pool to fill.
const longAgo = 24 * time.Hour

// Bid asks a node for its vote: who wants to be, or to stay, the owner of all buckets. The
// same bid again renews the vote.
type Bid struct {
	Node string `json:"node"`
	Life string `json:"life"` // of the process: one that starts anew is another
	Term uint64 `json:"term"` // higher than all before
	// Done: the owner gives the vote back, and says that no lease is in force and all pools are full.
	Done bool `json:"done,omitempty"`
}

// Vote answers a Bid.
type Vote struct {
	Yes  bool   `json:"yes,omitempty"`
	Term uint64 `json:"term"`         // the highest that the node has voted in
	To   string `json:"to,omitempty"` // who has its vote now; empty: nobody
	// Since is, with Yes, how long ago it last voted in another term, at least.
	Since time.Duration `json:"since,omitempty"`
}

// Voter is one node's vote. A majority makes an owner, and only one at a time: each votes for
// one at a time, for PromiseTime by its own monotonic clock. Nothing of it is on disk, so
// a node that starts votes for nobody until what it may have promised before is over.
// Not safe for concurrent use.
type Voter struct {
	bid   Bid
	at    int64 // of the last vote, or the start
	other int64 // of the last vote in another term, at the latest
	start int64
}

// NewVoter returns the vote of a node that starts now, in nanoseconds of its monotonic clock.
func NewVoter(now int64) *Voter { return &Voter{at: now, other: now, start: now} }

// Vote answers a bid.
func (v *Voter) Vote(b Bid, now int64) Vote {
	if now-v.start < int64(PromiseTime) {
		return Vote{Term: v.bid.Term}
	}
	done := b.Done
	b.Done = false
	if done {
		if b == v.bid {
			v.at = now - int64(longAgo)
		}
		return Vote{Term: v.bid.Term}
	}
	if b != v.bid {
		if to := v.To(now); to != "" {
			return Vote{Term: v.bid.Term, To: to}
		}
		if b.Term <= v.bid.Term {
			return Vote{Term: v.bid.Term}
		}
		v.other, v.bid = v.at, b
	}
	v.at = now
	return Vote{Yes: true, Term: b.Term, To: b.Node, Since: time.Duration(now - v.other)}
}

// To returns who has the vote now; empty: nobody.
func (v *Voter) To(now int64) string {
	if v.bid.Node != "" && now-v.at < int64(PromiseTime) {
		return v.bid.Node
	}
	return ""
}

// Term returns the highest term that the node has voted in.
func (v *Voter) Term() uint64 { return v.bid.Term }

// Rule is an owner's right to give leases. The zero value is none.
type Rule struct {
	Bid   Bid
	Until int64 // nanosecond of the owner's monotonic clock
	Safe  int64 // from then on no lease of an owner before is in force
}

// Holds says whether leases may be given now.
func (r *Rule) Holds(now int64) bool { return now < r.Until }

// Round counts the votes for one bid.
type Round struct {
	need, yes int
	sent      int64
	safe      int64
}

// NewRound begins to count among so many nodes, this one included, for a bid that is sent now or
// later.
func NewRound(nodes int, now int64) *Round { return &Round{need: nodes/2 + 1, sent: now} }

// Add counts a vote that came now.
//
// Whoever ruled before had the vote of one of this majority, last at Since before now or earlier:
// its right ended PromiseTime after that, and its leases LeaseTime later.
func (r *Round) Add(v Vote, now int64) {
	if v.Yes {
		r.yes++
		r.safe = max(r.safe, now-int64(v.Since)+int64(drift*float64(PromiseTime+LeaseTime)))
	}
}

// Won says whether there is a majority.
func (r *Round) Won() bool { return r.yes >= r.need }

// Rule returns the right that the round gives, less what clocks may differ. One that still stood
// when it was renewed keeps its Safe.
func (r *Round) Rule(b Bid, before Rule) Rule {
	if !r.Won() {
		return before
	}
	out := Rule{Bid: b, Until: r.sent + int64(float64(PromiseTime)*(2-drift)), Safe: r.safe}
	if before.Bid == b && before.Holds(r.sent) {
		out.Safe = before.Safe
	}
	return out
}
