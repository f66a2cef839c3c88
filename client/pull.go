package client

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/wire"
)

const (
	pullExpires   = 30 * time.Second
	pullHeartbeat = 5 * time.Second
	silence       = 12 * time.Second       // without a frame: two heartbeats were missed
	firstBackoff  = 250 * time.Millisecond // after a pull or a consumer was refused; doubles
	longBackoff   = 10 * time.Second
	laterDelay    = minKeyringInterval // of an event that cannot be checked now
)

// puller keeps a stored subscription fed: it asks for events as they are
// consumed, and heals lost pulls and lost consumers.
type puller struct {
	s      *Subscription
	stream string
	inbox  string

	pending atomic.Int64  // asked for and not come
	frames  atomic.Uint64 // everything that came
	kick    chan struct{} // pending is low
	back    chan struct{} // the connection is back
	lost    chan error    // a status that is more than the end of a pull
	workers sync.WaitGroup
	keyed   *partition // of SubscribeKeyed: gets the deliveries in place of the workers
	waiting holding    // of the goroutine that reads

	mu       sync.Mutex
	consumer string
	expect   uint64              // next consumer sequence, of an ordered consumer
	last     uint64              // greatest stream sequence that came, or the one before the start
	open     map[uint64]struct{} // delivered and not settled; nil where a lost consumer is not remade from it
}

// Subscribe delivers the stored events that match filter to handler. ctx bounds
// the setting up only. Options choose a durable consumer, the start, and bounds;
// by default it begins with the oldest stored event, in order, with
// acknowledgement.
//
// Errors: ErrInvalidOption, ErrMalformed, ErrDenied (the filter reaches outside
// the grants), ErrNotFound (no stream holds the subject), ErrConflict (the
// durable has another filter), ErrUnavailable.
func (c *Client) Subscribe(ctx context.Context, filter string, handler Handler, opts ...SubOption) (*Subscription, error) {
	s, err := c.newSubscription(filter, handler, opts)
	if err == nil {
		err = s.cfg.validate()
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.cfg.deadline(ctx)
	defer cancel()
	p := newPuller(s, s.cfg.stream)
	s.stored = p
	if p.stream == "" {
		if p.stream, err = c.js().streamFor(ctx, filter); err != nil {
			return nil, err
		}
	}
	if s.cfg.durable != "" {
		_, _, err = c.js().ensureDurable(ctx, p.stream, filter, s.cfg)
	} else {
		err = p.create(ctx, s.cfg.consumer(filter))
	}
	if err != nil {
		return nil, err
	}
	s.retry = newRetryQueue(s, p.stream)
	if err := p.attach(); err != nil {
		s.retry.abandon()
		p.end()
		s.life.stop()
		return nil, fromTransport("subscribe", filter, err)
	}
	return s, nil
}

func newPuller(s *Subscription, stream string) *puller {
	return &puller{
		s: s, stream: stream, inbox: nats.NewInbox(), consumer: s.cfg.durable,
		kick: make(chan struct{}, 1), back: make(chan struct{}, 1), lost: make(chan error, 1),
	}
}

// attach starts the reading goroutine, the workers and the supervisor.
func (p *puller) attach() error {
	s := p.s
	// nats.go has no way to give the closed handler with the subscription: events
	// wait for ready, so that nothing is pushed before the two are known.
	ready, alive := make(chan struct{}), false
	sub, err := s.client.nc.Subscribe(p.inbox, func(m *nats.Msg) {
		if <-ready; alive {
			p.onMessage(m)
		}
	})
	if err != nil {
		return err
	}
	defer close(ready)
	s.nsub = sub
	sub.SetClosedHandler(func(string) { s.finish() })
	// What is buffered is bounded by what is asked for, so nothing may be dropped.
	if err := sub.SetPendingLimits(-1, -1); err != nil || !sub.IsValid() {
		return errors.Join(nats.ErrConnectionClosed, err, sub.Unsubscribe())
	}
	alive = true
	s.begin()
	s.client.subs.add(s)
	p.workers.Go(p.run)
	s.retry.begin()
	return nil
}

// create makes a consumer of this subscription alone.
func (p *puller) create(ctx context.Context, cfg consumerConfig) error {
	name := consumerName()
	info, err := p.s.client.js().createConsumer(ctx, p.stream, name, p.s.filter, cfg)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.consumer, p.expect = name, 1
	p.last = max(p.last, info.Delivered.StreamSeq)
	if !p.s.cfg.ordered {
		p.open = map[uint64]struct{}{}
	}
	p.mu.Unlock()
	return nil
}

// wake sets a signal that may be set already.
func (p *puller) wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// report tells the supervisor about trouble; one at a time is enough.
func (p *puller) report(err error) {
	select {
	case p.lost <- err:
	default:
	}
}

// run is the supervisor. It ends when the subscription is left.
func (p *puller) run() {
	quiet := time.NewTicker(silence)
	defer quiet.Stop()
	again := time.NewTimer(time.Hour)
	again.Stop()
	defer again.Stop()
	backoff, seen := firstBackoff, uint64(0)
	heal := func(err error) {
		if err != nil {
			p.pending.Store(0)
			again.Reset(backoff)
			backoff = min(2*backoff, longBackoff)
		}
	}
	p.pull()
	for {
		select {
		case <-p.s.life.leaving:
			return
		case <-p.kick:
			backoff = firstBackoff // a pull worked
			p.pull()
		case err := <-p.lost:
			if !errors.Is(err, errGap) && !errors.Is(err, errLater) {
				p.s.client.cfg.onError(atSubject(err, p.s.filter))
			}
			heal(err)
		case <-p.back:
			heal(p.revive())
		case <-again.C:
			heal(p.revive())
		case <-quiet.C:
			now := p.frames.Load()
			if now == seen && p.s.client.nc.IsConnected() && len(p.s.work) == 0 {
				heal(p.revive())
			}
			seen = now
		}
	}
}

// pull asks for as many events as fit.
func (p *puller) pull() {
	most := int64(p.s.cfg.maxInFlight)
	have := p.pending.Load()
	if have > most/2 || p.keyed != nil && !p.keyed.holds() {
		return
	}
	p.mu.Lock()
	consumer := p.consumer
	p.mu.Unlock()
	expires, heartbeat := pullExpires, pullHeartbeat
	if p.keyed != nil {
		// Over before anybody else takes the partition: what is sent to a process that is
		// cut off counts as delivered.
		expires = min(expires, p.keyed.g.cfg.Lease)
		heartbeat = min(heartbeat, expires/3)
	}
	body, err := json.Marshal(struct {
		Batch     int64         `json:"batch"`
		Expires   time.Duration `json:"expires"`
		Heartbeat time.Duration `json:"idle_heartbeat"`
	}{most - have, expires, heartbeat})
	if err != nil { // three numbers always encode
		return
	}
	p.pending.Add(most - have)
	// An error means disconnected, or closed: the reconnect or the end comes next.
	if err := p.s.client.nc.PublishRequest(wire.PrefixJSAPI+"CONSUMER.MSG.NEXT."+p.stream+"."+consumer, p.inbox, body); err == nil {
		p.s.pulls.Add(1)
	}
}

// revive checks the consumer, remakes it where that loses nothing, and pulls. An
// error means that it must be called again later.
func (p *puller) revive() error {
	s := p.s
	p.pending.Store(0)
	if !s.client.nc.IsConnected() {
		return nil // called again when it is back
	}
	ctx, cancel := context.WithTimeout(s.life.ctx, s.client.cfg.timeout)
	defer cancel()
	p.mu.Lock()
	consumer, broken := p.consumer, s.cfg.ordered && p.expect == 0
	p.mu.Unlock()
	var err error
	if !broken {
		if _, err = s.client.js().consumerInfo(ctx, p.stream, consumer); err == nil {
			p.pull()
			return nil
		}
	}
	switch {
	case broken, errors.Is(err, ErrNotFound) && s.cfg.durable == "":
		err = p.remake(ctx)
	case errors.Is(err, ErrNotFound):
		s.fail(&Error{Op: "subscription", Class: string(wire.ClassNotFound), Title: "the durable consumer is gone", Subject: s.filter, Err: ErrConsumerGone})
		return nil
	}
	if err != nil {
		if ctx.Err() == nil || s.life.ctx.Err() == nil {
			s.client.cfg.onError(err)
		}
		return err
	}
	p.pull()
	return nil
}

// remake makes a new consumer that begins with the first event that was not
// settled, or after the last one that came.
func (p *puller) remake(ctx context.Context) error {
	cfg := p.s.cfg.consumer(p.s.filter)
	p.mu.Lock()
	old, from := p.consumer, p.last+1
	if len(p.open) > 0 {
		from = slices.Min(slices.Collect(maps.Keys(p.open)))
	}
	p.mu.Unlock()
	cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = "by_start_sequence", from, nil
	if err := p.create(ctx, cfg); err != nil {
		return err
	}
	p.s.restarts.Add(1)
	// The old one is idle or gone; its inactivity bound removes it in any case.
	_ = p.s.client.js().deleteConsumer(ctx, p.stream, old)
	return nil
}

// end waits for the supervisor and deletes a consumer that nobody else can use.
func (p *puller) end() {
	p.workers.Wait()
	p.mu.Lock()
	consumer := p.consumer
	p.mu.Unlock()
	c := p.s.client
	if p.s.cfg.durable != "" || !c.nc.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	// Best effort: the server removes it after the inactivity bound.
	_ = c.js().deleteConsumer(ctx, p.stream, consumer)
}
