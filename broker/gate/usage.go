package gate

import (
	"context"
	"fmt"
	"hash/maphash"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// usage is what a principal, or a tenant, has on this node over all its connections.
type usage struct {
	connections   int // Gate.mu
	subscriptions atomic.Int64
	inFlight      atomic.Int64 // publishes without an acknowledgement, as far as a limit counts them
	making        makings
	penance       penance
}

func connectionsOf(l *policy.Limit) int   { return l.Connections }
func subscriptionsOf(l *policy.Limit) int { return l.Subscriptions }
func consumersOf(l *policy.Limit) int     { return l.Consumers }

// flightTTL is how long a publish counts whose acknowledgement does not come.
const flightTTL = 30 * time.Second

// flights are the publishes of one connection whose acknowledgements are waited for, where
// a limit bounds them. What comes to the reply subject of one is taken for its answer: a
// client that answers itself gets round the limit, and around no other. The reader enters
// and leaves, the relay and the timer take away.
type flights struct {
	of      *usage // of the principal; set when the connection is let in
	entered bool   // by the publish that is being judged; the reader's

	waiting atomic.Int64 // len of all, so that the relay need not lock for nothing
	mu      sync.Mutex
	out     map[uint64]flight // by hash of the reply subject as the server sees it
	timer   *time.Timer       // runs while something is waited for
	closed  bool
}

type flight struct {
	n  int64 // publishes with that reply subject
	at time.Time
}

var flightSeed = maphash.MakeSeed()

// Enter is of admission.Flights.
func (f *flights) Enter(most int) (n int, ok bool) {
	now := f.of.inFlight.Add(1)
	if most > 0 && now > int64(most) {
		f.of.inFlight.Add(-1)
		return int(now), false
	}
	f.entered = true
	return int(now), true
}

// settle ends what Enter began: a publish that was accepted waits for what comes to reply,
// one that was not counts no more.
func (f *flights) settle(accepted bool, reply []byte, now time.Time) {
	if !f.entered {
		return
	}
	f.entered = false
	if !accepted {
		f.of.inFlight.Add(-1)
		return
	}
	key := maphash.Bytes(flightSeed, reply)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.out == nil {
		f.out = make(map[uint64]flight)
	}
	f.out[key] = flight{f.out[key].n + 1, now}
	f.waiting.Add(1)
	if f.timer == nil && !f.closed {
		f.timer = time.AfterFunc(flightTTL, f.sweep)
	}
}

// answered takes one publish away that waited for an answer on the subject, if one did.
func (f *flights) answered(subject []byte) {
	if f.waiting.Load() == 0 {
		return
	}
	key := maphash.Bytes(flightSeed, subject)
	f.mu.Lock()
	defer f.mu.Unlock()
	w, ok := f.out[key]
	if !ok {
		return
	}
	if w.n--; w.n == 0 {
		delete(f.out, key)
	} else {
		f.out[key] = w
	}
	f.goneLocked(1)
}

func (f *flights) goneLocked(n int64) {
	f.waiting.Add(-n)
	f.of.inFlight.Add(-n)
}

// sweep takes those away that are too old, and comes again while others wait.
func (f *flights) sweep() {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, next := time.Now(), flightTTL
	for key, w := range f.out {
		if left := flightTTL - now.Sub(w.at); left > 0 {
			next = min(next, left)
			continue
		}
		delete(f.out, key)
		f.goneLocked(w.n)
	}
	f.timer = nil
	if len(f.out) > 0 && !f.closed {
		f.timer = time.AfterFunc(next, f.sweep)
	}
}

// close is when the connection has ended, and with it the reader and the relay.
func (f *flights) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.timer != nil {
		f.timer.Stop()
	}
	f.closed = true
	if f.entered { // a panic between Enter and settle
		f.entered = false
		f.of.inFlight.Add(-1)
	}
	for key, w := range f.out {
		delete(f.out, key)
		f.goneLocked(w.n)
	}
}

// enroll counts c to its principal and its tenant, or says which of them has all the
// connections that it may. The handshake calls it once, and forget takes it back.
func (g *Gate) enroll(c *conn, p *policy.Principal) *wire.Refusal {
	g.mu.Lock()
	defer g.mu.Unlock()
	who, tenant := p.FullName(), p.Tenant.Name // no tenant has a slash in its name
	mine, all := g.usageLocked(who), g.usageLocked(tenant)
	defer func() { // of those that nobody has
		for name, u := range map[string]*usage{who: mine, tenant: all} {
			if u.connections == 0 {
				g.dropLocked(name, u)
			}
		}
	}()
	full := func(rule, of string, most int) *wire.Refusal {
		return wire.Refuse(wire.CodeConnectionLimited, rule, fmt.Sprintf("the %s has its %d connections", of, most))
	}
	if most := g.cfg.Limits.PrincipalConnections; mine.connections >= most {
		return full(awayNames[awayShare], "principal", most)
	}
	if most, by := p.Least(connectionsOf); most > 0 && mine.connections >= most {
		return full(by.Rule, "principal", most)
	}
	if most := p.Tenant.Quota.Connections; most > 0 && all.connections >= most {
		return full(awayNames[awayShare], "tenant", most)
	}
	mine.connections++
	all.connections++
	p.SpareOver(connectionsOf, mine.connections)
	c.quota = who
	c.session.subs.of, c.session.flights.of = mine, mine
	return nil
}

// dropLocked lets go of what no connection counts to, when its refusals are paid for: who
// connects anew owes them still. That is within some seconds (refusalDebt).
func (g *Gate) dropLocked(of string, u *usage) {
	left := time.Duration(u.penance.paid.Load() - int64(time.Since(began)))
	if left <= 0 {
		delete(g.shares, of)
		return
	}
	time.AfterFunc(left, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if u.connections == 0 && g.shares[of] == u {
			g.dropLocked(of, u)
		}
	})
}

// usageLocked is that of a principal or a tenant; it stays while a connection counts to it,
// or it owes for refusals.
func (g *Gate) usageLocked(of string) *usage {
	u := g.shares[of]
	if u == nil {
		u = new(usage)
		g.shares[of] = u
	}
	return u
}

// tooMany refuses a subscription that a limit of p has no room for: sub is in the table and
// counted, so connections that subscribe at the same time never go over together.
func (u *subscriber) tooMany(p *policy.Principal, sub *subscription) *wire.Refusal {
	n := int(u.s.subs.of.subscriptions.Load())
	p.SpareOver(subscriptionsOf, n)
	most, by := p.Least(subscriptionsOf)
	if most == 0 || n <= most {
		return nil
	}
	u.s.subs.drop(sub)
	return wire.Refuse(wire.CodeSubscriptionLimited, by.Rule, "the principal has its "+strconv.Itoa(most)+" subscriptions")
}

// consumersEvery is how often the consumers of a principal are counted that has all that
// it may have: to count them asks the server for all consumers of the tenant.
const consumersEvery = time.Second

// tooManyConsumers refuses to make a consumer that a limit of the principal has no room
// for. One that is there may be changed. It asks the store, and is called between batches.
// Without a refusal the caller forwards the request, with that reply.
func (a *apiCaller) tooManyConsumers(p *policy.Principal, name ConsumerName, reply string) *wire.Refusal {
	most, by := p.Least(consumersOf)
	refuse := func() *wire.Refusal {
		r := wire.Refuse(wire.CodeConsumersLimited, by.Rule, "the principal has its "+strconv.Itoa(most)+" consumers")
		r.RetryAfter = consumersEvery
		return r
	}
	if most > 0 && a.out.now.Before(a.consumersAgain) {
		return refuse()
	}
	ctx, cancel := context.WithTimeout(a.life, a.owners.timeout)
	defer cancel()
	making := &a.s.flights.of.making
	number := making.begin(name, time.Now())
	open := making.before(number) // before the store is asked: what is answered meanwhile is in its list
	all, err := a.consumers(ctx, p)
	if err != nil {
		making.end(number)
		if most > 0 {
			return wire.Refuse(wire.CodeUnavailable, by.Rule, "the consumers of the principal cannot be counted now")
		}
		return nil
	}
	for _, o := range open {
		all[o] = true
	}
	if n := len(all); !all[name] {
		p.SpareOver(consumersOf, n+1)
		if most > 0 && n >= most {
			making.end(number)
			a.consumersAgain = time.Now().Add(consumersEvery)
			return refuse()
		}
	}
	a.s.asked.add([]byte(reply), number)
	return nil
}

// countsConsumers reports whether a limit of p, in whatever mode, is about consumers.
func countsConsumers(p *policy.Principal) bool {
	for i := range p.Limits {
		if l := &p.Limits[i]; l.Consumers > 0 && l.Mode != policy.ModeOff {
			return true
		}
	}
	return false
}
