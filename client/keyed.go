package client

import (
	"context"
	"crypto/rand"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// Defaults and limits of Keyed.
const (
	DefaultPartitions   = 4
	MaxPartitions       = 32
	DefaultKeyedWorkers = 8 // of Concurrency, for SubscribeKeyed
	DefaultLease        = 15 * time.Second
	MinLease            = 3 * time.Second
	MaxLease            = 5 * time.Minute
	maxGroupName        = maxConsumerName - len("-32-31")
)

// Keyed says how SubscribeKeyed divides the events of a filter. All instances of a group
// must agree on all of it but Lease.
type Keyed struct {
	// Group is the name of the group: 1 to 58 of A-Z a-z 0-9 _ -. Its consumers are
	// called GROUP-PARTITIONS-N, so a group with another number of partitions is another
	// group, which begins where its From option says.
	Group string
	// Bucket is a key-value bucket of the policy in which the instances keep who has
	// which partition, one key for each group. The principal needs the grants to read
	// and to write it. A ttl of the bucket must be at least three times Lease.
	Bucket string
	// Key returns the key of an event. Default PartitionKey. It must give every instance
	// the same answer.
	Key KeyFunc
	// Partitions bounds how many instances have work at a time; workers of one instance
	// share a partition by key, so more partitions make nothing faster. The broker sends
	// every event of the filter once for each partition. Default DefaultPartitions, at
	// most MaxPartitions.
	Partitions int
	// Lease is how long an instance that has died, or cannot reach the broker, keeps its
	// partitions: one and a half of it passes before others take them. Instances may have
	// different ones, none longer than the AckWait that the group began with. Default
	// DefaultLease, MinLease to MaxLease.
	Lease time.Duration
}

// A KeyFunc returns the key of an event: events of one key are handled in order.
type KeyFunc func(d *Delivery) string

// PartitionKey is the KeyFunc that takes the CloudEvents extension partitionkey, and
// without it the NATS subject.
func PartitionKey(d *Delivery) string {
	if key := d.Event.Extensions[wire.AttrPartitionKey]; key != "" {
		return key
	}
	return d.NATSSubject
}

// SubjectToken returns the KeyFunc that takes the n-th token of the NATS subject,
// counted from 1, and the whole subject where it has fewer.
func SubjectToken(n int) KeyFunc {
	return func(d *Delivery) string {
		tokens := strings.SplitN(d.NATSSubject, ".", n+1)
		if n < 1 || len(tokens) < n {
			return d.NATSSubject
		}
		return tokens[n-1]
	}
}

// partitionOf is the partition of a key. It is part of what instances agree on.
func partitionOf(key string, partitions int) int {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key)) // never fails
	return int(h.Sum64() % uint64(partitions))
}

func (k *Keyed) settle() error {
	if k.Key == nil {
		k.Key = PartitionKey
	}
	if k.Partitions == 0 {
		k.Partitions = DefaultPartitions
	}
	if k.Lease == 0 {
		k.Lease = DefaultLease
	}
	if err := checkConsumerName(k.Group); err != nil || len(k.Group) > maxGroupName {
		return fmt.Errorf("%w: Keyed.Group: 1 to %d of A-Z a-z 0-9 _ -", ErrInvalidOption, maxGroupName)
	}
	if k.Partitions < 1 || k.Partitions > MaxPartitions {
		return fmt.Errorf("%w: Keyed.Partitions: %d is not in 1 to %d", ErrInvalidOption, k.Partitions, MaxPartitions)
	}
	if k.Lease < MinLease || k.Lease > MaxLease {
		return fmt.Errorf("%w: Keyed.Lease: %v is not in %v to %v", ErrInvalidOption, k.Lease, MinLease, MaxLease)
	}
	return nil
}

// KeyedStats counts what a KeyedSubscription did since it began.
type KeyedStats struct {
	Delivered uint64 // given to the handler
	Failed    uint64 // the handler returned an error
	Fenced    uint64 // handled, and not settled: the partition was lost meanwhile, so the event comes again elsewhere
	Taken     uint64 // partitions taken
	Lost      uint64 // partitions lost, not let go of: the lease ran out, or the consumer ended
}

// KeyedSubscription is one instance of a group of SubscribeKeyed. All methods may be
// called by any goroutine, handlers included, and more than once.
//
// Goroutines: one run keeps the lease, Concurrency workers run the handler, and each
// partition has those of a Subscription and one that tends it. All are gone when Closed
// is closed.
type KeyedSubscription struct {
	client  *Client
	cfg     Keyed
	sub     *subConfig
	handler Handler
	filter  string
	stream  string
	kv      bucket
	me      string // name of this instance on the roll

	ready readyQueue
	life  keyedLife
	until atomic.Pointer[time.Time] // the lease holds until then, by the monotonic clock
	kick  chan struct{}             // run has something to do

	beat  uint64 // of run alone
	watch watch  // of run alone

	mu    sync.Mutex // guards what follows
	parts map[int]*partition
	left  []int // let go of, and not yet off the roll
	err   error

	stats struct{ delivered, failed, fenced, taken, lost atomic.Uint64 }
}

// keyedLife is how a KeyedSubscription comes to its end.
type keyedLife struct {
	ctx     context.Context // of handlers; ends with Stop
	stop    context.CancelFunc
	leaving chan struct{} // closed by the first Stop or Drain, or by a failure
	leave   sync.Once
	closed  chan struct{}
	workers sync.WaitGroup
	tenders sync.WaitGroup
}

// SubscribeKeyed delivers the stored events that match filter so that those of one key
// are handled one after the other, in the order of the stream, while different keys are
// handled in parallel: by the workers of this process (Concurrency), and by all processes
// that subscribe with the same Keyed as the same principal. Partitions move by themselves
// when instances come and go.
//
// An event whose handler fails holds back its own key only, until it is acknowledged or
// has become a dead letter; it is delivered again as the retry policy of the broker says.
// The events behind it count as in flight: where SubMaxInFlight of a partition (default
// DefaultSubMaxInFlight) wait for one key, the partition waits too.
//
// Delivery is at least once. An event is handled twice only where an instance died, or
// lost its lease, between handling it and the broker's taking the acknowledgement: use
// Once for what must not happen twice. After that the partition waits until all that was
// in flight there has come again, which takes the AckWait (here Lease by
// default, and no less; it is extended while a handler runs) and what is left of retry pauses.
//
// No two instances handle a key at the same time. A lease is valid by the clock of this
// process alone, is checked before each event, and its end ends the context of handlers;
// what a handler does settles nothing after it. What remains is a process that is stopped
// in the middle of a handler and wakes after its lease, or whose machine is suspended, which
// stops that clock, too: it must look at its context, or pass Delivery.Fence to the store
// that it writes to, which alone helps after a suspension.
//
// Options: those of a subscription with acknowledgement, but Durable. ctx bounds the
// setting up only.
//
// Errors: those of Subscribe; ErrDenied and ErrNotFound for the bucket, ErrConflict where
// the group is there with another filter, stream or number of partitions, or began with an
// AckWait under Lease; ErrInvalidOption for more than one partition of a work queue.
func (c *Client) SubscribeKeyed(ctx context.Context, filter string, handler Handler, keyed Keyed, opts ...SubOption) (*KeyedSubscription, error) {
	if err := keyed.settle(); err != nil {
		return nil, err
	}
	given := &subConfig{}
	opts = append([]SubOption{Concurrency(DefaultKeyedWorkers), AckWait(keyed.Lease)}, opts...)
	s, err := c.newSubscription(filter, handler, opts)
	if err != nil {
		return nil, err
	}
	s.life.stop() // it only carries the options
	*given = *s.cfg
	switch {
	case given.durable != "":
		return nil, fmt.Errorf("%w: SubscribeKeyed with Durable: Keyed.Group names its consumers", ErrInvalidOption)
	case given.ackWait < keyed.Lease:
		return nil, fmt.Errorf("%w: AckWait: %v is less than the lease of %v, so an instance that is cut off would use up deliveries", ErrInvalidOption, given.ackWait, keyed.Lease)
	case given.ordered, given.queue != "":
		return nil, fmt.Errorf("%w: SubscribeKeyed with Ordered or Queue", ErrInvalidOption)
	}
	kv, err := newBucket(c, keyed.Bucket)
	if err != nil {
		return nil, err
	}
	g := &KeyedSubscription{
		client: c, cfg: keyed, sub: given, handler: handler, filter: filter, stream: given.stream, kv: kv,
		me: strings.ToLower(rand.Text())[:16], parts: map[int]*partition{}, kick: make(chan struct{}, 1),
		watch: watch{after: keyed.Lease * 3 / 2, seen: map[string]sighting{}},
		life:  keyedLife{leaving: make(chan struct{}), closed: make(chan struct{})},
	}
	g.ready.more.L = &g.ready.mu
	g.until.Store(&time.Time{})
	g.life.ctx, g.life.stop = context.WithCancel(context.Background())
	if err := g.setUp(ctx); err != nil {
		g.abandon()
		return nil, err
	}
	c.subs.add(g)
	for range given.concurrency {
		g.life.workers.Go(g.work)
	}
	go g.run() //nolint:gosec // it outlives the call: ctx bounds the setting up only
	return g, nil
}

// durable is the name of the consumer of a partition.
func (k *Keyed) durable(index int) string {
	return k.Group + "-" + strconv.Itoa(k.Partitions) + "-" + strconv.Itoa(index)
}

// Partitions returns how many partitions this instance has.
func (g *KeyedSubscription) Partitions() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.parts)
}

// Stats returns the counters.
func (g *KeyedSubscription) Stats() KeyedStats {
	return KeyedStats{
		Delivered: g.stats.delivered.Load(), Failed: g.stats.failed.Load(), Fenced: g.stats.fenced.Load(),
		Taken: g.stats.taken.Load(), Lost: g.stats.lost.Load(),
	}
}

// Drain begins nothing more, and ends when the handlers that run have returned and the
// partitions are given to others. It does not wait; Closed does.
func (g *KeyedSubscription) Drain() {
	g.life.leave.Do(func() { close(g.life.leaving) })
}

// Stop is Drain that ends the context of the handlers that run.
func (g *KeyedSubscription) Stop() {
	g.life.stop()
	g.Drain()
}

// Closed is closed when the subscription has ended and its last handler has returned.
func (g *KeyedSubscription) Closed() <-chan struct{} { return g.life.closed }

// Err returns why the subscription ended by itself: ErrConsumerGone, ErrDenied,
// ErrConflict, or the error of the client. It is nil after Stop and Drain.
func (g *KeyedSubscription) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// reconnected implements subscription.
func (g *KeyedSubscription) reconnected() { g.wake() }

// denied implements subscription: the subjects are those of the partitions' own.
func (g *KeyedSubscription) denied(string, error) {}
