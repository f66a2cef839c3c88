package admission

import (
	"slices"
	"strconv"
	"time"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/ratelimit"
)

// limit is one token bucket that publishes of a route are charged to.
type limit struct {
	bucket *ratelimit.Bucket
	name   string
	wait   bool
	spared *policy.Count // mode audit: counts, and lets through
}

// limits is what a route is bound by beside its size.
type limits struct {
	rates []limit
	// typed hold for events of some types only: they are charged when the type is known. Which
	// of them hold is not kept by type: clients choose those, and how many there are.
	typed []typedLimit
	// inFlight is how many publishes of the principal may be without an acknowledgement,
	// 0 for any number, and inFlightRule who says so.
	inFlight     int
	inFlightRule string
	inFlightSoft bool // some limit in mode audit counts them
}

type typedLimit struct {
	limit
	use *policy.LimitUse
}

// flightRetry is when it is worth to look whether acknowledgements have come.
const flightRetry = 20 * time.Millisecond

// Flights counts the publishes of a principal that have no acknowledgement yet, over all
// its connections. The gate has it; only the goroutine of the session calls it.
type Flights interface {
	// Enter counts one more, unless most are counted already; 0 is any number. It returns
	// how many there are.
	Enter(most int) (n int, ok bool)
}

// limitRoute finds what the publishes of a route are counted against: the limits of the
// principal, those that its tenant shares, and the quota. Requests to the admin API have a
// rate of their own, at the gate.
func limitRoute(s *Session, rt *route, subject string) {
	if rt.class == acl.ClassAdmin {
		return
	}
	for i := range s.p.Limits {
		if l := &s.p.Limits[i]; l.Mode != policy.ModeOff && l.Applies(subject) {
			limitBy(s, rt, l)
		}
	}
	if q := s.p.Tenant.Quota.Rate; q != nil && q.Mode != policy.ModeOff {
		rt.rates = append(rt.rates, s.chain.limitOf(s.p.Tenant.Name, q))
	}
	if rt.stored() {
		most, by := s.p.Least(inFlightOf)
		if most > 0 {
			rt.inFlight, rt.inFlightRule = most, by.Rule
		}
		for i := range s.p.Limits {
			l := &s.p.Limits[i]
			rt.inFlightSoft = rt.inFlightSoft || l.InFlight > 0 && l.Mode == policy.ModeAudit
		}
	}
}

func inFlightOf(l *policy.Limit) int { return l.InFlight }

// limitBy adds what one limit, which applies to the subject, says of the route.
func limitBy(s *Session, rt *route, l *policy.LimitUse) {
	if l.Payload > 0 {
		if l.Mode == policy.ModeAudit {
			rt.sparePayload(int(l.Payload), l.Spare)
		} else {
			rt.capPayload(int(l.Payload), l.Rule)
		}
	}
	if l.Calls > 0 && rt.class == acl.ClassRPC {
		calls := *l
		// A bucket of its own: no limit has a name with a slash.
		calls.Name, calls.Messages, calls.Bytes = l.Name+"/calls", l.Calls, 0
		rt.rates = append(rt.rates, s.chain.limitOf(sharedBy(s.p, l), &calls))
	}
	switch {
	case !l.Rated():
	case len(l.Types) == 0:
		rt.rates = append(rt.rates, s.chain.limitOf(sharedBy(s.p, l), l))
	case rt.class == acl.ClassEvent || rt.class == acl.ClassEphemeral:
		rt.typed = append(rt.typed, typedLimit{s.chain.limitOf(sharedBy(s.p, l), l), l})
	}
}

// sharedBy is whose bucket a limit has: no principal is called as a tenant is, their names
// have a slash.
func sharedBy(p *policy.Principal, l *policy.LimitUse) string {
	if l.Per == policy.PerTenant {
		return p.Tenant.Name
	}
	return p.FullName()
}

// limitOf finds the token bucket that all connections of who share.
func (c *Chain) limitOf(who string, l *policy.LimitUse) limit {
	rl := ratelimit.Limit{Name: l.Name, Messages: l.Messages, Bytes: l.Bytes, Burst: l.Burst}
	if l.Wait {
		rl.Exceed = ratelimit.Wait
	}
	out := limit{bucket: c.cfg.Buckets.Bucket(who, l.Name, rl), name: l.Rule, wait: l.Wait}
	if l.Mode == policy.ModeAudit {
		out.spared = l.Spare
	}
	return out
}

// fly counts one more publish without an acknowledgement, before anything is charged: what
// is too many must not cost tokens. Whoever refuses it later takes it back at the gate.
func (s *Session) fly(rt *route, p *Publish) *wire.Refusal {
	if rt.inFlight == 0 && !rt.inFlightSoft || p.Flights == nil || len(p.Reply) == 0 {
		return nil
	}
	n, ok := p.Flights.Enter(rt.inFlight)
	if rt.inFlightSoft {
		s.p.SpareOver(inFlightOf, n)
	}
	if ok {
		return nil
	}
	r := wire.Refuse(wire.CodeInFlightLimited, rt.inFlightRule, strconv.Itoa(rt.inFlight)+" are unacknowledged")
	r.RetryAfter = flightRetry
	return r
}

// charged is one limit that a publish is charged to.
type charged struct {
	*limit
	d ratelimit.Decision
}

// charge takes the publish from the rates of its route, those of its type, and, of a plan,
// those of the route that it is judged as: from all or from none, and from each once. Every
// bucket is asked, also behind one that refuses: the longest wait is the answer, and only
// the one that answers counts what it refuses as wanted of it. A nil eventType leaves those
// of types out.
func (s *Session) charge(rt, as *route, eventType []byte, bytes int) *wire.Refusal {
	s.charges = appendCharges(s.charges[:0], &rt.limits, eventType)
	if as != rt {
		s.charges = appendCharges(s.charges, &as.limits, eventType)
	}
	now := s.now.UnixNano()
	var by *charged
	wait, spare := true, false
	for i := range s.charges {
		c := &s.charges[i]
		c.d = c.bucket.Take(now, bytes)
		switch {
		case c.d.OK:
		case c.spared != nil:
			spare = true
		default:
			wait = wait && c.wait
			if by == nil || c.d.RetryAfter > by.d.RetryAfter {
				by = c
			}
		}
	}
	if by == nil && !spare {
		return nil
	}
	for i := range s.charges {
		switch c := &s.charges[i]; {
		case by == nil && !c.d.OK:
			c.spared.Add()
		case by != nil && c != by:
			c.bucket.GiveBack(c.d, bytes)
		}
	}
	if by == nil {
		return nil
	}
	s.rejected.MayWait = wait
	return spent(by, now)
}

func appendCharges(to []charged, l *limits, eventType []byte) []charged {
	before := to
	add := func(one *limit) {
		// A plan and its target share buckets, and are one publish.
		if !slices.ContainsFunc(before, func(c charged) bool { return c.bucket == one.bucket }) {
			to = append(to, charged{limit: one})
		}
	}
	for i := range l.rates {
		add(&l.rates[i])
	}
	if eventType == nil {
		return to
	}
	for i := range l.typed {
		if l.typed[i].use.AppliesToType(eventType) {
			add(&l.typed[i].limit)
		}
	}
	return to
}

// chargeTyped charges an event whose type is known: e is decoded, and not judged yet.
func chargeTyped(s *Session, rt *route, p *Publish, e *cloudevent.Event) *wire.Refusal {
	eventType := e.Type
	if len(eventType) == 0 {
		eventType = rt.eventType
	}
	return s.charge(s.late, rt, eventType, len(p.Header)+len(p.Payload))
}

// spent is the refusal of a limit.
func spent(by *charged, now int64) *wire.Refusal {
	code := wire.CodeRateLimited
	messages, bytes := by.bucket.Left(now)
	left := messages
	if by.d.Bytes {
		code, left = wire.CodeByteRateLimited, bytes
	}
	r := wire.Refuse(code, by.name, "")
	r.RetryAfter, r.Remaining = by.d.RetryAfter, max(left, 0)
	return r
}
