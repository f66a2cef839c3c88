package deadletter

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/dlq"
)

// Bounds of a Keeper.
const (
	keeperQueue    = 1024     // failures waiting
	keeperShare    = 512      // of one tenant, so that its failures do not keep out those of others
	keeperBytes    = 32 << 20 // that all hold on to
	keeperWorkers  = 8
	keeperPatience = 10 * time.Second // for one failure
	factsTTL       = time.Minute      // how long another node's change of a consumer may go unseen
	maxFacts       = 1 << 14
	maxTrouble     = 1 << 12 // events that Trouble goes by
	troubleLasts   = time.Hour
	alarmEvery     = 10 * time.Second // between two lines of the log
)

// KeeperConfig configures a Keeper. All members but Now are required.
type KeeperConfig struct {
	Store  Failures
	Policy func() *policy.Set // in force
	Log    zerolog.Logger
	Now    func() time.Time // default time.Now
}

// Judgement is what Judge says of a delivery.
type Judgement uint8

// The judgements.
const (
	Deliver  Judgement = iota // it may be handed on
	Withhold                  // it is one too many
	Unknown                   // the consumer was not looked at yet
)

// KeeperStats are counters since New; Waiting is of now.
type KeeperStats struct {
	Written   map[dlq.Reason]uint64 // dead letters that were not there before
	Repeated  uint64                // failures whose dead letter was there
	Gone      uint64                // failures of events that are not stored any more
	Full      uint64                // failures left pending: the DLQ takes nothing
	Failed    uint64                // failures left pending for another reason
	Shed      uint64                // failures left pending: too many at once
	Unsettled uint64                // dead letters whose event comes again: the server did not get the +TERM
	Waiting   int
}

type consumerKey struct{ tenant, stream, consumer string }

type eventKey struct {
	consumerKey
	sequence uint64
}

type cachedFacts struct {
	store.ConsumerFacts
	expires time.Time
}

// Keeper makes dead letters of what consumers fail on, before the event is let go: at
// least once for each event and consumer, and one as long as the DLQ keeps it. Where it
// cannot, the event stays pending. Safe for concurrent use; Judge and Take never block.
// Its goroutines run from Start to Shutdown.
type Keeper struct {
	cfg   KeeperConfig
	queue chan *Failure

	mu      sync.Mutex
	closed  bool
	cancel  context.CancelFunc
	bytes   int                         // of the failures that were taken
	taken   map[string]int              // failures, by tenant
	facts   map[consumerKey]cachedFacts // what Judge goes by
	busy    map[eventKey]struct{}       // under way
	seen    deliveries
	stats   KeeperStats
	trouble map[eventKey]trouble // events that could not be kept
	alarmed time.Time

	workers sync.WaitGroup
}

// NewKeeper returns a Keeper that does nothing yet; until Start, failures wait.
func NewKeeper(cfg KeeperConfig) *Keeper {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Keeper{
		cfg: cfg, queue: make(chan *Failure, keeperQueue), facts: make(map[consumerKey]cachedFacts), busy: make(map[eventKey]struct{}),
		taken: make(map[string]int), stats: KeeperStats{Written: make(map[dlq.Reason]uint64)}, trouble: make(map[eventKey]trouble),
	}
}

// Start begins to work, until Shutdown. Errors: ErrStore, ErrStarted.
func (k *Keeper) Start(ctx context.Context) error {
	if k.cfg.Store == nil || k.cfg.Policy == nil {
		return ErrStore
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cancel != nil || k.closed {
		return ErrStarted
	}
	ctx, k.cancel = context.WithCancel(context.WithoutCancel(ctx))
	for range keeperWorkers {
		k.workers.Go(func() {
			for f := range k.queue {
				k.handle(ctx, f)
			}
		})
	}
	return nil
}

// Shutdown takes no more failures, handles those that wait, and returns when the
// goroutines are gone. When ctx ends first it gives up the rest, whose events stay
// pending, and returns the error of ctx.
func (k *Keeper) Shutdown(ctx context.Context) error {
	k.mu.Lock()
	if !k.closed {
		k.closed = true
		close(k.queue)
	}
	cancel := k.cancel
	k.mu.Unlock()
	if cancel == nil {
		return nil
	}
	defer cancel()
	stop := context.AfterFunc(ctx, cancel)
	k.workers.Wait()
	if !stop() {
		return ctx.Err()
	}
	return nil
}

// Judge says whether a delivery, the second of an event or a later one, may be handed on.
func (k *Keeper) Judge(tenant, stream, consumer string, sequence, attempt uint64) Judgement {
	t := k.cfg.Policy().Tenant(tenant)
	if !Covers(t, stream) {
		return Deliver
	}
	key := consumerKey{tenant, stream, consumer}
	now := k.cfg.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	facts, ok := k.facts[key]
	if !ok || !now.Before(facts.expires) {
		return Unknown
	}
	if !tooMany(t, key, &facts.ConsumerFacts, attempt) {
		k.seen.add(eventKey{key, sequence}, dlq.Delivery{Attempt: int(attempt), At: now})
		return Deliver
	}
	return Withhold
}

// tooMany compares a delivery with what the policy and the client allow. A consumer that
// settles events together cannot give up one alone, so it has no limit here.
func tooMany(t *policy.Tenant, key consumerKey, facts *store.ConsumerFacts, attempt uint64) bool {
	most := t.Retry(key.stream, key.consumer).MaxDeliveries
	if facts.Asked > 0 {
		most = min(most, facts.Asked)
	}
	return facts.Ack == store.AckExplicit && attempt > uint64(most)
}

// Take takes a failure and reports whether it did: if not, there are too many, and the
// event stays pending.
func (k *Keeper) Take(f *Failure) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	full := len(k.queue) == cap(k.queue) || k.bytes+f.Size > keeperBytes
	if k.closed || full || k.taken[f.Tenant] >= keeperShare {
		if f.Deliver == nil { // else the client gets it
			k.stats.Shed++
		}
		return false
	}
	k.bytes += f.Size
	k.taken[f.Tenant]++
	k.queue <- f // has room: only Take sends, under mu
	return true
}

// handle is one failure, from its look-up to its end.
func (k *Keeper) handle(ctx context.Context, f *Failure) {
	ctx, cancel := context.WithTimeout(ctx, keeperPatience)
	defer cancel()
	defer func() {
		k.mu.Lock()
		k.bytes -= f.Size
		if k.taken[f.Tenant]--; k.taken[f.Tenant] == 0 {
			delete(k.taken, f.Tenant)
		}
		k.mu.Unlock()
	}()
	key := eventKey{consumerKey{f.Tenant, f.Stream, f.Consumer}, f.Sequence}
	t := k.cfg.Policy().Tenant(f.Tenant)
	if t == nil {
		return // nobody can be connected
	}
	facts, err := k.look(ctx, key.consumerKey, f.Terminated)
	switch {
	case f.Terminated:
	case err != nil && f.Deliver != nil:
		f.Deliver() // the next delivery is looked at again
		return
	case err == nil && f.Deliver != nil && !tooMany(t, key.consumerKey, &facts, f.Attempt):
		k.mu.Lock()
		k.seen.add(key, dlq.Delivery{Attempt: int(min(f.Attempt, 1<<31-1)), At: k.cfg.Now()})
		k.mu.Unlock()
		f.Deliver()
		return
	case err == nil && !tooMany(t, key.consumerKey, &facts, f.Attempt):
		return // it may be delivered after all, and comes again
	}
	if f.Withheld != nil {
		f.Withheld()
	}
	if err == nil {
		if !k.begin(key) {
			return // another worker has the same failure
		}
		defer k.end(key)
		err = k.fail(ctx, f, &facts)
	}
	k.report(f, err)
}

func (k *Keeper) begin(key eventKey) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, busy := k.busy[key]
	k.busy[key] = struct{}{}
	return !busy
}

func (k *Keeper) end(key eventKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.busy, key)
}

// look returns what is known of a consumer, fresh if wanted.
func (k *Keeper) look(ctx context.Context, key consumerKey, fresh bool) (store.ConsumerFacts, error) {
	now := k.cfg.Now()
	if !fresh {
		k.mu.Lock()
		have, ok := k.facts[key]
		k.mu.Unlock()
		if ok && now.Before(have.expires) {
			return have.ConsumerFacts, nil
		}
	}
	facts, err := k.cfg.Store.Facts(ctx, key.tenant, key.stream, key.consumer)
	if err != nil {
		return facts, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.facts) >= maxFacts {
		clear(k.facts)
	}
	k.facts[key] = cachedFacts{facts, now.Add(factsTTL)}
	return facts, nil
}

// report counts what came of a failure, and raises the alarm where its event is stuck.
func (k *Keeper) report(f *Failure, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, now := eventKey{consumerKey{f.Tenant, f.Stream, f.Consumer}, f.Sequence}, k.cfg.Now()
	if err == nil || errors.Is(err, errNotPending) || errors.Is(err, store.ErrNotFound) { // the last: the consumer is gone
		delete(k.trouble, key)
		return
	}
	if errors.Is(err, store.ErrFull) {
		k.stats.Full++
	} else {
		k.stats.Failed++
	}
	if len(k.trouble) < maxTrouble {
		k.trouble[key] = trouble{err, now}
	}
	if now.Sub(k.alarmed) >= alarmEvery {
		k.alarmed = now
		k.cfg.Log.Error().Err(err).Str("tenant", f.Tenant).Str("stream", f.Stream).Str("consumer", f.Consumer).Uint64("sequence", f.Sequence).
			Msg("a dead letter could not be stored: its event stays with the consumer until it can; when the DLQ is full, redrive or let expire what is in it, or raise deadLetter.maxBytes")
	}
}

func (k *Keeper) count(f func(*KeeperStats)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(&k.stats)
}

// trouble is why the dead letter of an event could not be stored.
type trouble struct {
	err error
	at  time.Time
}

// Trouble returns why dead letters of the tenant cannot be stored, nil while none has failed
// that has not been stored since. An event that did not come again for troubleLasts has
// found another end.
func (k *Keeper) Trouble(tenant string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var err error
	for key, t := range k.trouble {
		switch {
		case k.cfg.Now().Sub(t.at) > troubleLasts:
			delete(k.trouble, key)
		case key.tenant == tenant:
			err = t.err
		}
	}
	return err
}

// Stats returns the counters.
func (k *Keeper) Stats() KeeperStats {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.stats
	s.Waiting = len(k.queue) + len(k.busy)
	s.Written = make(map[dlq.Reason]uint64, len(k.stats.Written))
	for reason, n := range k.stats.Written {
		s.Written[reason] = n
	}
	return s
}
