package client

import (
	"cmp"
	"math"
	"slices"
)

// entry is one event of a partition that was delivered and is not settled.
type entry struct {
	d     *Delivery
	key   string
	seq   uint64
	state entryState
	part  *partition
}

type entryState uint8

const (
	entryWaits   entryState = iota // here, behind another of its key or a barrier
	entryQueued                    // the next of its key, for a worker to take
	entryRunning                   // with a handler
	entryAway                      // put back: the broker delivers it again
)

// keyOrder decides which events of a partition may be handled. It is pure and not safe
// for concurrent use.
//
// Events of one key are handled one by one, by ascending sequence; one that was put back
// holds back those behind it. That is the order of the stream as long as every delivery
// of the consumer comes here. Where one may have gone elsewhere, to who had the partition
// before, a barrier holds everything back until all that was delivered is here.
type keyOrder struct {
	part    *partition
	queues  map[string][]*entry // by key, ascending; none is empty
	bySeq   map[uint64]*entry
	foreign map[uint64]*Delivery // of other partitions, behind the barrier
	lent    map[string]bool      // keys of events that are handled beside the order
	done    recent
	expect  uint64 // the consumer sequence of the next delivery
	missing int    // deliveries since the barrier went up whose events are not known here
	barrier bool
	upTo    uint64 // the greatest sequence that was delivered when the barrier went up, once the broker said it
	settles uint64 // counts what was settled or put back
	holds   uint64 // counts barriers
}

func newKeyOrder(p *partition) *keyOrder {
	return &keyOrder{part: p, queues: map[string][]*entry{}, bySeq: map[uint64]*entry{}, foreign: map[uint64]*Delivery{}, lent: map[string]bool{}, done: recent{set: map[uint64]struct{}{}}}
}

// begins says how the consumer stands when this process takes it over. What the last owner
// left open holds all back.
func (o *keyOrder) begins(at standing) {
	o.expect = at.last + 1
	if at.floor < at.delivered {
		o.hold()
	}
}

// follow takes the consumer sequence of a delivery in. One that is missing went to
// somebody else, was lost on the way, or became a dead letter at the broker.
func (o *keyOrder) follow(seq uint64) {
	switch {
	case seq > o.expect:
		o.missing += int(min(seq-o.expect, math.MaxInt32))
		o.hold()
	case seq < o.expect:
		o.hold()
		if o.missing > 0 { // one of those: it was kept on its way
			o.missing--
			return
		}
	}
	o.expect = seq + 1
}

// unread takes in that a delivery came whose event is not known, and will come again.
func (o *keyOrder) unread() {
	o.missing++
	o.hold()
}

// arrive takes a delivery in. again says that it was acknowledged already, which was
// lost. ready is what may be handled now.
func (o *keyOrder) arrive(seq uint64, key string, d *Delivery) (ready *entry, again bool) {
	if d.NumDelivered > 1 && o.done.has(seq) { // the first delivery again: somebody has reset the consumer
		return nil, true
	}
	e := o.bySeq[seq]
	switch {
	case e == nil:
		e = &entry{d: d, key: key, seq: seq, part: o.part}
		o.bySeq[seq] = e
		q := o.queues[key]
		at, _ := slices.BinarySearchFunc(q, seq, func(e *entry, seq uint64) int { return cmp.Compare(e.seq, seq) })
		o.queues[key] = slices.Insert(q, at, e)
	case e.state == entryAway:
		e.d, e.state = d, entryWaits
	case e.state == entryRunning:
		return nil, false // the handler has it; settling either settles it
	default:
		e.d = d // its wait was over; this one's begins
	}
	return o.next(key), false
}

// next returns the event of key that may be handled now, and marks it so.
func (o *keyOrder) next(key string) *entry {
	q := o.queues[key]
	if o.barrier || o.lent[key] || len(q) == 0 || q[0].state != entryWaits || slices.ContainsFunc(q, isRunning) {
		return nil
	}
	for _, later := range q[1:] { // this one came after them: it was settled, and that was lost
		if later.state == entryQueued {
			later.state = entryWaits
		}
	}
	q[0].state = entryQueued
	return q[0]
}

func isRunning(e *entry) bool { return e.state == entryRunning }

// lend keeps key for an event that is not of the order, between two that are; false: a
// handler has the key, or nobody may have it now.
func (o *keyOrder) lend(key string) bool {
	if q := o.queues[key]; o.barrier || o.lent[key] || slices.ContainsFunc(q, isRunning) {
		return false
	} else if len(q) > 0 && q[0].state == entryQueued {
		q[0].state = entryWaits
	}
	o.lent[key] = true
	return true
}

// giveBack ends lend.
func (o *keyOrder) giveBack(key string) *entry {
	delete(o.lent, key)
	return o.next(key)
}

// begin says whether a worker may handle e, which it took from the queue. A barrier makes
// of what is queued what waits.
func (o *keyOrder) begin(e *entry) bool {
	if e.state != entryQueued {
		return false
	}
	e.state = entryRunning
	return true
}

// finish says that the handler of e has returned, and what came of e.
func (o *keyOrder) finish(e *entry, was outcome) (ready *entry) {
	o.settles++
	switch was {
	case outcomeAck:
		o.done.add(e.seq)
	case outcomeTerm: // if that is lost it must be said again
	default:
		e.state = entryAway
		return nil
	}
	return o.remove(e)
}

func (o *keyOrder) remove(e *entry) *entry {
	delete(o.bySeq, e.seq)
	q := o.queues[e.key]
	if i := slices.Index(q, e); i >= 0 {
		q = slices.Delete(q, i, i+1)
	}
	if len(q) == 0 {
		delete(o.queues, e.key)
		return nil
	}
	o.queues[e.key] = q
	return o.next(e.key)
}

// hold puts the barrier up: nothing is begun until all that has been delivered so far is
// here or settled.
func (o *keyOrder) hold() {
	o.barrier, o.upTo = true, math.MaxUint64
	o.holds++
	for _, e := range o.bySeq {
		if e.state == entryQueued {
			e.state = entryWaits
		}
	}
}

// account is what there is here at one moment, to be compared with what the broker says
// of the consumer after it.
type account struct {
	here, away     int
	missing        int
	expect         uint64
	settles, holds uint64
}

func (o *keyOrder) account() account {
	a := account{missing: o.missing, expect: o.expect, settles: o.settles, holds: o.holds, here: len(o.foreign)}
	for _, e := range o.bySeq {
		if e.state == entryAway {
			a.away++
		} else {
			a.here++
		}
	}
	return a
}

// unknown is how many deliveries there are whose events are not known here, or were not yet.
func (a account) unknown(at standing) int {
	if at.last < a.expect {
		return a.missing
	}
	return a.missing + int(min(at.last-a.expect+1, math.MaxInt32))
}

// standing is what the broker says of a consumer.
type standing struct {
	floor     uint64 // all up to it is settled
	delivered uint64 // nothing after it was ever delivered
	pending   int    // delivered and not settled, wherever it is
	last      uint64 // the consumer sequence of the last delivery
}

// compare takes in what the broker said after account was taken. What is away and settled
// there has become a dead letter, and its key goes on. lenient says that nobody else has
// a pull open, so that what is not here and was put back by this process comes again here.
//
// What is away does not keep the barrier up then, if all the rest is here: one delivery is
// missing for each event of them that became a dead letter, and one for each that
// is open and not here, so as many missing ones as dead letters mean that there is none of these.
//
// It returns what may be handled now, and deliveries of other partitions to acknowledge.
func (o *keyOrder) compare(a account, at standing, lenient bool) (ready []*entry, foreign []*Delivery) {
	// The number of the broker is never less than what is here, unless something here was
	// settled in between: acknowledgements on their way count as not settled.
	quiet := a.settles == o.settles
	exact := quiet && at.pending == a.here
	for seq, e := range o.bySeq {
		if e.state == entryAway && (seq <= at.floor || exact) {
			o.settles++
			if next := o.remove(e); next != nil {
				ready = append(ready, next)
			}
		}
	}
	if !o.barrier || a.holds != o.holds {
		return ready, nil
	}
	o.upTo = min(o.upTo, at.delivered)
	if at.floor < o.upTo && !exact && !(lenient && quiet && at.pending+a.unknown(at) <= a.here+a.away) {
		return ready, nil
	}
	o.barrier, o.missing = false, 0
	for _, d := range o.foreign {
		foreign = append(foreign, d)
	}
	clear(o.foreign)
	for key := range o.queues {
		if e := o.next(key); e != nil {
			ready = append(ready, e)
		}
	}
	return ready, foreign
}

// held returns the deliveries whose wait must not run out.
func (o *keyOrder) held() []*Delivery {
	out := make([]*Delivery, 0, len(o.bySeq)+len(o.foreign))
	for _, e := range o.bySeq {
		if e.state != entryAway {
			out = append(out, e.d)
		}
	}
	for _, d := range o.foreign {
		out = append(out, d)
	}
	return out
}

// running is how many events are with handlers.
func (o *keyOrder) running() int {
	n := len(o.lent)
	for _, e := range o.bySeq {
		if isRunning(e) {
			n++
		}
	}
	return n
}

// waitsFor says whether the broker must be asked how things stand.
func (o *keyOrder) waitsFor() (barrier, away bool) {
	for _, e := range o.bySeq {
		away = away || e.state == entryAway
	}
	return o.barrier, away
}

// recentMost bounds what is remembered as settled. An acknowledgement that was lost shows
// when the acknowledgement wait is over, long before as many more events were handled
// unless these are many a second.
const recentMost = 1 << 15

// recent is a set of the sequences that were added last. set must not be nil.
type recent struct {
	set  map[uint64]struct{}
	ring []uint64
	at   int
}

func (r *recent) has(seq uint64) bool {
	_, ok := r.set[seq]
	return ok
}

func (r *recent) add(seq uint64) {
	if len(r.ring) < recentMost {
		r.ring = append(r.ring, seq)
	} else {
		delete(r.set, r.ring[r.at])
		r.ring[r.at] = seq
		r.at = (r.at + 1) % recentMost
	}
	r.set[seq] = struct{}{}
}
