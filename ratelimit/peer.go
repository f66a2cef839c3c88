package ratelimit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	// MaxAsks is how many buckets one message has at most.
	MaxAsks = 1000
	// An owner that nobody asks gives its right back after ruleIdle if no pool has to be
	// filled, and after ruleMost whatever there is.
	ruleIdle = 3 * time.Second
	ruleMost = time.Minute
	// sweepEvery is how often an owner that is asked all the time forgets what nobody asks for.
	sweepEvery = time.Minute
	// maxLives bounds the lives of nodes that an owner remembers.
	maxLives = 64
	maxName  = 64
	// maxTerm is the highest number that every JSON reader keeps exact.
	maxTerm = 1 << 53
)

// ErrMessage says that a message between nodes cannot be of one.
var ErrMessage = errors.New("ratelimit: message between nodes is malformed")

// Asks is what a node tells the owner at once, about up to MaxAsks buckets.
type Asks struct {
	Node   string `json:"node"`
	Life   string `json:"life"`
	Number uint64 `json:"number"` // higher with each message of this life
	Asks   []Ask  `json:"asks"`
}

// Leases answers Asks: with leases, or with who is asked better.
type Leases struct {
	Node   string  `json:"node"`
	Leases []Lease `json:"leases,omitempty"`
	Owner  string  `json:"owner,omitempty"` // ask this one
	Soon   bool    `json:"soon,omitempty"`  // ask again at once: this node is about to be the owner
	Fault  string  `json:"fault,omitempty"`
}

// ParseAsks reads and checks Asks.
//
// Errors: ErrMessage, ErrAsk.
func ParseAsks(data []byte) (*Asks, error) {
	var m Asks
	if err := strict(data, &m); err != nil {
		return nil, err
	}
	if !named(m.Node) || !named(m.Life) || m.Number == 0 || len(m.Asks) > MaxAsks {
		return nil, ErrMessage
	}
	for i := range m.Asks {
		if err := m.Asks[i].Check(); err != nil {
			return nil, err
		}
	}
	return &m, nil
}

// ParseBid reads and checks a Bid.
//
// Errors: ErrMessage.
func ParseBid(data []byte) (Bid, error) {
	var b Bid
	if err := strict(data, &b); err != nil {
		return Bid{}, err
	}
	if !named(b.Node) || !named(b.Life) || b.Term == 0 || b.Term > maxTerm {
		return Bid{}, ErrMessage
	}
	return b, nil
}

// ParseLeases reads and checks what answers Asks.
//
// Errors: ErrMessage, ErrAsk.
func ParseLeases(data []byte) (*Leases, error) {
	var m Leases
	if err := strict(data, &m); err != nil {
		return nil, err
	}
	if !named(m.Node) || len(m.Leases) > MaxAsks || len(m.Owner) > maxName {
		return nil, ErrMessage
	}
	for i := range m.Leases {
		if err := m.Leases[i].Check(); err != nil {
			return nil, err
		}
	}
	return &m, nil
}

// ParseVote reads and checks what answers a Bid.
//
// Errors: ErrMessage.
func ParseVote(data []byte) (Vote, error) {
	var v Vote
	if err := strict(data, &v); err != nil {
		return Vote{}, err
	}
	if v.Since < 0 || v.Term > maxTerm || len(v.To) > maxName {
		return Vote{}, ErrMessage
	}
	return v, nil
}

func named(s string) bool { return s != "" && len(s) <= maxName }

func strict(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrMessage, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return ErrMessage
	}
	return nil
}

// Peer is what one node is to the others: its vote, and the books while it is the owner. Times are
// nanoseconds of the node's monotonic clock. Not safe for concurrent use.
type Peer struct {
	node, life string
	nodes      int
	voter      *Voter
	rule       Rule
	ledger     *Ledger
	numbers    map[string]uint64 // by life: of the last Asks
	asked      int64             // when somebody asked last
	wanted     bool              // somebody asks, and there is no owner
	rest       int64             // no new bid before
	tried      uint64            // highest term that is known of
	swept      int64             // when the books were swept last
}

// NewPeer returns node, in a life that starts now, among so many nodes.
func NewPeer(node, life string, nodes int, now int64) *Peer {
	return &Peer{node: node, life: life, nodes: nodes, voter: NewVoter(now)}
}

// Rules says whether the node is the owner.
func (p *Peer) Rules(now int64) bool { return p.rule.Holds(now) }

// Busy says that the node is the owner, or has to try.
func (p *Peer) Busy(now int64) bool { return p.Rules(now) || p.wanted }

// Term is the term in which the node was the owner last; 0: it never was.
func (p *Peer) Term() uint64 { return p.rule.Bid.Term }

// Vote answers a bid of another node, or of this one.
func (p *Peer) Vote(b Bid, now int64) Vote {
	v := p.voter.Vote(b, now)
	p.tried = max(p.tried, v.Term)
	return v
}

// Answer answers what a node, this one too, tells the owner. The message must have been checked.
func (p *Peer) Answer(m *Asks, now int64) Leases {
	out := Leases{Node: p.node}
	switch to := p.voter.To(now); {
	case p.rule.Holds(now):
	case to != "" && to != p.node:
		out.Owner = to
		return out
	case now < p.rest:
		out.Fault = "no majority of the nodes answers this one"
		return out
	default:
		p.wanted, out.Soon = true, true
		return out
	}
	who := m.Node + "/" + m.Life
	if m.Number <= p.numbers[who] {
		out.Fault = "this message is older than the last one"
		return out
	}
	if len(p.numbers) >= maxLives {
		clear(p.numbers)
	}
	p.numbers[who] = m.Number
	for i := range m.Asks {
		if !m.Asks[i].Gone {
			p.asked = now
		}
		if l, ok := p.ledger.Answer(who, &m.Asks[i], now); ok {
			out.Leases = append(out.Leases, l)
		}
	}
	return out
}

// NextBid returns what to ask all nodes for, this one included; false: nothing. One that is Done
// is told, and its votes are not counted.
func (p *Peer) NextBid(now int64) (Bid, bool) {
	idle := now - p.asked
	if p.rule.Holds(now) && now-p.swept >= int64(sweepEvery) {
		p.swept = now
		p.ledger.Sweep(now)
	}
	switch {
	case p.rule.Holds(now) && idle >= int64(ruleIdle) && now > p.rule.Safe && p.ledger.Sweep(now) == 0:
		b := p.rule.Bid
		p.rule.Until, b.Done = now, true
		return b, true
	case p.rule.Holds(now):
		return p.rule.Bid, idle < int64(ruleMost)
	case p.wanted && now >= p.rest:
		return Bid{Node: p.node, Life: p.life, Term: max(p.tried, p.voter.Term()) + 1}, true
	}
	return Bid{}, false
}

// Counted ends a round of votes on a bid. Without a majority a new bid waits, for PromiseTime and
// what is given: votes that were split must lapse, and not be split again.
func (p *Peer) Counted(b Bid, r *Round, now int64, wait time.Duration) (won bool) {
	before := p.rule
	p.rule = r.Rule(b, before)
	p.tried = max(p.tried, b.Term)
	p.wanted = false
	if !r.Won() {
		if before.Bid != b {
			p.rest = now + int64(PromiseTime+wait)
		}
		return false
	}
	if before.Bid != b {
		p.ledger, p.numbers, p.asked = NewLedger(p.nodes, p.rule.Safe), map[string]uint64{}, now
	}
	return true
}

// Refused takes note of a vote that was not given.
func (p *Peer) Refused(v Vote) { p.tried = max(p.tried, v.Term) }
