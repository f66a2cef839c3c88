package ratelimit

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// step is how finely the model below moves time.
const step = 10 * time.Millisecond

// world is a cluster in fake time: real tables, peers and ledgers, and a network that loses,
// delays and parts. Every step is 10 ms, so a run of a minute is 6,000 steps.
type world struct {
	rng   *rand.Rand
	limit Limit
	size  int // of a request, in bytes
	nodes []*site
	loss  float64
	slow  int // at most so many steps for one way
	apart []int
	now   int64
	taken []float64 // by step: nanoseconds of the whole rate, of the stricter dimension
	most  float64   // cost of one request
	lives int
	later []flight
}

// flight is a message on its way, or a time-out.
type flight struct {
	at int64
	do func()
}

// site is one node of it.
type site struct {
	w       *world
	i       int
	ahead   int64   // of the world's clock
	speed   float64 // of its clock
	dead    int     // steps
	frozen  int
	life    int
	table   *Table
	bucket  *Bucket
	peer    *Peer
	number  uint64
	waiting bool // for an answer
	owner   int
	next    int64 // tick of its clock at which it looks again
	load    float64
	vain    int // requests in a step that another bucket refuses
	owed    float64
	wall    int64
}

func (s *site) clock() int64 { return s.ahead + int64(float64(s.w.now)*s.speed) }

func (s *site) boot() {
	s.life++
	s.w.lives++
	s.table, s.number, s.waiting, s.owner, s.next = &Table{}, 0, false, -1, 0
	s.table.Spread(&Spread{Nodes: len(s.w.nodes), Clock: s.clock, Wake: func() { s.next = 0 }})
	s.bucket = s.table.Bucket("t/p", "r", s.w.limit)
	s.peer = NewPeer(fmt.Sprintf("n%d", s.i), fmt.Sprint(s.life), len(s.w.nodes), s.clock())
}

func newWorld(rng *rand.Rand, nodes int, l Limit, size int) *world {
	w := &world{rng: rng, limit: l, size: size, apart: make([]int, nodes), slow: 1}
	if l.Messages > 0 {
		w.most = 1e9 / l.Messages
	}
	if l.Bytes > 0 {
		w.most = max(w.most, 1e9*float64(size)/l.Bytes)
	}
	for i := range nodes {
		w.nodes = append(w.nodes, &site{w: w, i: i, ahead: rng.Int64N(1e15), speed: 1 + (rng.Float64()-0.5)*0.01})
	}
	for _, s := range w.nodes {
		s.boot()
	}
	w.lives = 0
	return w
}

// send lets do happen at the other node after a while, unless the message is lost.
func (w *world) send(from, to *site, do func()) {
	if from != to && (w.apart[from.i] != w.apart[to.i] || w.rng.Float64() < w.loss) {
		return
	}
	life, after := to.life, int64(0)
	if from != to {
		after = int64(step) * int64(1+w.rng.IntN(w.slow))
	}
	w.at(after, func() {
		if to.dead == 0 && to.life == life {
			w.thaw(to, do)
		}
	})
}

// thaw does it when the node is not frozen: its messages wait for it.
func (w *world) thaw(s *site, do func()) {
	if s.frozen > 0 {
		life := s.life
		w.at(int64(s.frozen)*int64(step), func() {
			if s.life == life {
				w.thaw(s, do)
			}
		})
		return
	}
	do()
}

func (w *world) at(after int64, do func()) { w.later = append(w.later, flight{w.now + after, do}) }

// run moves the world by one step.
func (w *world) run(t interface{ Fatalf(string, ...any) }) {
	w.now += int64(step)
	for again := true; again; { // what is due may send what is due at once
		again = false
		due := w.later
		w.later = nil
		for _, f := range due {
			if f.at <= w.now {
				f.do()
				again = true
			} else {
				w.later = append(w.later, f)
			}
		}
	}
	sum := 0.0
	for _, s := range w.nodes {
		if s.dead > 0 {
			if s.dead--; s.dead == 0 {
				s.boot()
			}
			continue
		}
		if s.frozen > 0 {
			s.frozen--
			continue
		}
		s.owed += s.load * float64(step) / w.most
		for ; s.owed >= 1; s.owed-- {
			if s.bucket.Take(s.wall+w.now, w.size).OK {
				sum += w.most
			}
		}
		for range s.vain {
			s.bucket.GiveBack(s.bucket.Take(s.wall+w.now, w.size), w.size)
		}
		s.work()
	}
	w.taken = append(w.taken, sum)
	w.invariants(t)
}

// invariants: leases in force add up to the whole rate at most, and the tokens that
// all nodes and the owner have to the burst, but for what a node begins anew with.
func (w *world) invariants(t interface{ Fatalf(string, ...any) }) {
	var shares, tokens, pool [dimensions]float64
	owners := 0
	for _, s := range w.nodes {
		if s.dead > 0 {
			continue
		}
		if s.peer.Rules(s.clock()) {
			owners++
		}
		p, now := s.bucket.part, s.clock()*ticksPerNano
		for d := range dimensions {
			f := &p.flows[d]
			tokens[d] += float64(min(p.burst, p.burst-(f.full-p.at(f, now)))) / ticksPerNano
			if now < p.until {
				shares[d] += f.share
				tokens[d] += float64(f.extra) / ticksPerNano
			}
			if s.peer.Rules(s.clock()) {
				for _, acc := range s.peer.ledger.accounts {
					pool[d] = acc.pool[d]
				}
			}
		}
	}
	if owners > 1 {
		t.Fatalf("at %v: %d nodes are the owner", time.Duration(w.now), owners)
	}
	most := float64(w.limit.Burst) + float64(w.lives)*float64(coldBurst(int64(w.limit.Burst), len(w.nodes)))
	for d := range dimensions {
		if shares[d] > 1+1e-9 {
			t.Fatalf("at %v: shares add up to %v", time.Duration(w.now), shares[d])
		}
		if tokens[d]+pool[d] > most+float64(10*step) {
			t.Fatalf("at %v: tokens of %v and a pool of %v, at most %v", time.Duration(w.now), time.Duration(tokens[d]), time.Duration(pool[d]), time.Duration(most))
		}
	}
	if floorOf(len(w.nodes))*float64(len(w.nodes)) > 0.045 {
		t.Fatalf("the floors are too high")
	}
}

// work is one look of a node at what there is to do, as package broker does it.
func (s *site) work() {
	now := s.clock()
	if now < s.next || s.waiting {
		return
	}
	s.next = now + int64(200*time.Millisecond)
	if b, ok := s.peer.NextBid(now); ok {
		s.bid(b, now)
	}
	asks, _ := s.table.Asks()
	if len(asks) == 0 {
		return
	}
	to := s.owner
	if to < 0 {
		to = s.w.rng.IntN(len(s.w.nodes))
	}
	s.ask(s.w.nodes[to], asks, now)
}

func (s *site) bid(b Bid, now int64) {
	r, open := NewRound(len(s.w.nodes), now), true
	life := s.life
	count := func() {
		if open && s.life == life {
			open = false
			s.peer.Counted(b, r, s.clock(), time.Duration(s.w.rng.Int64N(5e8)))
			s.next = 0
		}
	}
	for _, o := range s.w.nodes {
		s.w.send(s, o, func() {
			v := o.peer.Vote(b, o.clock())
			s.w.send(o, s, func() {
				if !open || b.Done {
					return
				}
				s.peer.Refused(v)
				if r.Add(v, s.clock()); r.Won() {
					count()
				}
			})
		})
	}
	if !b.Done {
		s.w.at(3e8, func() { s.w.thaw(s, count) })
	}
}

func (s *site) ask(to *site, asks []Asking, sent int64) {
	s.number++
	m := Asks{Node: fmt.Sprintf("n%d", s.i), Life: fmt.Sprint(s.life), Number: s.number}
	for i := range asks {
		m.Asks = append(m.Asks, asks[i].Ask)
	}
	life, open := s.life, true
	s.waiting = true
	done := func(owner int) {
		if open && s.life == life {
			open, s.waiting, s.owner = false, false, owner
		}
	}
	s.w.send(s, to, func() {
		a := to.peer.Answer(&m, to.clock())
		if a.Soon {
			to.next = 0
		}
		s.w.send(to, s, func() {
			if !open || s.life != life {
				return
			}
			owner := to.i
			switch {
			case a.Owner != "":
				_, _ = fmt.Sscanf(a.Owner, "n%d", &owner)
				s.next = s.clock() + 25e6
			case a.Soon:
				s.next = s.clock() + 25e6
			case a.Fault != "":
				owner = -1
			}
			for i := range a.Leases {
				if asks[i].Apply(a.Leases[i], sent+int64(LeaseTime)) {
					s.next = s.clock() + 5e7
				}
			}
			done(owner)
		})
	})
	s.w.at(3e8, func() { s.w.thaw(s, func() { done(-1) }) })
}

// check holds what was taken against the bound, over every window of 10 s or more.
func (w *world) check(t interface{ Fatalf(string, ...any) }) {
	const window = int(10 * time.Second / step)
	burst := float64(w.limit.Burst)
	// A request that is larger than a node's part of the burst passes when that is full.
	cold := burst / float64(2*len(w.nodes))
	most := burst + float64(len(w.nodes))*max(0, w.most-cold) + float64(w.lives)*max(cold, w.most) + w.most
	over, lowest := make([]float64, len(w.taken)+1), math.Inf(1)
	for i, n := range w.taken {
		over[i+1] = over[i] + n - 1.05*float64(step)
	}
	for end := window; end <= len(w.taken); end++ {
		lowest = min(lowest, over[end-window])
		if got := over[end] - lowest; got > most*(1+1e-6)+1 {
			t.Fatalf("a window that ends at %v admits %v beyond 1.05 of the rate, at most %v (limit %+v, %d starts)",
				time.Duration(end)*step, time.Duration(got), time.Duration(most), w.limit, w.lives)
		}
	}
}

// TestSpreadBound: whatever the network, the nodes and the clocks do, the nodes together admit
// no more than the burst and 1.05 of the rate.
func TestSpreadBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLimit(t)
		if l.Messages == 0 && l.Bytes == 0 {
			l.Messages = 100
		}
		l.Messages, l.Bytes = min(l.Messages, 2000), min(l.Bytes, 2e6)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		w := newWorld(rng, rapid.SampledFrom([]int{3, 5}).Draw(t, "nodes"), l, rapid.IntRange(1, 5000).Draw(t, "size"))
		w.loss = rapid.SampledFrom([]float64{0, 0, 0.05, 0.3}).Draw(t, "loss")
		w.slow = rapid.SampledFrom([]int{1, 5, 40}).Draw(t, "slow")
		for range rapid.IntRange(4, 20).Draw(t, "phases") {
			for _, s := range w.nodes {
				s.load = rapid.SampledFrom([]float64{0, 0, 0.05, 0.5, 1, 3}).Draw(t, "load")
				s.vain = rapid.SampledFrom([]int{0, 0, 0, 1, 5}).Draw(t, "in vain")
			}
			s := w.nodes[rapid.IntRange(0, len(w.nodes)-1).Draw(t, "node")]
			switch rapid.SampledFrom([]string{"", "", "kill", "freeze", "part", "mend", "wall"}).Draw(t, "fault") {
			case "kill":
				s.dead = 1 + rng.IntN(400)
			case "freeze":
				s.frozen = 1 + rng.IntN(400)
			case "part":
				w.apart[s.i] = 1 + rng.IntN(2)
			case "mend":
				clear(w.apart)
			case "wall":
				s.wall += rng.Int64N(2e13) - 1e13
			}
			for range rapid.IntRange(10, 800).Draw(t, "steps") {
				w.run(t)
			}
		}
		w.check(t)
	})
}

// over runs the world for a while and returns what was taken of the rate.
func (w *world) over(t *testing.T, d time.Duration) float64 {
	t.Helper()
	from := len(w.taken)
	for range d / step {
		w.run(t)
	}
	sum := 0.0
	for _, n := range w.taken[from:] {
		sum += n
	}
	return sum / float64(d)
}

// TestSpreadUse: where there is demand, it is met to 0.9 of the rate, wherever it is; it is followed
// within a second, and an owner that is killed is replaced.
func TestSpreadUse(t *testing.T) {
	for _, tt := range []struct {
		name  string
		limit Limit
		slack float64 // requests are dear: a window can miss one
	}{
		{"200 a second", Limit{Messages: 200, Burst: time.Second}, 0},
		{"bytes", Limit{Bytes: 1e6, Burst: 2 * time.Second}, 0},
		{"evenly spaced", Limit{Messages: 50}, 0.2}, // two flows that are not in step lose some
		{"one a second", Limit{Messages: 1, Burst: time.Second}, 0.1},
		{"ten a minute", Limit{Messages: 10.0 / 60, Burst: time.Minute}, 0.3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(rand.New(rand.NewPCG(7, 7)), 3, tt.limit, 1000)
			load := func(loads ...float64) {
				for i, s := range w.nodes {
					s.load = loads[i]
				}
			}
			enough := func(what string, got float64) {
				t.Helper()
				if got < 0.9-tt.slack || got > 1.05+tt.slack {
					t.Errorf("%s: %.3f of the rate", what, got)
				}
			}
			w.over(t, 2*time.Second)
			load(3, 3, 3)
			w.over(t, 70*time.Second) // the burst is used up
			enough("all nodes", w.over(t, 20*time.Second))
			load(3, 0, 0)
			w.over(t, time.Second)
			if tt.slack == 0 {
				enough("one node, a second after", w.over(t, time.Second))
			}
			w.over(t, 20*time.Second)
			enough("one node", w.over(t, 20*time.Second))
			load(0, 0.7, 3)
			w.over(t, time.Second)
			if tt.slack == 0 {
				enough("two others, a second after", w.over(t, time.Second))
			}
			for _, s := range w.nodes {
				if s.peer.Rules(s.clock()) {
					s.dead = 1 << 30
				}
			}
			load(3, 3, 3)
			w.over(t, 5*time.Second)
			enough("the owner is dead", w.over(t, 30*time.Second))
			w.check(t)
		})
	}
}

// TestSpreadVain: requests that another bucket refuses, such as those of a principal beyond its own
// rate against what its tenant shares, are no demand: other nodes keep what they use.
func TestSpreadVain(t *testing.T) {
	for _, l := range []Limit{{Messages: 200, Burst: time.Second}, {Bytes: 1e6, Burst: time.Second}} {
		w := newWorld(rand.New(rand.NewPCG(3, 9)), 3, l, 1000)
		w.nodes[0].load, w.nodes[0].vain = 0.05, 100
		w.nodes[2].load = 0.9
		w.over(t, 10*time.Second)
		if got := w.over(t, 20*time.Second); got < 0.9 {
			t.Errorf("%.3f of the rate of %+v passes where 0.95 is wanted", got, l)
		}
		w.check(t)
	}
}

// TestSpreadIdle: a bucket that nobody asks costs no message, after a while.
func TestSpreadIdle(t *testing.T) {
	w := newWorld(rand.New(rand.NewPCG(1, 2)), 3, Limit{Messages: 100, Burst: time.Second}, 1)
	w.nodes[0].load = 1
	w.over(t, 10*time.Second)
	w.nodes[0].load = 0
	w.over(t, 10*time.Second)
	for _, s := range w.nodes {
		if asks, again := s.table.Asks(); s.peer.Busy(s.clock()) || len(asks) > 0 || again || s.table.Held() != (Held{}) {
			t.Errorf("n%d is still busy: %+v", s.i, s.table.Held())
		}
	}
	w.nodes[2].load = 1
	if got := w.over(t, time.Second); got < 0.9 {
		t.Errorf("%.3f of the rate in the second after the rest", got)
	}
}

// TestSpreadForgets: an owner that is asked for one bucket all the time keeps no books on others.
func TestSpreadForgets(t *testing.T) {
	w := newWorld(rand.New(rand.NewPCG(1, 3)), 3, Limit{Messages: 100, Burst: time.Second}, 1)
	w.nodes[0].load = 0.5
	for i := range 50 {
		w.nodes[i%3].table.Bucket(fmt.Sprintf("t/%d", i), "r", w.limit).Take(w.now, 1)
	}
	books := func() (n int) {
		for _, s := range w.nodes {
			if s.peer.Rules(s.clock()) {
				n = s.peer.ledger.Len()
			}
		}
		return n
	}
	if w.over(t, 10*time.Second); books() < 2 {
		t.Fatalf("books on %d buckets, want those of all", books())
	}
	if w.over(t, 2*time.Minute); books() != 1 {
		t.Errorf("books on %d buckets, one is asked for", books())
	}
}
