package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/wire"
)

// AttrExpiry is the CloudEvents extension that says until when an event is of use.
const AttrExpiry = "expirytime"

// Headers of schedules and expiry, each a right by its name.
const (
	headerSchedule       = "Nats-Schedule"
	headerScheduleTarget = "Nats-Schedule-Target"
	headerScheduleTTL    = "Nats-Schedule-TTL"
	headerTTL            = "Nats-TTL"
)

// ErrExpired says that an event was not published because its expirytime is over.
var ErrExpired = errors.New("client: the event has expired")

// ExpireAt sets the expirytime of the event, to the second: the moment after which it is of
// no use. Publish refuses an event that has expired; with WithExpiry the broker deletes it
// then.
func (e *Event) ExpireAt(t time.Time) {
	e.Extensions = maps.Clone(e.Extensions)
	if e.Extensions == nil {
		e.Extensions = map[string]string{}
	}
	e.Extensions[AttrExpiry] = t.UTC().Truncate(time.Second).Format(time.RFC3339)
}

// Expiry returns the expirytime of the event; ok is false without one, or if it is no
// time.
func (e *Event) Expiry() (t time.Time, ok bool) {
	text, there := e.Extensions[AttrExpiry]
	if !there {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	return t, err == nil
}

// WithExpiry has the broker delete the event at its expirytime (Event.ExpireAt). It
// needs a grant for the header Nats-TTL, and a stream with messageTTL; for PublishAt, a
// grant for Nats-Schedule-TTL. The time is counted in whole seconds from when the event is
// stored, by the clock of this process. Consumers that have it may still handle it.
//
// Errors of the publish: ErrInvalidOption for an event without an expirytime.
func WithExpiry() PubOpt {
	return func(p *pubConfig) error { p.expires = true; return nil }
}

// checkExpiry refuses an event that is of no use at when.
func checkExpiry(natsSubject, id string, ev *Event, when time.Time) error {
	text, there := ev.Extensions[AttrExpiry]
	if !there {
		return nil
	}
	t, ok := ev.Expiry()
	switch {
	case !ok:
		return malformed("publish", natsSubject, id, fmt.Errorf("extension %s: %q is not an RFC 3339 time", AttrExpiry, text))
	case !t.After(when):
		return &Error{
			Op: "publish", Class: string(wire.ClassMalformed), Title: "the event has expired", Subject: natsSubject, EventID: id,
			Detail: fmt.Sprintf("%s is %s", AttrExpiry, text), Fix: "give it a later expirytime, or leave it", Err: ErrExpired,
		}
	}
	return nil
}

// ttl is how long an event is of use after when, as the server wants it.
func ttl(ev *Event, when time.Time) string {
	t, _ := ev.Expiry()
	return strconv.FormatInt(int64(max(t.Sub(when)+time.Second-1, time.Second)/time.Second), 10) + "s"
}

// plan is when and by which subject an event is published later.
type plan struct {
	at    time.Time
	wait  string
	token string // of the event, below wait
}

// PublishAt stores ev to be published on natsSubject at a time, by the clock of the
// broker, to the second, not before. Until then it waits on a subject of its own: wait, and a token
// that follows from the principal, the source and the id of the event. Both subjects must be of one stream, which takes
// schedules (unsafeSchedules: true in the policy, which says what that costs), and both
// granted, with the headers Nats-Schedule and Nats-Schedule-Target.
//
// It is judged now, as a publish on natsSubject: grant, rate, size, schema, signature. A
// time that is over publishes at once. What waits is not an event yet: a subscription
// whose filter reaches wait finds it invalid. What repeats is a Schedule (SchedulesOf). The
// Ack is that of what waits.
//
// The same event published again is a duplicate; once the stream has forgotten the first
// one (its duplicate window), it takes the place of what waits.
//
// Errors: those of Publish; ErrInvalidOption for WithSignedAck and for a zero time.
func (c *Client) PublishAt(ctx context.Context, wait, natsSubject string, at time.Time, ev *Event, opts ...PubOpt) (*Ack, error) {
	if at.IsZero() {
		return nil, fmt.Errorf("%w: PublishAt: zero time", ErrInvalidOption)
	}
	if ev != nil && ev.ID == "" {
		// A retry must find the same place.
		copied := *ev
		copied.ID = NewID()
		ev = &copied
	}
	later := func(p *pubConfig) error { p.plan = &plan{at: at, wait: wait}; return nil }
	return c.Publish(ctx, natsSubject, ev, append([]PubOpt{later}, opts...)...)
}

// PublishAfter is PublishAt in d from now.
func (c *Client) PublishAfter(ctx context.Context, wait, natsSubject string, d time.Duration, ev *Event, opts ...PubOpt) (*Ack, error) {
	return c.PublishAt(ctx, wait, natsSubject, time.Now().Add(d), ev, opts...)
}

// apply adds to msg, which is ev with id, what the options say.
func (p *pubConfig) apply(msg *nats.Msg, id string, ev *Event, now time.Time) error {
	if p.plan == nil {
		if err := p.expire(headerTTL, ev, now); err != nil {
			return err
		}
		p.setHeader(msg)
		return nil
	}
	when, target := later(p.plan.at, now), msg.Subject
	if p.asks() {
		return fmt.Errorf("%w: WithSignedAck: what is published later has no signed acknowledgement", ErrInvalidOption)
	}
	if err := checkExpiry(target, id, ev, when); err != nil {
		return err
	}
	if err := p.expire(headerScheduleTTL, ev, when); err != nil {
		return err
	}
	msg.Subject = p.plan.wait + "." + p.plan.token
	if err := wire.CheckSubject(msg.Subject); err != nil {
		return malformed("publish", msg.Subject, id, err)
	}
	at := p.plan.at.UTC()
	if whole := at.Truncate(time.Second); whole.Before(at) {
		at = whole.Add(time.Second)
	}
	p.setHeader(msg)
	msg.Header[headerSchedule] = []string{"@at " + at.Format(time.RFC3339)}
	msg.Header[headerScheduleTarget] = []string{target}
	return nil
}

// expire adds the header with which the server deletes ev, if WithExpiry was given.
func (p *pubConfig) expire(header string, ev *Event, when time.Time) error {
	if !p.expires {
		return nil
	}
	if _, ok := ev.Expiry(); !ok {
		return fmt.Errorf("%w: WithExpiry: the event has no %s", ErrInvalidOption, AttrExpiry)
	}
	p.header = append(p.header, [2]string{header, ttl(ev, when)})
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
