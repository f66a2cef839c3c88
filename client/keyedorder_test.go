package client

import (
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// orderModel is a consumer at the broker, the partition that reads it, and everybody else
// who may have a delivery of it.
type orderModel struct {
	t *rapid.T
	o *keyOrder

	keys    []string       // of the event of each sequence, from 1
	next    uint64         // the first that was never delivered
	cseq    uint64         // consumer sequence of the last delivery
	pending map[uint64]int // delivered and not settled: how often
	due     map[uint64]bool
	acks    []uint64 // on their way to the broker
	zombie  bool     // somebody else may still have a pull open
	queue   []*entry
	running []*entry
	done    map[uint64]bool // handled, or a dead letter
}

func (m *orderModel) floor() uint64 {
	if len(m.pending) == 0 {
		return m.next - 1
	}
	return slices.Min(slices.Collect(maps.Keys(m.pending))) - 1
}

// deliver sends seq to the partition, to somebody else, or makes a dead letter of it.
func (m *orderModel) deliver(seq uint64, to string) {
	m.cseq++
	m.pending[seq]++
	delete(m.due, seq)
	switch to {
	case "other":
		m.due[seq] = true // its wait runs out there
		return
	case "dlq":
		delete(m.pending, seq)
		m.done[seq] = true
		return
	case "unread":
		m.due[seq] = true
		m.o.follow(m.cseq)
		m.o.unread()
		return
	}
	m.o.follow(m.cseq)
	e, again := m.o.arrive(seq, m.keys[seq], &Delivery{NumDelivered: uint64(m.pending[seq])})
	if again {
		m.acks = append(m.acks, seq)
	}
	m.push(e)
}

func (m *orderModel) push(entries ...*entry) {
	for _, e := range entries {
		if e != nil {
			m.queue = append(m.queue, e)
		}
	}
}

// begin checks what the order is for: all before it of its key is done with.
func (m *orderModel) begin() {
	e := m.queue[0]
	m.queue = m.queue[1:]
	if !m.o.begin(e) {
		return
	}
	for seq := uint64(1); seq < e.seq; seq++ {
		if m.keys[seq] == e.key && !m.done[seq] {
			m.t.Fatalf("event %d of key %s begins before %d is done with", e.seq, e.key, seq)
		}
	}
	for _, r := range m.running {
		if r.key == e.key {
			m.t.Fatalf("events %d and %d of key %s at the same time", r.seq, e.seq, e.key)
		}
	}
	m.running = append(m.running, e)
}

func (m *orderModel) finish(i int, was outcome) {
	e := m.running[i]
	m.running = slices.Delete(m.running, i, i+1)
	if was == outcomeNak {
		m.due[e.seq] = true
	} else {
		m.done[e.seq] = true
		m.acks = append(m.acks, e.seq)
	}
	m.push(m.o.finish(e, was))
}

func (m *orderModel) settle() {
	seq := m.acks[0]
	m.acks = m.acks[1:]
	delete(m.pending, seq)
	delete(m.due, seq)
}

func (m *orderModel) standing() standing {
	return standing{floor: m.floor(), delivered: m.next - 1, pending: len(m.pending), last: m.cseq}
}

func (m *orderModel) compare(between func()) {
	a := m.o.account()
	between()
	at := m.standing()
	between()
	ready, _ := m.o.compare(a, at, !m.zombie)
	m.push(ready...)
}

func newOrderModel(t *rapid.T) *orderModel {
	m := &orderModel{
		t: t, o: newKeyOrder(nil), next: 1, zombie: rapid.Bool().Draw(t, "zombie"),
		keys:    append([]string{""}, rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 20).Draw(t, "keys")...),
		pending: map[uint64]int{}, due: map[uint64]bool{}, done: map[uint64]bool{},
	}
	// The last owner was delivered some, and settled some of these.
	for range rapid.IntRange(0, len(m.keys)-1).Draw(t, "before") {
		m.deliver(m.next, "other")
		if rapid.Bool().Draw(t, "settled") {
			m.done[m.next] = true
			delete(m.pending, m.next)
			delete(m.due, m.next)
		}
		m.next++
	}
	m.o.begins(m.standing())
	return m
}

// step does one thing that can happen now, by its name; false: it cannot.
func (m *orderModel) step(what string, pick int) bool {
	due := slices.Sorted(maps.Keys(m.due))
	switch what {
	case "new", "new to another":
		if m.next >= uint64(len(m.keys)) || what == "new to another" && !m.zombie {
			return false
		}
		m.next++
		m.deliver(m.next-1, map[bool]string{true: "other", false: "here"}[what == "new to another"])
	case "new is lost", "new is unread":
		if m.next >= uint64(len(m.keys)) {
			return false
		}
		m.next++
		m.deliver(m.next-1, map[string]string{"new is lost": "other", "new is unread": "unread"}[what])
	case "again", "again to another", "dead letter", "again is lost":
		if len(due) == 0 || what == "again to another" && !m.zombie {
			return false
		}
		m.deliver(due[pick%len(due)], map[string]string{"again": "here", "again to another": "other", "again is lost": "other", "dead letter": "dlq"}[what])
	case "begin":
		if len(m.queue) == 0 {
			return false
		}
		m.begin()
	case "ack", "nak", "term":
		if len(m.running) == 0 {
			return false
		}
		m.finish(pick%len(m.running), map[string]outcome{"ack": outcomeAck, "nak": outcomeNak, "term": outcomeTerm}[what])
	case "settle":
		if len(m.acks) == 0 {
			return false
		}
		m.settle()
	case "lose": // an acknowledgement, with the connection
		if len(m.acks) == 0 {
			return false
		}
		if _, open := m.pending[m.acks[0]]; open {
			m.due[m.acks[0]] = true
		}
		m.acks = m.acks[1:]
	}
	return true
}

// TestKeyOrderModel: whatever happens between a consumer and its partition, an event
// begins only when all before it of its key is done with, and none is forgotten.
func TestKeyOrderModel(t *testing.T) {
	steps := []string{"new", "new", "new to another", "again", "again to another", "dead letter", "new is lost", "again is lost", "new is unread", "begin", "begin", "ack", "nak", "term", "settle", "lose", "compare"}
	rapid.Check(t, func(t *rapid.T) {
		m := newOrderModel(t)
		some := func() {
			for range rapid.IntRange(0, 3).Draw(t, "between") {
				what := rapid.SampledFrom(steps).Draw(t, "step")
				if what != "compare" {
					m.step(what, rapid.IntRange(0, 9).Draw(t, "pick"))
				}
			}
		}
		one := func() {
			what := rapid.SampledFrom(steps).Draw(t, "step")
			pick := rapid.IntRange(0, 9).Draw(t, "pick")
			if what != "compare" {
				m.step(what, pick)
			}
		}
		for range rapid.IntRange(0, 80).Draw(t, "steps") {
			if rapid.IntRange(0, 4).Draw(t, "compare") == 0 {
				m.compare(some)
			} else {
				one()
			}
		}
		// From here on all goes well, and everything must come to its end.
		m.zombie = false
		for range 2000 {
			moved := m.step("settle", 0) || m.step("again", 0) || m.step("new", 0) || m.step("begin", 0) || m.step("ack", 0)
			if !moved {
				m.compare(func() {})
				if len(m.done) == len(m.keys)-1 && len(m.pending) == 0 {
					return
				}
			}
		}
		t.Fatalf("stuck: %d of %d done, pending %v, due %v, queued %d, running %d, barrier %v",
			len(m.done), len(m.keys)-1, m.pending, m.due, len(m.queue), len(m.running), m.o.barrier)
	})
}

// TestKeyOrderStrict: while somebody else may have an event, one that this process put
// back does not stand for it, though the numbers are equal.
func TestKeyOrderStrict(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &orderModel{
			t: t, o: newKeyOrder(nil), next: 1, zombie: true, keys: []string{"", "a", "b", "b"},
			pending: map[uint64]int{}, due: map[uint64]bool{}, done: map[uint64]bool{},
		}
		m.o.begins(m.standing())
		for _, what := range []string{"new", "begin", "nak", "new to another"} {
			m.step(what, 0)
		}
		m.deliver(1, "dlq")
		m.step("new", 0)
		m.compare(func() {})
		for m.step("begin", 0) { // fails if the third begins before the second
		}
		if len(m.running) > 0 || !m.o.barrier {
			t.Fatal("the barrier is gone")
		}
	})
}

// TestKeyOrderLost: a delivery that was lost on the way is told from one that was put back and
// became a dead letter, though the numbers of events are equal.
func TestKeyOrderLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for _, lost := range []bool{true, false} {
			m := &orderModel{
				t: t, o: newKeyOrder(nil), next: 1, keys: []string{"", "x", "a", "a"},
				pending: map[uint64]int{}, due: map[uint64]bool{}, done: map[uint64]bool{},
			}
			m.o.begins(m.standing())
			for _, what := range []string{"new", "begin", "nak"} {
				m.step(what, 0)
			}
			if lost {
				m.step("new is lost", 0)
			} else {
				m.step("new", 0)
				m.step("begin", 0)
				m.step("nak", 0) // it is away, and may be for long
			}
			m.deliver(1, "dlq")
			m.step("new", 0)
			m.compare(func() {})
			for m.step("begin", 0) { // fails if the third begins before the second
			}
			if len(m.running) > 0 || m.o.barrier != lost {
				t.Fatalf("lost %v: the barrier is %v", lost, m.o.barrier)
			}
		}
	})
}

// TestKeyOrderAnswerIsOld: what the broker said before a barrier went up does not take it down.
func TestKeyOrderAnswerIsOld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &orderModel{
			t: t, o: newKeyOrder(nil), next: 1, zombie: true, keys: []string{"", "a", "a"},
			pending: map[uint64]int{}, due: map[uint64]bool{}, done: map[uint64]bool{},
		}
		m.o.begins(m.standing())
		a, at := m.o.account(), m.standing() // nothing is open
		m.step("new to another", 0)
		m.step("new", 0)
		ready, _ := m.o.compare(a, at, false)
		m.push(ready...)
		for m.step("begin", 0) { // fails if the second begins before the first
		}
		if len(m.running) > 0 || !m.o.barrier {
			t.Fatal("the barrier is gone")
		}
	})
}

// TestKeyOrderSettlementLost: an event that comes again because its settlement was lost has
// its key alone, wherever a later one of it is by then.
func TestKeyOrderSettlementLost(t *testing.T) {
	for _, began := range []bool{false, true} {
		o := newKeyOrder(nil)
		first, _ := o.arrive(1, "a", &Delivery{NumDelivered: 1})
		o.begin(first)
		o.finish(first, outcomeTerm)
		second, _ := o.arrive(2, "a", &Delivery{NumDelivered: 1})
		if began && !o.begin(second) {
			t.Fatal("the second does not begin")
		}
		first, _ = o.arrive(1, "a", &Delivery{NumDelivered: 2})
		if began {
			if first != nil {
				t.Error("the first is queued while the second runs")
			}
			first = o.finish(second, outcomeAck)
		} else if o.begin(second) {
			t.Error("the second begins while the first is queued")
		}
		if first == nil || first.seq != 1 || !o.begin(first) {
			t.Error("the first does not begin")
		}
	}
}

// TestKeyOrderLends: what comes beside the order has its key alone, between two events of it.
func TestKeyOrderLends(t *testing.T) {
	o := newKeyOrder(nil)
	first, _ := o.arrive(1, "a", &Delivery{NumDelivered: 1})
	if !o.lend("a") || o.begin(first) || o.lend("a") || o.running() != 1 {
		t.Error("lent, and not alone")
	}
	if e, _ := o.arrive(2, "a", &Delivery{NumDelivered: 1}); e != nil {
		t.Error("the next begins while the key is lent")
	}
	if e := o.giveBack("a"); e != first || !o.begin(e) || o.lend("a") {
		t.Error("given back, the first does not begin, or the key is lent again")
	}
	if e := o.finish(first, outcomeAck); e == nil || e.seq != 2 || !o.begin(e) || o.finish(e, outcomeAck) != nil {
		t.Error("the second does not follow")
	}
	o.hold()
	if o.lend("b") {
		t.Error("lent behind the barrier")
	}
}

// TestRollModel: instances that read, change and write the roll in any order share the
// partitions evenly in the end, and nobody is given one that another still has.
func TestRollModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		partitions := rapid.IntRange(1, MaxPartitions).Draw(t, "partitions")
		r := newRoll("orders.>", "ORDERS", partitions)
		names := []string{"a", "b", "c", "d", "e"}
		have := map[string]map[int]bool{} // what each believes to have
		left := map[string][]int{}
		beat := uint64(0)
		attend := func(me string, dead ...string) {
			for _, d := range dead {
				delete(have, d) // its lease has run out, which is what made it dead
				delete(left, d)
			}
			beat++
			surplus := r.attend(me, beat, dead, left[me], false)
			left[me] = nil
			mine := map[int]bool{}
			for p, owner := range r.Owners {
				if owner != me {
					continue
				}
				mine[p] = true
				for other, has := range have {
					if other != me && has[p] {
						t.Fatalf("partition %d is given to %s while %s has it", p, me, other)
					}
				}
			}
			for p := range have[me] {
				if !mine[p] { // its handlers run
					t.Fatalf("partition %d is taken from %s, which did not let go of it", p, me)
				}
			}
			have[me] = mine
			for p := range mine {
				if surplus > 0 {
					delete(have[me], p)
					left[me] = append(left[me], p)
					surplus--
				}
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			me := rapid.SampledFrom(names).Draw(t, "me")
			var dead []string
			if other := rapid.SampledFrom(names).Draw(t, "dead"); other != me && rapid.Bool().Draw(t, "dies") {
				dead = []string{other}
			}
			attend(me, dead...)
		}
		for range 2 * len(names) {
			for me := range r.Members {
				attend(me)
			}
		}
		for me := range r.Members {
			if n := r.count(me); n != r.quota(me) || n < partitions/len(r.Members) {
				t.Fatalf("%s has %d of %d partitions among %d, quota %d", me, n, partitions, len(r.Members), r.quota(me))
			}
		}
		text, err := marshalRoll(r)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := parseRoll(text); err != nil || !slices.Equal(back.Owners, r.Owners) || !maps.Equal(back.Members, r.Members) || !back.shares("orders.>", "ORDERS", partitions) {
			t.Fatalf("parse: %+v, %v", back, err)
		}
	})
}

// TestRollMovesNoMoreThanNeeded: who comes when there is one partition, or comes back, waits.
func TestRollMovesNoMoreThanNeeded(t *testing.T) {
	r := newRoll("f", "S", 1)
	for beat, me := range []string{"b", "a", "c", "b"} {
		if surplus := r.attend(me, uint64(beat), nil, nil, false); surplus != 0 || r.Owners[0] != "b" {
			t.Errorf("after %s: surplus %d, the owner is %s", me, surplus, r.Owners[0])
		}
	}
	if surplus := r.attend("b", 9, nil, nil, true); surplus != 1 {
		t.Errorf("leaving: surplus %d", surplus)
	}
}

func TestRollWatch(t *testing.T) {
	start := time.Now()
	w := watch{after: time.Second, seen: map[string]sighting{}}
	r := newRoll("f", "S", 1)
	r.Members = map[string]uint64{"me": 1, "alive": 1, "dead": 7}
	at := func(d time.Duration, want ...string) {
		t.Helper()
		if got := w.look(r, "me", start.Add(d)); !slices.Equal(got, want) {
			t.Errorf("after %v: %v are dead, want %v", d, got, want)
		}
	}
	at(0) // nobody is dead who was seen just now
	r.Members["alive"]++
	at(900 * time.Millisecond)
	at(1100*time.Millisecond, "dead")
	r.Members["dead"]++
	at(1200 * time.Millisecond)
	delete(r.Members, "dead")
	at(1300 * time.Millisecond)
	r.Members["dead"] = 8
	at(10*time.Second, "alive") // it was away from the roll: it begins anew

	// Who was started with a longer lease goes on for that long without a sign of life.
	r.Leases = map[string]time.Duration{"dead": 20 * time.Second, "alive": 1000 * time.Hour}
	at(39 * time.Second)
	at(41*time.Second, "dead")          // 10 s and one and a half of 20 s
	at(10*time.Minute, "alive", "dead") // no lease is longer than MaxLease
}

func FuzzParseRoll(f *testing.F) {
	for _, s := range []string{`{"version":1,"owners":["a",""],"members":{"a":1}}`, `{"version":2,"owners":["a"]}`, `{}`, `[]`, "", `{"version":1,"owners":[]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseRoll(text)
		if err != nil {
			return
		}
		if s := r.attend("me", 1, nil, []int{0}, false); s < 0 || r.Members["me"] != 1 || r.quota("me") > len(r.Owners) {
			t.Errorf("surplus %d, %+v", s, r)
		}
	})
}

func TestPartitionOf(t *testing.T) {
	// What instances agree on must not change from one release to the next.
	for key, want := range map[string]int{"": 1, "k0": 2, "k1": 1, "orders.created": 2} {
		if got := partitionOf(key, 4); got != want {
			t.Errorf("partitionOf(%q, 4) = %d, want %d", key, got, want)
		}
	}
	if p := partitionOf("x", 1); p != 0 {
		t.Errorf("of one partition: %d", p)
	}
	for n, want := range map[int]string{-1: "a.b.c", 0: "a.b.c", 1: "a", 2: "b", 3: "c", 4: "a.b.c"} {
		if got := SubjectToken(n)(&Delivery{NATSSubject: "a.b.c"}); got != want {
			t.Errorf("SubjectToken(%d) = %q, want %q", n, got, want)
		}
	}
	r := recent{set: map[uint64]struct{}{}}
	for seq := range uint64(recentMost + 2) {
		r.add(seq)
	}
	if r.has(0) || r.has(1) || !r.has(2) || !r.has(recentMost+1) || r.has(math.MaxUint64) {
		t.Error("recent keeps the wrong ones")
	}
}
