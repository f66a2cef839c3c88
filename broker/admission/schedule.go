package admission

import (
	"bytes"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/internal/wire"
)

// plan is what the headers of a publish say about publishing it later: the server does
// that, from inside, so the gate never sees it again. It must be judged now as what it
// will be.
type plan struct {
	when, target []byte // Nats-Schedule, Nats-Schedule-Target
	batch        bool   // Nats-Batch-Id
	ttl          bool   // Nats-Schedule-TTL
}

func (p *plan) any() bool { return p.when != nil || p.target != nil || p.ttl }

const ruleSchedule = "schedule"

// take notes a header that was granted.
func (p *plan) take(name string, value []byte) *wire.Refusal {
	switch name {
	case "Nats-Schedule":
		// Only once: a plan that repeats would publish for ever, with the same id, under no
		// limit, for a principal that may be gone.
		if !bytes.HasPrefix(value, []byte("@at ")) {
			return wire.Refuse(wire.CodeHeaderDenied, ruleSchedule, "the only schedule in a header is @at and a time: one that repeats would publish unjudged; put it with the SDK, client.SchedulesOf, which has each firing judged")
		}
		p.when = value
	case "Nats-Schedule-Target":
		p.target = value
	case "Nats-Schedule-TTL":
		p.ttl = true
	case "Nats-Batch-Id":
		p.batch = true
	}
	return nil
}

// planFor returns the route and the publish that a plan is judged by: those of its target,
// on which every check of a publish holds. The event is attested for the target, so that it
// verifies there; on the subject where it waits it does not, it is no event yet.
func planFor(s *Session, rt *route, p *Publish) (*route, *Publish, *wire.Refusal) {
	refuse := func(detail string) (*route, *Publish, *wire.Refusal) {
		return nil, nil, wire.Refuse(wire.CodeHeaderDenied, ruleSchedule, detail)
	}
	switch {
	case s.plans.when == nil || s.plans.target == nil:
		return refuse("Nats-Schedule and Nats-Schedule-Target go together")
	case s.plans.batch:
		return refuse("a plan cannot be part of a batch")
	case s.asked:
		return refuse("a plan has no signed acknowledgement: it is no event yet")
	case bytes.Equal(s.plans.target, p.Subject):
		return refuse("the target must be another subject")
	}
	target := string(s.plans.target)
	as := s.routes[target]
	if as == nil {
		var r *wire.Refusal
		if as, r = s.resolve(target); r != nil {
			r.Subject = target
			return nil, nil, r
		}
	}
	from, to := s.p.Tenant.StreamFor(string(p.Subject)), s.p.Tenant.StreamFor(target)
	if as.class != acl.ClassEvent || from == nil || from != to || !from.UnsafeSchedules {
		return refuse("the target must be an event subject of the same stream, which has unsafeSchedules: true")
	}
	if demandsEncryption(rt) && !demandsEncryption(as) {
		return refuse("the subject where it waits takes encrypted payloads only, so the target must, too")
	}
	if len(p.Payload) > as.maxPayload {
		return nil, nil, wire.Refuse(wire.CodePayloadTooLarge, as.sizeRule, "")
	}
	as.spared.Add()
	planned := *p
	planned.Subject = s.plans.target
	return as, &planned, nil
}

func demandsEncryption(rt *route) bool { return rt.binding != nil && rt.binding.Encrypted }
