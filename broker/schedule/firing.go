package schedule

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/admission"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/wire"
)

const (
	// patience is how long a firing that is refused for the moment, by a rate or a full
	// store, is tried again, unless the next one of its schedule comes first.
	patience = time.Minute
	// within bounds the work on one firing.
	within = 20 * time.Second
)

// firing is a moment of a schedule that has come.
type firing struct {
	tenant          *policy.Tenant
	principal, name string
	id              string // of the record whose moment it is
	next            time.Time
	stored          time.Time
	again           bool // it was delivered before
}

// firingID is the id of the event of a firing: it follows from the put and from the moment,
// which the server tells by that of the next one.
func firingID(name string, rec *record, next time.Time) string {
	return name + "." + rec.ID + "." + strconv.FormatInt(next.Unix(), 36)
}

// take works one firing and settles it.
func (r *Runner) take(ctx context.Context, tenant string, msg jetstream.Msg) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	f, err := r.read(tenant, msg)
	if err != nil {
		r.counts[Void].Add(1)
		r.cfg.Log.Error().Err(err).Str("tenant", tenant).Msg("a firing cannot be read, and is dropped")
		_ = msg.Ack() // unsettled, it comes again and is dropped then
		return
	}
	outcome, err := r.fire(ctx, f)
	if err != nil {
		if r.cfg.Now().Sub(f.stored) < patience {
			_ = msg.NakWithDelay(later(err)) // unsettled, it comes again by itself
			return
		}
		outcome = Missed
		r.cfg.Log.Warn().Err(err).Str("tenant", tenant).Str("principal", f.principal).Str("schedule", f.name).Msg("a firing was given up")
	}
	r.counts[outcome].Add(1)
	_ = r.cfg.Settle(msg) // unsettled, it comes again, with the same id
}

// later is when to try again after err.
func later(err error) time.Duration {
	var refusal *wire.Refusal
	if errors.As(err, &refusal) {
		return min(max(refusal.RetryAfter, time.Second), patience/2)
	}
	return slowdown
}

// read takes the message of a firing apart. What it says of the event does not count.
func (r *Runner) read(tenant string, msg jetstream.Msg) (*firing, error) {
	f := &firing{tenant: r.cfg.Policy().Tenant(tenant)}
	meta, err := msg.Metadata()
	if err != nil {
		return nil, fmt.Errorf("schedule: %w", err)
	}
	f.stored, f.again = meta.Timestamp, meta.NumDelivered > 1
	var ok bool
	if f.principal, f.name, ok = wire.ScheduleOf(msg.Subject()); !ok {
		return nil, fmt.Errorf("%w: subject %s", ErrRecord, msg.Subject())
	}
	rec, err := decode(msg.Data())
	if err != nil {
		return nil, err
	}
	f.id = rec.ID
	if f.next, err = time.Parse(time.RFC3339Nano, msg.Headers().Get("Nats-Schedule-Next")); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	return f, nil
}

// fire publishes the event of a firing, or finds that it must not. An error is for the
// moment.
func (r *Runner) fire(ctx context.Context, f *firing) (Outcome, error) {
	if f.tenant == nil {
		return Void, nil
	}
	have, err := store.ScheduleOf(ctx, r.cfg.Store, f.tenant.Name, f.principal, f.name)
	if have == nil || err != nil {
		return Void, err
	}
	rec, err := decode(have.Data)
	if err != nil {
		return r.end(ctx, f, have, "it cannot be read")
	}
	if rec.ID != f.id {
		return Void, nil
	}
	p := r.cfg.Policy().Principal(f.tenant.Name, f.principal)
	switch {
	case p == nil:
		return r.end(ctx, f, have, "its principal is not in the policy any more")
	case p.Disabled:
		return r.end(ctx, f, have, "its principal is disabled")
	case !acl.Header(p, policy.Cron).Use().Allowed:
		return r.end(ctx, f, have, "its principal has lost the right "+policy.Cron)
	}
	return r.publish(ctx, f, rec, p)
}

// end takes the schedule away.
func (r *Runner) end(ctx context.Context, f *firing, have *store.StoredSchedule, why string) (Outcome, error) {
	removed, err := store.RemoveSchedule(ctx, r.cfg.Store, f.tenant.Name, have.Sequence)
	if err != nil {
		return Ended, err
	}
	if !removed {
		return Void, nil // by somebody else
	}
	r.cfg.Ended(f.tenant.Name, f.principal, f.name, why)
	return Ended, nil
}

// publish has p publish the event now.
func (r *Runner) publish(ctx context.Context, f *firing, rec *record, p *policy.Principal) (Outcome, error) {
	st := p.Tenant.StreamFor(rec.Subject)
	if st != nil && f.again && r.cfg.Now().Sub(f.stored) > st.DuplicateWindow-st.DuplicateWindow/8 {
		// Another node may have published it, or this one before it ended, and the stream does
		// not know its id for certain any more.
		r.cfg.Log.Warn().Str("tenant", p.Tenant.Name).Str("principal", p.Name).Str("schedule", f.name).
			Msg("a firing comes again after the duplicateWindow of its stream: nobody can tell whether it was published, and it is not published again")
		return Missed, nil
	}
	publish, err := rec.publish(firingID(f.name, rec, f.next), f.stored)
	if err != nil {
		return Missed, err
	}
	session := r.cfg.Chain().Session(p)
	if !r.cfg.LetsIn(p) {
		refusal := wire.Refuse(wire.CodePrincipalRevoked, rule, "nobody can come in as the principal: this node gives its names to nobody")
		refusal.Principal, refusal.Subject = p.FullName(), rec.Subject
		return r.refuse(f, p, publish, refusal, admission.Rejection{})
	}
	block, payload, refusal := admission.Fire(session, publish, r.cfg.Now(), false)
	if refusal != nil {
		return r.refuse(f, p, publish, refusal, session.Rejection())
	}
	header, err := store.HeaderOf(block)
	if err != nil {
		return Missed, err
	}
	_, duplicate, err := store.Republish(ctx, r.cfg.Store, p.Tenant.Name, st.Name, &nats.Msg{Subject: rec.Subject, Header: header, Data: payload})
	switch {
	case err != nil:
		return Missed, err
	case duplicate:
		return Repeated, nil
	}
	return Published, nil
}

// refuse tells of a refusal. One that is for the moment is told once, and tried again: the next
// firing may take its place before it is given up.
func (r *Runner) refuse(f *firing, p *policy.Principal, publish *admission.Publish, refusal *wire.Refusal, rej admission.Rejection) (Outcome, error) {
	class := refusal.Code.Class()
	moment := (class == wire.ClassRateLimited || class == wire.ClassUnavailable) && r.cfg.Now().Sub(f.stored) < patience
	if !moment || !f.again {
		r.cfg.Refused(refusal, &Rejected{
			Tenant: p.Tenant.Name, Principal: p.Name, Subject: string(publish.Subject), Header: publish.Header, Payload: publish.Payload,
			Store: rej.Store && !moment, Schema: rej.Schema,
		})
	}
	if moment {
		return Refused, refusal
	}
	return Refused, nil
}
