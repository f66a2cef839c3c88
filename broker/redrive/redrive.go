package redrive

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker/admission"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/dlq"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// Config is what a Redriver works with. All functions return the present state and are
// safe for concurrent use. All are required.
type Config struct {
	Store *store.Store
	Chain func() *admission.Chain
	Judge func() *admission.Judge
	Ring  func() *keyring.Ring
	// Room refuses a payload of this size while the store has no room for it.
	Room func(payload int) *wire.Refusal
	// Done is told of each letter that was redriven.
	Done func(tenant, by, detail string)
}

// Redriver redrives dead letters.
type Redriver struct {
	cfg      Config
	boot     string // tells this process from those before it
	verifier *signing.Verifier
}

// New checks cfg and returns a Redriver.
func New(cfg Config) (*Redriver, error) {
	if cfg.Store == nil || cfg.Chain == nil || cfg.Judge == nil || cfg.Ring == nil || cfg.Room == nil || cfg.Done == nil {
		return nil, errors.New("redrive: store, chain, judge, ring, room and done are required")
	}
	return &Redriver{cfg: cfg, boot: rand.Text(), verifier: signing.NewVerifier(cfg.Ring)}, nil
}

// Order is what to do with a letter.
type Order struct {
	By     *policy.Principal // who redrives
	To     string            // adminapi.RedriveConsumer or RedriveAll
	DryRun bool
	Force  bool // also what is quarantined or uncertain
	Most   int  // redrives of one event
	Own    bool // By works its own letters, and may publish nobody else's event for all
	// Payload, if not nil, takes the place of that of the letter: a new event of By.
	Payload []byte
}

// targetPayload is the target of a fixed payload in marks and results.
const targetPayload = "all, as a new event of the caller"

// letter is one on its way.
type letter struct {
	*store.DeadLetter
	rec    *dlq.Record
	event  *cloudevent.Event // nil: it is none
	order  *Order
	tenant *policy.Tenant
	now    time.Time
	out    *adminapi.Redriven
}

// delivery is what a letter becomes.
type delivery struct {
	stream string
	msg    *nats.Msg
	window time.Duration               // how long the stream knows a Nats-Msg-Id
	drains bool                        // what was read goes, and its Nats-Msg-Id with it when a server starts anew
	ready  func(context.Context) error // makes what reads it; nil: nothing
}

// Letter redrives one dead letter of the tenant of o.By, or says why not. An error is about
// the store: what became of the letter is not known, and to try again is harmless.
func (r *Redriver) Letter(ctx context.Context, d *store.DeadLetter, o *Order) (adminapi.Redriven, error) {
	out := adminapi.Redriven{Letter: d.Sequence, To: o.To}
	if o.Payload != nil {
		out.To = targetPayload
	}
	rec, err := dlq.Decode(d.Header, d.Data)
	if err != nil {
		return unreadable(out, err), nil
	}
	l := &letter{
		DeadLetter: d, rec: rec, event: dlq.EventOf(rec),
		order: o, tenant: o.By.Tenant, now: time.Now(), out: &out,
	}
	out.Subject, out.Count = l.rec.NATSSubject, l.rec.Redrives+1
	if !l.ripe() {
		return out, nil
	}
	to, err := r.plan(ctx, l)
	if err != nil || to == nil {
		return out, err
	}
	if o.DryRun {
		return out, r.foretell(ctx, l, to)
	}
	return out, r.carryOut(ctx, l, to)
}

// unreadable is what becomes of a letter that does not decode.
func unreadable(out adminapi.Redriven, err error) adminapi.Redriven {
	out.Verdict, out.Detail = adminapi.VerdictUnsupported, err.Error()
	return out
}

// foretell ends a dry run.
func (r *Redriver) foretell(ctx context.Context, l *letter, to *delivery) error {
	mark, err := store.MarkOf(ctx, r.cfg.Store, l.tenant.Name, l.Sequence)
	if err != nil {
		return err
	}
	if mark != nil {
		done, again, err := r.settle(ctx, l, to, mark)
		if err != nil || !done && !again {
			return err
		}
	}
	l.out.Verdict = adminapi.VerdictWould
	return nil
}

// stop sets the verdict of a letter that stays where it is.
func (l *letter) stop(verdict, detail string) {
	l.out.Verdict, l.out.Detail = verdict, detail
}

// refuse is stop for a refusal.
func (l *letter) refuse(verdict string, r *wire.Refusal) {
	detail := r.Detail
	if title := r.Code.Entry().Title; detail == "" {
		detail = title
	} else {
		detail = title + ": " + detail
	}
	l.stop(verdict, detail)
	l.out.Code, l.out.Rule, l.out.Violations = r.Code, r.Rule, r.Violations
}

// ripe reports whether the letter may be redriven at all.
func (l *letter) ripe() bool {
	most := l.order.Most
	if most <= 0 {
		most = adminapi.DefaultRedrives
	}
	if l.out.Count > most && !l.order.Force {
		l.stop(adminapi.VerdictQuarantined, fmt.Sprintf("it was redriven %d times and failed again: mend what fails first, then --force", l.rec.Redrives))
		return false
	}
	if l.event == nil || l.order.Payload != nil {
		return true
	}
	if text := l.event.Get(wire.AttrExpiryTime); len(text) > 0 {
		if at, err := time.Parse(time.RFC3339Nano, string(text)); err == nil && !l.now.Before(at) {
			l.stop(adminapi.VerdictExpired, "its expirytime, "+string(text)+", is over: publish it anew if it still matters, else purge it")
			return false
		}
	}
	return true
}

// msgID is the key under which the letter is stored in its target: the same however often
// it is tried, and another one each time it comes back.
func (l *letter) msgID() string {
	return "redrive:" + strconv.FormatUint(l.Sequence, 10) + ":" + strconv.FormatInt(l.Time.UnixNano(), 36) + ":" + strconv.Itoa(l.out.Count)
}

// plan finds out what the letter becomes; nil: nothing, as the verdict says.
func (r *Redriver) plan(ctx context.Context, l *letter) (*delivery, error) {
	switch {
	case l.order.Payload != nil:
		return r.planFixed(l), nil
	case l.order.To == adminapi.RedriveAll && l.rec.Stage == dlq.StageIngress:
		return r.planRefused(l), nil
	case l.order.To == adminapi.RedriveAll:
		return r.planStored(l), nil
	case l.rec.Stage != dlq.StageConsumer || l.rec.Origin.Stream == "" || l.rec.Origin.Consumer == "":
		l.stop(adminapi.VerdictUnsupported, "no consumer has failed on it (stage "+string(l.rec.Stage)+"): --to all publishes it for everybody")
		return nil, nil
	}
	return r.planConsumer(ctx, l)
}

// carryOut stores the letter in its target and takes it away, in an order in which nothing
// is lost and nothing done twice wherever it ends.
func (r *Redriver) carryOut(ctx context.Context, l *letter, to *delivery) error {
	s, tenant := r.cfg.Store, l.tenant.Name
	if to.ready != nil {
		if err := to.ready(ctx); err != nil {
			return l.failure(err)
		}
	}
	before, err := s.StreamInfo(ctx, tenant, wire.StreamRetry)
	if err != nil {
		return err
	}
	mark, made, err := store.PutMark(ctx, s, tenant, store.Mark{
		Letter: l.Sequence, Count: l.out.Count, To: l.out.To, By: l.order.By.FullName(), Boot: r.boot, Time: l.now, Before: before.LastSeq,
	})
	if err != nil {
		return l.failure(err)
	}
	if made {
		// It may have been redriven since it was read, by one whose mark is gone.
		if _, err := s.GetDLQ(ctx, tenant, l.Sequence); err != nil {
			if !errors.Is(err, store.ErrNotFound) {
				return err
			}
			l.stop(adminapi.VerdictGone, "the letter is gone: another redrive or a purge took it")
			return store.DropMark(ctx, s, tenant, mark)
		}
	} else {
		done, again, err := r.settle(ctx, l, to, mark)
		switch {
		case err != nil || !done && !again:
			return err
		case done:
			return r.finish(ctx, l, mark)
		}
	}
	seq, duplicate, err := store.Republish(ctx, s, tenant, to.stream, to.msg)
	if err != nil {
		if errors.Is(err, store.ErrFull) { // nothing was stored: the mark would only be in the way
			return errors.Join(l.failure(err), store.DropMark(ctx, s, tenant, mark))
		}
		return err
	}
	l.out.StoredAt, l.out.Duplicate = seq, duplicate
	return r.finish(ctx, l, mark)
}

// failure makes a verdict of an error that is about this letter's target.
func (l *letter) failure(err error) error {
	switch {
	case errors.Is(err, store.ErrFull):
		l.stop(adminapi.VerdictFull, "the target has no room: what is in it must be read first, or the policy must give it more (deadLetter.maxBytes for retry queues)")
	case errors.Is(err, store.ErrQueueReads):
		l.stop(adminapi.VerdictRefused, "the retry queue may have events that the owner of the consumer may not read now: grant them, or use --to all")
		l.out.Code = wire.CodeFilterDenied
	case errors.Is(err, store.ErrNotFound):
		l.stop(adminapi.VerdictUnsupported, err.Error())
	default:
		return err
	}
	return nil
}

// finish removes a letter that its target has, and then its mark.
func (r *Redriver) finish(ctx context.Context, l *letter, mark *store.Mark) error {
	s, tenant := r.cfg.Store, l.tenant.Name
	if _, err := store.RemoveDLQ(ctx, s, tenant, l.Sequence); err != nil {
		return err
	}
	l.out.Verdict = adminapi.VerdictRedriven
	r.cfg.Done(tenant, l.order.By.FullName(), fmt.Sprintf("dead letter %d, redrive %d, to %s, stored as %d", l.Sequence, l.out.Count, l.out.To, l.out.StoredAt))
	return store.DropMark(ctx, s, tenant, mark)
}

// State is where the dead letters of a tenant are.
//
// Errors: those of store.StateOfDLQ.
func (r *Redriver) State(ctx context.Context, tenant string) (store.DLQState, error) {
	return store.StateOfDLQ(ctx, r.cfg.Store, tenant)
}

// Remove takes a dead letter away, and the mark of a redrive that did not finish.
//
// Errors: those of store.RemoveDLQ.
func (r *Redriver) Remove(ctx context.Context, tenant string, seq uint64) (removed bool, err error) {
	if removed, err = store.RemoveDLQ(ctx, r.cfg.Store, tenant, seq); err != nil {
		return removed, err
	}
	mark, err := store.MarkOf(ctx, r.cfg.Store, tenant, seq)
	if mark == nil || err != nil {
		return removed, err
	}
	return removed, store.DropMark(ctx, r.cfg.Store, tenant, mark)
}
