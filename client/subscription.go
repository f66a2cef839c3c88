package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
)

// Stats counts what a subscription did since it began.
type Stats struct {
	Delivered uint64 // given to the handler
	Failed    uint64 // the handler returned an error
	Invalid   uint64 // kept from the handler: the attestation does not hold
	Deferred  uint64 // held or put back: the attestation could not be checked
	Pulls     uint64
	Restarts  uint64 // consumers made anew after a loss
}

// Subscription feeds one handler. Make it with Client.Subscribe or
// Client.SubscribeLive. All methods may be called by any goroutine, handlers
// included, and more than once.
//
// Goroutines: one of nats.go parses and verifies in order, Concurrency workers
// run the handler, one supervisor pulls and heals (stored events only). All are
// gone when Closed is closed.
type Subscription struct {
	client  *Client
	cfg     *subConfig
	handler Handler
	filter  string
	stored  *puller     // nil for SubscribeLive
	retry   *retryQueue // nil without Durable

	nsub    *nats.Subscription
	dec     decoder // of the goroutine that reads
	work    chan *Delivery
	workers sync.WaitGroup

	life ending

	errMu sync.Mutex
	err   error

	delivered, failed, invalid, deferred, pulls, restarts atomic.Uint64
}

// ending is how a subscription comes to its end.
type ending struct {
	ctx     context.Context // of the handlers; ends with Stop
	stop    context.CancelFunc
	leaving chan struct{} // closed by the first Stop, Drain or fail
	leave   sync.Once
	ended   sync.Once
	closed  chan struct{}
}

func (c *Client) newSubscription(filter string, handler Handler, opts []SubOption) (*Subscription, error) {
	if handler == nil {
		return nil, fmt.Errorf("%w: no handler", ErrInvalidOption)
	}
	if err := wire.CheckFilter(filter); err != nil {
		return nil, malformed("subscribe", filter, "", err)
	}
	cfg := defaultSubConfig()
	for _, o := range opts {
		if err := o(cfg); err != nil {
			return nil, err
		}
	}
	s := &Subscription{
		client: c, cfg: cfg, handler: handler, filter: filter,
		work: make(chan *Delivery, cfg.maxInFlight), life: ending{leaving: make(chan struct{}), closed: make(chan struct{})},
	}
	s.life.ctx, s.life.stop = context.WithCancel(context.Background())
	return s, nil
}

// begin starts the workers. From here on the subscription must end through
// finish.
func (s *Subscription) begin() {
	for range s.cfg.concurrency {
		s.workers.Go(s.handle)
	}
}

// handle runs the handler on what was verified, until work is closed.
func (s *Subscription) handle() {
	for d := range s.work {
		if s.life.ctx.Err() != nil {
			continue // Stop discards; the broker delivers again
		}
		s.delivered.Add(1)
		err := s.handler(s.life.ctx, d)
		if err != nil {
			s.failed.Add(1)
		}
		if err := d.conclude(err); err != nil && s.life.ctx.Err() == nil {
			s.client.cfg.onError(err)
		}
	}
}

// push hands a delivery to the workers; false when the subscription stops.
func (s *Subscription) push(d *Delivery) bool {
	select {
	case s.work <- d:
		return true
	case <-s.life.ctx.Done():
		return false
	}
}

// verify is the only way from a message to a delivery. later says that the check
// could not be made now.
func (s *Subscription) verify(msg *nats.Msg, stored time.Time) (d *Delivery, later bool, err error) {
	return s.verifyWith(&s.dec, msg, stored)
}

// verifyWith is verify in another goroutine than the one that reads, with its decoder.
func (s *Subscription) verifyWith(dec *decoder, msg *nats.Msg, stored time.Time) (d *Delivery, later bool, err error) {
	rec, err := dec.decode(msg)
	if err != nil {
		return nil, false, err
	}
	if !wire.Match(s.filter, msg.Subject) {
		return nil, false, fmt.Errorf("%w: the subject is outside the filter %q", errHeaders, s.filter)
	}
	att, err := attestation(s.life.ctx, s.client, rec, msg.Subject, stored)
	if err != nil {
		return nil, errors.Is(err, errLater), err
	}
	if !strings.HasPrefix(att.Principal, s.client.tenant) {
		return nil, false, errTenant
	}
	producer, fault, err := s.producerOf(rec, msg.Subject, stored)
	if err != nil {
		return nil, errors.Is(err, errLater), err
	}
	both := &struct {
		d Delivery
		e Event
	}{}
	both.e.fill(rec, false)
	d = &both.d
	d.Event, d.NATSSubject, d.Principal, d.Attestation, d.msg = &both.e, msg.Subject, att.Principal, att, msg
	d.Producer, d.ProducerFault = producer, fault
	d.Redrives = redrives(msg.Header)
	if err := s.decrypt(d, stored); err != nil {
		return nil, errors.Is(err, errLater), err
	}
	return d, false, nil
}

// errTenant: the event was copied from another tenant's store.
var errTenant = errors.New("client: the event is attested for another tenant")

var errLater = errors.New("client: the attestation cannot be checked now")

// clockSlack is how far the clocks of broker and reader may be apart when the
// age of a keyring is compared with that of an event.
const clockSlack = time.Minute

// attestation verifies rec.
func attestation(ctx context.Context, c *Client, rec *cloudevent.Event, natsSubject string, stored time.Time) (signing.Attestation, error) {
	return freshly(ctx, c, stored, func() (signing.Attestation, error) { return c.verifier.Verify(rec, natsSubject) }, signing.ErrUnknownKey)
}

// freshly verifies what was stored then. What the keyring says against it, one of the
// errors in doubt, may be older than the event: only a keyring fetched after that
// decides it.
func freshly[T any](ctx context.Context, c *Client, stored time.Time, verify func() (T, error), doubt ...error) (T, error) {
	got, err := verify()
	unknown := slices.ContainsFunc(doubt, func(is error) bool { return errors.Is(err, is) })
	if err == nil || !unknown && !errors.Is(err, signing.ErrNoKeyring) {
		return got, err
	}
	after := time.Now()
	if unknown && !stored.IsZero() {
		after = stored.Add(clockSlack)
	}
	call, cancel := context.WithTimeout(ctx, c.cfg.timeout)
	defer cancel()
	if !c.ring.settle(call, after) {
		return got, fmt.Errorf("%w: %w", errLater, err)
	}
	got, err = verify()
	if errors.Is(err, signing.ErrNoKeyring) {
		err = fmt.Errorf("%w: %w", errLater, err)
	}
	return got, err
}

// refuse counts and reports an event that the handler must not see.
func (s *Subscription) refuse(ev InvalidEvent) {
	if ev.Retried {
		s.deferred.Add(1)
	} else {
		s.invalid.Add(1)
	}
	s.client.cfg.onInvalid(ev)
}

// Stop ends the subscription at once: the context of running handlers ends, and
// what is buffered is discarded, to be delivered again later. It does not wait;
// Closed does.
func (s *Subscription) Stop() {
	s.life.stop()
	s.life.leave.Do(func() { close(s.life.leaving) })
	// An error means that the connection or the subscription has ended already.
	_ = s.nsub.Unsubscribe()
}

// Drain takes no new events, and ends when those that are buffered have been
// handled. It does not wait; Closed does.
func (s *Subscription) Drain() {
	s.life.leave.Do(func() {
		close(s.life.leaving)
		if err := s.nsub.Drain(); err != nil {
			_ = s.nsub.Unsubscribe() // as in Stop
		}
	})
}

// fail ends the subscription because of err.
func (s *Subscription) fail(err error) {
	s.errMu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.errMu.Unlock()
	s.client.cfg.onError(err)
	s.Drain()
}

// Closed is closed when the subscription has ended and its last handler has
// returned.
func (s *Subscription) Closed() <-chan struct{} { return s.life.closed }

// Err returns why the subscription ended by itself: ErrConsumerGone, ErrDenied,
// or the error of the client. It is nil after Stop and Drain.
func (s *Subscription) Err() error {
	s.errMu.Lock()
	defer s.errMu.Unlock()
	return s.err
}

// Stats returns the counters.
func (s *Subscription) Stats() Stats {
	return Stats{
		Delivered: s.delivered.Load(), Failed: s.failed.Load(), Invalid: s.invalid.Load(),
		Deferred: s.deferred.Load(), Pulls: s.pulls.Load(), Restarts: s.restarts.Load(),
	}
}

// finish is called when the reading goroutine has ended: nothing is pushed after
// it. It must not block that goroutine.
func (s *Subscription) finish() {
	s.life.ended.Do(func() {
		select {
		case <-s.life.leaving:
		default: // nobody asked for it: the connection ended
			s.errMu.Lock()
			if s.err == nil {
				s.err = s.client.Err()
			}
			if s.err == nil {
				s.err = fromTransport("subscription", s.filter, nats.ErrConnectionClosed)
			}
			s.errMu.Unlock()
			s.life.leave.Do(func() { close(s.life.leaving) })
		}
		if s.retry == nil {
			close(s.work)
			go s.end()
			return
		}
		go func() {
			<-s.retry.done // it pushes, too
			close(s.work)
			s.end()
		}()
	})
}

func (s *Subscription) end() {
	s.workers.Wait()
	if s.stored != nil {
		s.stored.end()
	}
	s.life.stop()
	s.client.subs.drop(s)
	close(s.life.closed)
}

// reconnected implements subscription.
func (s *Subscription) reconnected() {
	if s.stored != nil {
		s.stored.wake(s.stored.back)
	}
}

// denied implements subscription: the broker refuses a subject of this
// connection.
func (s *Subscription) denied(natsSubject string, err error) {
	if natsSubject == s.nsub.Subject {
		s.fail(err)
	}
}
