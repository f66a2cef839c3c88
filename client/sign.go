package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
)

// MaxSignLinger is how long an event of PublishAsync waits for others that are
// signed with it. An event with no other in flight does not wait.
const MaxSignLinger = 2 * time.Millisecond

// resignAfter is the age at which a retry signs anew: the broker takes signed events
// for two minutes.
const resignAfter = time.Minute

// ErrProducerRequired says that an event has no signature of the producers that a
// subscription wants.
var ErrProducerRequired = errors.New("client: the event is not signed by a producer that this subscription wants")

// RequireProducer delivers only events that their producer has signed, and, if
// principals (tenant/name) are given, only those signed by one of them. Others go to
// WithInvalidHandler, with ErrProducerRequired, and are terminated. What an event
// must bear is never inferred from the event: without this option one whose signature
// was left away is delivered like any other that the policy of the broker let in, and
// so is one whose key the keyring does not let sign it, with Delivery.ProducerFault.
func RequireProducer(principals ...string) SubOption {
	return func(c *subConfig) error {
		for _, p := range principals {
			if tenant, name, ok := strings.Cut(p, "/"); !ok || tenant == "" || name == "" {
				return fmt.Errorf("%w: RequireProducer: %q is not tenant/name", ErrInvalidOption, p)
			}
		}
		c.signed, c.producers = true, slices.Clone(principals)
		return nil
	}
}

// producerOf verifies the producer signature of rec, if it has one. An event that was
// changed, or whose signature has no valid form, is refused whatever the subscription
// wants. What the keyring says of the key may change after the event was stored: only
// a subscription that asked for producers loses the event by that, others get fault.
func (s *Subscription) producerOf(rec *cloudevent.Event, natsSubject string, stored time.Time) (got signing.ProducerSignature, fault, err error) {
	if len(rec.Get(wire.AttrDSSE)) == 0 {
		if s.cfg.signed {
			return got, nil, ErrProducerRequired
		}
		return got, nil, nil
	}
	c := s.client
	got, err = freshly(s.life.ctx, c, stored, func() (signing.ProducerSignature, error) { return c.producer.Verify(rec, natsSubject) },
		signing.ErrUnknownKey, signing.ErrKeyNotValid)
	switch {
	case err != nil && !s.cfg.signed && (errors.Is(err, signing.ErrKeyNotValid) || errors.Is(err, signing.ErrUnknownKey)):
		return signing.ProducerSignature{}, err, nil
	case err != nil:
		return got, nil, err
	case !strings.HasPrefix(got.Principal, c.tenant):
		return got, nil, errTenant
	case len(s.cfg.producers) > 0 && !slices.Contains(s.cfg.producers, got.Principal):
		return got, nil, fmt.Errorf("%w: it is signed by %s", ErrProducerRequired, got.Principal)
	}
	return got, nil, nil
}

// eventSigner signs what a client publishes. A nil one signs nothing and has
// nothing to flush.
type eventSigner struct {
	key    *signing.Producer
	source []byte // of events that name none
	send   func(msg *nats.Msg, id string, f *Future) error

	// mu orders what is signed together: it is held while a batch is signed and given
	// to the connection, before the locks of the mux.
	mu      sync.Mutex
	batch   signing.ProducerBatch
	waiting []waitingEvent // in the order of the batch
	linger  *time.Timer    // runs while something waits
}

// waitingEvent is an event in the batch.
type waitingEvent struct {
	rec     *cloudevent.Event
	subject string
	id      string
	opts    *pubConfig
	future  *Future
	fail    func(error)
}

func newEventSigner(key *signing.Producer, source string, send func(*nats.Msg, string, *Future) error) *eventSigner {
	s := &eventSigner{key: key, source: []byte(source), send: send}
	s.linger = time.AfterFunc(time.Hour, s.flush)
	s.linger.Stop()
	return s
}

// complete makes the record of ev with everything that is signed: nobody may fill in
// anything afterwards.
func (s *eventSigner) complete(natsSubject, id string, ev *Event, now time.Time) (*cloudevent.Event, error) {
	if err := wire.CheckSubject(natsSubject); err != nil {
		return nil, malformed("publish", natsSubject, id, err)
	}
	out := *ev
	out.ID = id
	if out.Time.IsZero() {
		out.Time, out.timeText = now, ""
	}
	rec := out.record()
	if len(rec.Source) == 0 {
		rec.Source = s.source
	}
	if len(rec.Type) == 0 {
		rec.Type = []byte(natsSubject)
	}
	if len(rec.ContentType) == 0 {
		rec.ContentType = []byte(wire.DefaultContentType)
	}
	if len(rec.Get(wire.AttrRecordedTime)) > 0 {
		return nil, malformed("publish", natsSubject, id, errors.New("recordedtime is set when the event is signed"))
	}
	rec.SetExt([]byte(wire.AttrRecordedTime), signing.AppendRecordedTime(nil, now))
	if err := rec.Validate(); err != nil {
		return nil, malformed("publish", natsSubject, id, err)
	}
	return &rec, nil
}

// sign makes the message of one event with a signature of its own.
func (s *eventSigner) sign(natsSubject, id string, ev *Event, now time.Time) (*nats.Msg, error) {
	rec, err := s.complete(natsSubject, id, ev, now)
	if err != nil {
		return nil, err
	}
	if err := s.key.Sign(rec, natsSubject); err != nil {
		return nil, malformed("publish", natsSubject, id, err)
	}
	return &nats.Msg{Subject: natsSubject, Header: headerOf(rec), Data: rec.Data}, nil
}

// publishSigned is PublishAsync of a client that signs.
func publishSigned(ctx context.Context, c *Client, natsSubject string, ev *Event, opts []PubOpt) (*Future, error) {
	if ev == nil {
		return nil, malformed("publish", natsSubject, "", errors.New("no event"))
	}
	id := ev.ID
	if id == "" {
		id = NewID()
	}
	now := time.Now()
	if err := checkExpiry(natsSubject, id, ev, now); err != nil {
		return nil, err
	}
	p, err := pubOptions(opts)
	if err == nil {
		err = p.expire(headerTTL, ev, now)
	}
	if err != nil {
		return nil, err
	}
	if err := slot(ctx, c, p.asks()); err != nil {
		return nil, notSent(natsSubject, id, err)
	}
	// After the slot, which may be long in coming: recordedtime says when it is sent.
	rec, err := c.signer.complete(natsSubject, id, ev, time.Now())
	if err != nil {
		free(c, p.asks())
		return nil, err
	}
	f := &Future{done: make(chan struct{})}
	w := waitingEvent{rec: rec, subject: natsSubject, id: id, opts: p, future: f, fail: func(err error) {
		f.err = err
		free(c, p.asks())
		close(f.done)
	}}
	if err := c.signer.add(w, len(c.slots) == 1); err != nil {
		free(c, p.asks())
		return nil, malformed("publish", natsSubject, id, err)
	}
	return f, nil
}

// add puts w into the batch, which goes out when it is full, when its first event has
// waited for MaxSignLinger, or now.
func (s *eventSigner) add(w waitingEvent, now bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.batch.Add(w.rec, []byte(w.subject)); err != nil {
		return err
	}
	s.waiting = append(s.waiting, w)
	switch n := len(s.waiting); {
	case now || n == signing.MaxProducerBatch:
		s.flushLocked()
	case n == 1:
		s.linger.Reset(MaxSignLinger)
	}
	return nil
}

// flush signs and sends what waits.
func (s *eventSigner) flush() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushLocked()
}

func (s *eventSigner) flushLocked() {
	if len(s.waiting) == 0 {
		return
	}
	s.linger.Stop()
	s.batch.Sign(s.key)
	for i := range s.waiting {
		w := &s.waiting[i]
		w.rec.SetExt([]byte(wire.AttrDSSE), s.batch.AppendMaterial(nil, i))
		msg := &nats.Msg{Subject: w.subject, Header: headerOf(w.rec), Data: w.rec.Data}
		w.opts.setHeader(msg)
		if err := s.send(msg, w.id, w.future); err != nil {
			w.fail(err)
		}
	}
	clear(s.waiting) // they hold data of the caller
	s.waiting = s.waiting[:0]
	s.batch.Reset()
}
