package deadletter

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/dlq"
	"github.com/signetbus/signet/internal/wire"
)

// Covers reports whether what consumers of a stream fail on becomes a dead letter: what
// the policy declares for events, and what is redriven. Never the dead letters themselves.
func Covers(t *policy.Tenant, stream string) bool {
	return t != nil && (stream == wire.StreamRetry || t.Stream(stream) != nil)
}

// Failure is one delivery that failed for good, or that may be one too many.
type Failure struct {
	Tenant, Stream, Consumer string

	Ack      string    // subject of the delivery's acknowledgement
	Sequence uint64    // in Stream
	Attempt  uint64    // number of the delivery, from 1
	By       string    // "tenant/name" whom it was for
	First    time.Time // when it was delivered for the first time; zero: not known

	// Terminated: the consumer gave it up, with Reason as its text. Reply is where the
	// server says that it knows, empty for nowhere. Otherwise the delivery was withheld.
	Terminated    bool
	Reason, Reply string

	// Deliver hands the delivery on after all, Withheld is told that it is one too many. nil:
	// that is known.
	Deliver, Withheld func()
	Size              int // bytes that they hold on to
}

// Failures is what a Keeper needs of the store. Safe for concurrent use.
type Failures interface {
	// Facts looks at a consumer; store.ErrNotFound if it is gone.
	Facts(ctx context.Context, tenant, stream, consumer string) (store.ConsumerFacts, error)
	// Event reads a stored event; store.ErrNotFound if it is gone.
	Event(ctx context.Context, tenant, stream string, seq uint64) (*store.StoredEvent, error)
	// Publish stores a dead letter and returns when it is on stable storage. first: it
	// was not there yet.
	Publish(ctx context.Context, tenant, subject string, header nats.Header, data []byte) (first bool, err error)
	// Settle acknowledges a delivery with body; see store.Settle.
	Settle(ctx context.Context, tenant, ack, reply, body string) error
	// Progress starts the ack wait of a delivery anew.
	Progress(tenant, ack string) error
}

// errNotPending: the server knows nothing of the delivery that is to be terminated.
var errNotPending = errors.New("deadletter: the delivery is not pending")

// fail makes a dead letter of f and then lets the event go. An error leaves the event
// pending: it is delivered again, and fails again.
func (k *Keeper) fail(ctx context.Context, f *Failure, facts *store.ConsumerFacts) error {
	if f.Terminated {
		// A client may terminate what it never had: only what its consumer has delivered and
		// may read is kept.
		switch {
		case f.Sequence > facts.Delivered:
			return errNotPending
		case f.Sequence <= facts.AckFloor, facts.Ack == "none":
			return k.settle(ctx, f)
		}
	}
	_ = k.cfg.Store.Progress(f.Tenant, f.Ack) // a delivery meanwhile would only be withheld
	event, err := k.cfg.Store.Event(ctx, f.Tenant, f.Stream, f.Sequence)
	if errors.Is(err, store.ErrNotFound) {
		k.count(func(s *KeeperStats) { s.Gone++ })
		return k.settle(ctx, f)
	}
	if err != nil {
		return err
	}
	if !wants(facts.Filters, event.Subject) {
		return errNotPending
	}
	r := k.record(f, facts, event)
	header, body, err := r.Encode()
	if err != nil {
		return err
	}
	first, err := k.cfg.Store.Publish(ctx, f.Tenant, r.Subject(), header, body)
	if err != nil {
		return err
	}
	k.count(func(s *KeeperStats) {
		if first {
			s.Written[r.Reason]++
		} else {
			s.Repeated++
		}
	})
	return k.settle(ctx, f)
}

// settle lets the event go. The dead letter is there by now: if the server does not get
// it, the event comes again and is the same dead letter.
func (k *Keeper) settle(ctx context.Context, f *Failure) error {
	body := "+TERM"
	switch {
	case !f.Terminated:
		body += " too many deliveries"
	case f.Reason != "":
		body += " " + f.Reason
	}
	k.forget(eventKey{consumerKey{f.Tenant, f.Stream, f.Consumer}, f.Sequence})
	if err := k.cfg.Store.Settle(ctx, f.Tenant, f.Ack, f.Reply, body); err != nil {
		k.count(func(s *KeeperStats) { s.Unsettled++ })
	}
	return nil
}

// wants reports whether a consumer with these filters (none: all) gets the subject.
func wants(filters []string, subject string) bool {
	return len(filters) == 0 || slices.ContainsFunc(filters, func(f string) bool { return wire.Match(f, subject) })
}

// record says what is known of the failure.
func (k *Keeper) record(f *Failure, facts *store.ConsumerFacts, event *store.StoredEvent) *dlq.Record {
	now := k.cfg.Now()
	set := k.cfg.Policy()
	redriven, header := dlq.SplitRedrive(event.Header)
	r := &dlq.Record{
		Reason: dlq.ReasonDelivery, Stage: dlq.StageConsumer, Time: now, Policy: set.Digest(),
		Principal: facts.Owner, By: f.By, NATSSubject: event.Subject, Stored: event.Time,
		Origin:   dlq.Origin{Stream: f.Stream, Sequence: f.Sequence, Consumer: f.Consumer},
		Redrives: redriven.Count, Attempts: int(min(f.Attempt, 1<<31-1)),
		Header: header, Payload: event.Payload,
	}
	if f.Stream == wire.StreamRetry && redriven.Origin.Stream != "" {
		r.Origin, r.NATSSubject = redriven.Origin, redriven.Subject
	}
	t := set.Tenant(f.Tenant)
	if b := t.Binding(r.NATSSubject); b != nil && b.Schema != nil {
		r.Schema = schemaName(b.Schema)
	}
	switch text, failed := strings.CutPrefix(f.Reason, dlq.HandlerPrefix); {
	case f.Terminated && failed:
		r.Reason, r.Detail = dlq.ReasonHandler, text
	case f.Terminated:
		r.Reason, r.Detail = dlq.ReasonTerminated, f.Reason
	default:
		r.Attempts-- // the last one was withheld
		r.Rule = "retry " + f.Stream + "." + f.Consumer
		r.Detail = "not acknowledged after " + plural(r.Attempts)
		if expired(header, now) {
			r.Reason = dlq.ReasonTTL
			r.Detail = "expired, and " + r.Detail
		}
	}
	r.Deliveries = k.history(f)
	return r
}
