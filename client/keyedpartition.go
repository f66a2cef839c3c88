package client

import (
	"context"
	"errors"
	"sync"
	"time"
)

// partition is one partition while this process has it: a durable consumer that is read
// here, and what of it is not settled. It is made anew each time the partition is taken.
//
// Goroutines: the one of nats.go that reads calls arrived and missed; tend keeps waits
// from running out and asks the broker how things stand; workers of the group call run, the
// worker of the subscription beside.
type partition struct {
	g     *KeyedSubscription
	index int
	sub   *Subscription
	fence uint64
	taken time.Time
	wait  time.Duration   // for acknowledgements, as the consumer was made
	ctx   context.Context // of handlers; ends when the partition is lost or the group stops
	stop  context.CancelFunc
	gone  chan struct{} // closed when nothing of it runs any more

	mu    sync.Mutex // guards what follows; nothing else is locked under it but the ready queue
	order *keyOrder
	state partitionState
}

type partitionState uint8

const (
	partitionOpen    partitionState = iota
	partitionClosing                // begins nothing; what runs may settle
	partitionLost                   // another's, or nobody knows: settles nothing
)

// How a partition looks after itself.
const (
	tendEvery  = 250 * time.Millisecond
	awayEvery  = 2 * time.Second              // how often a key that waits for a redelivery is asked for
	zombiePull = pullExpires + 15*time.Second // how long a pull of the last owner may be open
)

// take makes the partition ours and starts reading it.
func (g *KeyedSubscription) take(ctx context.Context, index int, fence uint64) (*partition, error) {
	p := &partition{g: g, index: index, fence: fence, taken: time.Now(), gone: make(chan struct{})}
	p.order = newKeyOrder(p)
	s, err := g.client.newSubscription(g.filter, p.beside, nil)
	if err != nil {
		return nil, err
	}
	p.sub = s
	cfg := *g.sub
	cfg.durable, cfg.concurrency = g.cfg.durable(index), 1
	s.cfg = &cfg
	p.ctx, p.stop = context.WithCancel(g.life.ctx)
	ctx, cancel := g.client.cfg.deadline(ctx)
	defer cancel()
	info, err := g.client.js().consumerInfo(ctx, g.stream, cfg.durable)
	if err == nil {
		p.wait = info.Config.AckWait
		p.order.begins(info.standing())
		s.stored = newPuller(s, g.stream)
		s.stored.keyed = p
		s.retry = newRetryQueue(s, g.stream)
		if err = s.stored.attach(); err != nil {
			s.retry.abandon()
			err = fromTransport("subscribe", g.filter, err)
		}
	}
	if err != nil {
		p.stop()
		s.life.stop()
		return nil, err
	}
	g.life.tenders.Go(p.tend)
	return p, nil
}

// holds says whether what is delivered here may be settled here.
func (p *partition) holds() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state != partitionLost && p.g.leased()
}

// missed is told of an event that was kept from the handlers. One that comes again later
// holds everything back: nobody knows its key.
func (p *partition) missed(info *ackInfo, later bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.order.follow(info.consumerSeq)
	if later {
		p.order.unread()
	}
}

// arrived takes a delivery in.
func (p *partition) arrived(info *ackInfo, d *Delivery) {
	d.Key, d.Fence = p.g.cfg.Key(d), p.fence
	mine := partitionOf(d.Key, p.g.cfg.Partitions) == p.index
	p.mu.Lock()
	p.order.follow(info.consumerSeq)
	var ready *entry
	settle := false
	switch {
	case mine:
		ready, settle = p.order.arrive(info.streamSeq, d.Key, d)
	case p.order.barrier:
		p.order.foreign[info.streamSeq] = d
	default:
		settle = true
	}
	p.mu.Unlock()
	if settle {
		p.acknowledge(d)
	}
	p.g.ready.push(ready)
}

// beside handles an event that comes to the consumer by another way than its stream, and
// has no place in the order: while no other of its key is handled.
func (p *partition) beside(_ context.Context, d *Delivery) error {
	d.Key, d.Fence = p.g.cfg.Key(d), p.fence
	for {
		p.mu.Lock()
		ok := p.state == partitionOpen && p.g.leased() && p.order.lend(d.Key)
		p.mu.Unlock()
		if ok {
			break
		}
		_ = d.InProgress()
		if !sleep(p.ctx, tendEvery) {
			return p.ctx.Err()
		}
	}
	p.g.stats.delivered.Add(1)
	err := p.g.handler(p.ctx, d)
	if err != nil {
		p.g.stats.failed.Add(1)
	}
	p.mu.Lock()
	next := p.order.giveBack(d.Key)
	p.mu.Unlock()
	p.g.ready.push(next)
	return err
}

// acknowledge settles what is not for a handler.
func (p *partition) acknowledge(d *Delivery) {
	if err := d.Ack(); err != nil && !errors.Is(err, ErrFenced) && !errors.Is(err, ErrSettled) && p.ctx.Err() == nil {
		p.g.client.cfg.onError(err)
	}
}

// run handles e, which was queued, unless that has changed.
func (p *partition) run(e *entry) {
	if !p.g.leased() {
		p.close(true) // e is not handled, so nothing else of its key may be
		return
	}
	p.mu.Lock()
	ok := p.state == partitionOpen && p.ctx.Err() == nil && p.order.begin(e)
	p.mu.Unlock()
	if !ok {
		return
	}
	p.g.stats.delivered.Add(1)
	err := p.g.handler(p.ctx, e.d)
	if err != nil {
		p.g.stats.failed.Add(1)
	}
	switch err := e.d.conclude(err); {
	case errors.Is(err, ErrFenced):
		p.g.stats.fenced.Add(1)
	case err != nil && p.ctx.Err() == nil:
		p.g.client.cfg.onError(err)
	}
	p.mu.Lock()
	next := p.order.finish(e, e.d.outcome())
	p.mu.Unlock()
	p.g.ready.push(next)
}

// close begins nothing more; with lost nothing is settled any more either.
func (p *partition) close(lost bool) {
	p.mu.Lock()
	if lost {
		p.state = partitionLost
	} else {
		p.state = max(p.state, partitionClosing)
	}
	p.mu.Unlock()
	if lost {
		p.stop()
	}
	p.sub.Stop()
}

// tend runs until the partition is given up and the last handler of it has returned.
func (p *partition) tend() {
	defer p.g.wake()
	defer close(p.gone)
	defer p.stop()
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	var extended, asked time.Time
	for {
		<-tick.C
		now := time.Now()
		p.mu.Lock()
		state, running := p.state, p.order.running()
		barrier, away := p.order.waitsFor()
		held := p.order.held()
		p.mu.Unlock()
		select {
		case <-p.sub.Closed():
			if state == partitionOpen && p.g.leaving() { // the client drains: what runs may settle
				p.close(false)
			} else if state == partitionOpen { // nobody asked for it
				p.close(true)
				partitionEnded(p.g, p.sub.Err())
			} else if running == 0 {
				return
			}
			continue
		default:
		}
		if state == partitionLost || !p.g.leased() {
			continue // the group stops the subscription
		}
		if now.Sub(extended) >= p.wait/3 {
			extended = now
			for _, d := range held {
				_ = d.InProgress() // settled meanwhile, or disconnected: it comes again
			}
		}
		if state == partitionOpen && (barrier || away && now.Sub(asked) >= awayEvery) {
			asked = now
			p.compare(now)
		}
	}
}

// standing is what the broker says, as the order wants it.
func (i *consumerInfo) standing() standing {
	return standing{floor: i.AckFloor.StreamSeq, delivered: i.Delivered.StreamSeq, pending: i.NumAckPending, last: i.Delivered.ConsumerSeq}
}

// compare asks the broker how things stand.
func (p *partition) compare(now time.Time) {
	p.mu.Lock()
	account := p.order.account()
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(p.ctx, p.g.client.cfg.timeout)
	defer cancel()
	info, err := p.g.client.js().consumerInfo(ctx, p.g.stream, p.sub.cfg.durable)
	if err != nil {
		return // asked again; that the consumer is gone is found by the subscription
	}
	p.mu.Lock()
	ready, foreign := p.order.compare(account, info.standing(), now.Sub(p.taken) > zombiePull)
	p.mu.Unlock()
	p.g.ready.push(ready...)
	for _, d := range foreign {
		p.acknowledge(d)
	}
}

func (p *partition) wasLost() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state == partitionLost
}
