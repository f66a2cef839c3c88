package gate

import (
	"sync/atomic"
	"time"
)

// Refusals cost as much as publishes that are let in, and whoever is refused would pay
// nothing for them. So a principal has refusalRate of them for nothing, over all of its
// connections, and refusalBurst at once; a connection that is refused more than that reads on
// later, and less at a time: who floods waits in its own socket, not in front of others.
const (
	refusalRate  = 2000 // per second
	refusalBurst = 2000
	refusalCost  = int64(time.Second) / refusalRate
	// refusalDebt bounds what is remembered: a flood that ends is forgiven after it.
	refusalDebt = int64(time.Second)
	// refusedRead is how many bytes a connection reads at once that owes a pause: as much as
	// a few refusals, so that the pauses are short, and what is let in between them flows.
	refusedRead = 4 << 10
)

// penance counts the refusals of a principal: the moment at which all of them are paid for,
// in nanoseconds since began. Safe for concurrent use.
type penance struct{ paid atomic.Int64 }

// began is the origin of penance: a clock that only goes forward.
var began = time.Now()

// owe counts n refusals and returns how long their connection should not read.
func (p *penance) owe(n int, now int64) time.Duration {
	for {
		was := p.paid.Load()
		paid := min(max(was, now)+int64(n)*refusalCost, now+refusalBurst*refusalCost+refusalDebt)
		if p.paid.CompareAndSwap(was, paid) {
			return time.Duration(max(0, paid-now-refusalBurst*refusalCost))
		}
	}
}

// atone pauses the connection for the refusals of the batch that has ended, together with
// what it was held for limits no longer than one batch may be held.
func (r *reader) atone() {
	n := r.batch.refusals
	if r.batch.refusals = 0; n == 0 && r.most == 0 {
		return
	}
	wait := r.batch.s.flights.of.penance.owe(n, int64(time.Since(began)))
	if wait == 0 {
		r.most = 0
		return
	}
	r.most = refusedRead
	if n == 0 {
		return // a part of a message, or one that was let in: it need not wait for what others owe
	}
	if wait = min(wait, r.publish.waitMax-r.publish.waited); wait > 0 {
		sleep(r.life.ctx, wait)
	}
}
