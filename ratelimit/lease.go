package ratelimit

import (
	"errors"
	"math"
	"time"
)

const (
	// KeyBytes is the length of what names a bucket between nodes, before it is in base64.
	KeyBytes = 16
	// maxAccounts bounds the buckets that an owner keeps books on.
	maxAccounts = 1 << 18
	// drift is how much faster the clock of one node may run than that of another.
	drift = 1.02
)

// ErrAsk says that an ask of another node cannot be meant.
var ErrAsk = errors.New("ratelimit: ask is out of range")

// Ask is what a node tells the owner of one bucket. The arrays have messages, then bytes;
// times are of the whole rate: a second is what the limit admits in a second.
type Ask struct {
	Key    string                    `json:"k"`
	Burst  time.Duration             `json:"burst"`
	Demand [dimensions]float64       `json:"demand"`         // what was asked for lately, of the whole rate, at most 1
	Short  [dimensions]time.Duration `json:"short"`          // what was refused since the last ask
	Holds  [dimensions]float64       `json:"holds"`          // share of the lease in force
	Extra  [dimensions]time.Duration `json:"extra"`          // what is left of tokens given
	Gone   bool                      `json:"gone,omitempty"` // the lease is given back
}

// Check refuses what no node can mean.
//
// Errors: ErrAsk.
func (a *Ask) Check() error {
	share := func(f float64) bool { return f >= 0 && f <= 1 } // not NaN
	good := len(a.Key) == (KeyBytes*8+5)/6 && a.Burst >= 0 && a.Burst <= maxTicks/ticksPerNano
	for d := range dimensions {
		good = good && share(a.Demand[d]) && share(a.Holds[d]) && a.Short[d] >= 0 && a.Short[d] <= a.Burst && a.Extra[d] >= 0 && a.Extra[d] <= a.Burst
	}
	if !good {
		return ErrAsk
	}
	return nil
}

// Lease is a share of a rate, and tokens beyond it, for LeaseTime.
type Lease struct {
	Key   string                    `json:"k"`
	Share [dimensions]float64       `json:"share"`
	Extra [dimensions]time.Duration `json:"extra"`
}

// Check refuses a lease that no owner can mean.
//
// Errors: ErrAsk.
func (l *Lease) Check() error {
	a := Ask{Key: l.Key, Burst: maxTicks / ticksPerNano, Holds: l.Share, Extra: l.Extra}
	return a.Check()
}

// Ledger is the books of the owner of all buckets, for one term. Shares of a rate that are
// in force never add up to more than 1 by it, and tokens to no more than the burst; a lease
// that may still be in force somewhere counts, whether it arrived or not. Times are
// nanoseconds of the owner's monotonic clock. Not safe for concurrent use.
type Ledger struct {
	nodes    int
	safe     int64
	accounts map[string]*account
}

// account is one bucket of the cluster.
type account struct {
	burst   int64
	pool    [dimensions]float64 // tokens that nobody has, in nanoseconds of the whole rate
	at      int64               // pool is as of then
	holders map[string]*holder
}

// holder is what one node may have of a bucket, at most.
type holder struct {
	share  [dimensions]float64
	extra  [dimensions]float64
	demand [dimensions]float64
	until  int64
}

// NewLedger opens the books of a term over so many nodes. Before safe, leases of the owner
// before may be in force: until then a node gets no more than what it has already.
func NewLedger(nodes int, safe int64) *Ledger {
	return &Ledger{nodes: nodes, safe: safe, accounts: map[string]*account{}}
}

// Len returns how many buckets there are books on.
func (l *Ledger) Len() int { return len(l.accounts) }

// Answer books what a node tells, and gives it a lease. who names one life of a node. The ask
// must have passed Check, and a node asks again only when it has applied the last answer, or
// never will. false: there is no lease.
func (l *Ledger) Answer(who string, a *Ask, now int64) (Lease, bool) {
	acc := l.accounts[a.Key]
	if acc == nil {
		if len(l.accounts) >= maxAccounts || a.Gone {
			return Lease{}, false
		}
		acc = l.open(a, now)
	}
	l.settle(acc, max(now, l.safe))
	acc.expire(now)
	if a.Gone || int64(a.Burst) != acc.burst {
		delete(acc.holders, who)
		return Lease{}, false
	}
	h := l.hear(acc, who, a, now)
	out := Lease{Key: a.Key}
	for d := range dimensions {
		others := 0.0
		for name, o := range acc.holders {
			if name != who {
				others += o.share[d]
			}
		}
		free := max(0, 1-others)
		if now < l.safe {
			out.Share[d] = min(h.share[d], free)
			continue
		}
		out.Share[d] = min(acc.target(h, d, l.room(acc, d)), free)
		// The answer may be lost: until the next ask, what it has counts too.
		h.share[d] = max(h.share[d], out.Share[d])
		given := math.Floor(min(acc.pool[d], float64(a.Short[d])))
		acc.pool[d] -= given
		h.extra[d] += given
		out.Extra[d] = time.Duration(given)
	}
	return out, true
}

// open begins the books on a bucket that no node has asked for in this term: since the term
// was safe all nodes were at their floors, so the pool has filled at the whole rate.
func (l *Ledger) open(a *Ask, now int64) *account {
	acc := &account{burst: int64(a.Burst), at: max(now, l.safe), holders: map[string]*holder{}}
	for d := range dimensions {
		acc.pool[d] = min(float64(max(0, now-l.safe)), l.poolOf(acc))
	}
	l.accounts[a.Key] = acc
	return acc
}

// poolOf is the part of the burst that is not the nodes' own.
func (l *Ledger) poolOf(acc *account) float64 {
	return float64(acc.burst - int64(l.nodes)*coldBurst(acc.burst, l.nodes))
}

// room is how much the pool can still take.
func (l *Ledger) room(acc *account, d int) float64 {
	most := l.poolOf(acc)
	for _, h := range acc.holders {
		most -= h.extra[d]
	}
	return most - acc.pool[d]
}

// settle fills the pool with what nobody had of the rate.
func (l *Ledger) settle(acc *account, now int64) {
	if now <= acc.at {
		return
	}
	for d := range dimensions {
		minted := float64(now - acc.at)
		for _, h := range acc.holders {
			minted -= h.share[d] * float64(max(0, min(now, h.until)-acc.at))
		}
		acc.pool[d] += max(0, minted)
		acc.pool[d] = max(0, acc.pool[d]+min(0, l.room(acc, d)))
	}
	acc.at = now
}

func (acc *account) expire(now int64) {
	for name, h := range acc.holders {
		if now > h.until {
			delete(acc.holders, name)
		}
	}
}

// hear books what a node says that it has: no more than it was given, if this term knows it.
func (l *Ledger) hear(acc *account, who string, a *Ask, now int64) *holder {
	h := acc.holders[who]
	if h == nil {
		h = &holder{}
		if now < l.safe { // a lease of the term before
			for d := range dimensions {
				h.share[d], h.extra[d] = a.Holds[d], min(float64(a.Extra[d]), max(0, l.room(acc, d)))
			}
		}
		acc.holders[who] = h
	}
	for d := range dimensions {
		h.share[d] = min(h.share[d], a.Holds[d])
		h.extra[d] = min(h.extra[d], float64(a.Extra[d]))
		h.demand[d] = a.Demand[d]
	}
	h.until = now + int64(drift*float64(LeaseTime))
	return h
}

// target is the share that a node should have: its demand and an even part of what nobody
// demands, of which half is kept back while the pool is not full. Where there is more demand
// than rate, small demands are met and the rest is equal.
func (acc *account) target(h *holder, d int, room float64) float64 {
	sum := 0.0
	for _, o := range acc.holders {
		sum += o.demand[d]
	}
	if sum <= 1 {
		spare := 1 - sum
		if room > 1 {
			spare /= 2
		}
		return h.demand[d] + spare/float64(len(acc.holders))
	}
	// The level at which all demands, cut off at it, add up to 1.
	left, many := 1.0, len(acc.holders)
	level := left / float64(many)
	for range acc.holders {
		left, many = 1, len(acc.holders)
		for _, o := range acc.holders {
			if o.demand[d] < level {
				left -= o.demand[d]
				many--
			}
		}
		if many == 0 {
			break
		}
		level = left / float64(many)
	}
	return min(h.demand[d], level)
}

// Sweep forgets buckets that nobody has a lease of and whose pool is full, and returns how
// many are left.
func (l *Ledger) Sweep(now int64) int {
	if now <= l.safe {
		return len(l.accounts)
	}
	for key, acc := range l.accounts {
		l.settle(acc, now)
		acc.expire(now)
		if len(acc.holders) == 0 && l.room(acc, inMessages) <= 1 && l.room(acc, inBytes) <= 1 && now-l.safe > acc.burst {
			delete(l.accounts, key)
		}
	}
	return len(l.accounts)
}
