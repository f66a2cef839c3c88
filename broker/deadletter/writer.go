package deadletter

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/signetbus/signet/dlq"
	"github.com/signetbus/signet/ratelimit"
)

// Defaults of Config.
const (
	DefaultQueue        = 1024
	DefaultQueueBytes   = 8 << 20
	DefaultWriteTimeout = 5 * time.Second

	attempts    = 3                      // writes of one record before it is dropped
	retryPause  = 100 * time.Millisecond // before the second; four times as long before the third
	reportEvery = time.Second
)

// DefaultRate is the rate of one tenant.
var DefaultRate = ratelimit.Limit{Name: "dead-letters", Messages: 50, Bytes: 1 << 20, Burst: 4 * time.Second}

// Errors of Start.
var (
	ErrStore   = errors.New("deadletter: no store")
	ErrStarted = errors.New("deadletter: already started")
)

// Store writes one message to a tenant's DLQ stream and returns when it is on
// stable storage. A repeated Nats-Msg-Id in the header is not stored twice.
type Store interface {
	PublishDLQ(ctx context.Context, tenant, subject string, header nats.Header, data []byte) (seq uint64, err error)
}

// Cause says why a dead letter was dropped.
type Cause string

// The causes.
const (
	CauseRate      Cause = "rate"      // the tenant's rate is spent
	CauseQueue     Cause = "queue"     // the queue is full
	CauseMalformed Cause = "malformed" // the record does not encode
	CauseStore     Cause = "store"     // every attempt to write failed
	CauseShutdown  Cause = "shutdown"  // the writer is stopping
)

var causes = []Cause{CauseRate, CauseQueue, CauseMalformed, CauseStore, CauseShutdown}

// Config configures a Writer. Zero members have the defaults.
type Config struct {
	Store        Store // required
	Log          zerolog.Logger
	Now          func() time.Time // default time.Now
	Queue        int              // entries waiting; default 1024
	QueueBytes   int64            // bytes waiting, headers included; default 8 MiB
	Rate         ratelimit.Limit  // of each tenant; default DefaultRate
	WriteTimeout time.Duration    // of one attempt; default 5 s

	// Dropped is told of dropped dead letters, at most once a second for each tenant
	// and cause, from the writer's goroutine. Default: nobody is.
	Dropped func(tenant string, cause Cause, count uint64)
}

// Stats are counters since New.
type Stats struct {
	Written     uint64
	Dropped     map[Cause]uint64
	Queued      int
	QueuedBytes int64
}

type letter struct {
	tenant, subject string
	header          nats.Header
	body            []byte
	size            int64
}

type dropKey struct {
	tenant string
	cause  Cause
}

// Writer writes dead letters.
type Writer struct {
	cfg   Config
	queue chan letter
	bytes atomic.Int64 // reserved by entries in the queue or on the way into it

	mu      sync.Mutex
	closed  bool // no send on queue any more
	cancel  context.CancelFunc
	rates   map[string]*ratelimit.Bucket // one per tenant of the policy, so it stays small
	drops   map[dropKey]uint64           // not yet reported
	dropped map[Cause]uint64
	lost    map[string]uint64 // dropped, by tenant

	written atomic.Uint64
	done    chan struct{}
}

// New returns a Writer. It starts nothing; until Start, offers wait in the queue.
func New(cfg Config) *Writer {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Queue <= 0 {
		cfg.Queue = DefaultQueue
	}
	if cfg.QueueBytes <= 0 {
		cfg.QueueBytes = DefaultQueueBytes
	}
	if cfg.Rate == (ratelimit.Limit{}) {
		cfg.Rate = DefaultRate
	}
	if cfg.WriteTimeout <= 0 {
		cfg.WriteTimeout = DefaultWriteTimeout
	}
	return &Writer{
		cfg: cfg, queue: make(chan letter, cfg.Queue), rates: make(map[string]*ratelimit.Bucket),
		drops: make(map[dropKey]uint64), dropped: make(map[Cause]uint64), lost: make(map[string]uint64), done: make(chan struct{}),
	}
}

// Start begins to write, until Shutdown. Errors: ErrStore, ErrStarted.
func (w *Writer) Start(ctx context.Context) error {
	if w.cfg.Store == nil {
		return ErrStore
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancel != nil || w.closed {
		return ErrStarted
	}
	ctx, w.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go w.run(ctx)
	return nil
}

// Offer takes a record of the tenant for writing and reports whether it did. It
// copies header and payload, so views are fine; it never blocks. tenant must come
// from the policy, not from a client.
func (w *Writer) Offer(tenant string, r *dlq.Record) bool {
	size := int64(len(r.Header)+len(r.Payload)) + 512 // the headers of the record, about
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return w.dropLocked(tenant, CauseShutdown)
	}
	if len(w.queue) == cap(w.queue) || w.bytes.Load()+size > w.cfg.QueueBytes {
		return w.dropLocked(tenant, CauseQueue)
	}
	bucket := w.rates[tenant]
	if bucket == nil {
		bucket = ratelimit.NewBucket(w.cfg.Rate)
		w.rates[tenant] = bucket
	}
	if !bucket.Take(w.cfg.Now().UnixNano(), int(size)).OK {
		return w.dropLocked(tenant, CauseRate)
	}
	header, body, err := r.Encode()
	if err != nil {
		return w.dropLocked(tenant, CauseMalformed)
	}
	w.bytes.Add(size)
	w.queue <- letter{tenant: tenant, subject: r.Subject(), header: header, body: body, size: size} // has room: only Offer sends, under mu
	return true
}

// dropLocked counts; it returns false for Offer.
func (w *Writer) dropLocked(tenant string, cause Cause) bool {
	w.drops[dropKey{tenant, cause}]++
	w.dropped[cause]++
	w.lost[tenant]++
	return false
}

func (w *Writer) run(ctx context.Context) {
	defer close(w.done)
	defer w.report()
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case l, ok := <-w.queue:
			if !ok {
				return
			}
			w.write(ctx, l)
		case <-tick.C:
			w.report()
		}
	}
}

// write stores one letter, with few attempts: while the store is down the queue
// fills and drops, which is what a best effort means.
func (w *Writer) write(ctx context.Context, l letter) {
	defer w.bytes.Add(-l.size)
	cause, pause := CauseStore, retryPause
	var err error
	for i := range attempts {
		if i > 0 && !wait(ctx, pause) {
			break
		}
		if i > 0 {
			pause *= 4
		}
		try, cancel := context.WithTimeout(ctx, w.cfg.WriteTimeout)
		_, err = w.cfg.Store.PublishDLQ(try, l.tenant, l.subject, l.header, l.body)
		cancel()
		if err == nil {
			w.written.Add(1)
			return
		}
	}
	if ctx.Err() != nil {
		cause = CauseShutdown
	}
	w.mu.Lock()
	w.dropLocked(l.tenant, cause)
	first := w.drops[dropKey{l.tenant, cause}] == 1
	w.mu.Unlock()
	if first { // once per report, whatever the rate of failures
		w.cfg.Log.Warn().Err(err).Str("tenant", l.tenant).Str("subject", l.subject).
			Msg("a dead letter could not be written")
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// report hands the drops since the last report to Config.Dropped.
func (w *Writer) report() {
	w.mu.Lock()
	drops := w.drops
	w.drops = make(map[dropKey]uint64)
	w.mu.Unlock()
	if w.cfg.Dropped == nil {
		return
	}
	for k, n := range drops {
		w.cfg.Dropped(k.tenant, k.cause, n)
	}
}

// Shutdown takes no more offers, writes what is queued, and returns when the
// goroutine is gone. When ctx ends first it drops the rest (counted) and returns
// the error of ctx, still after the goroutine is gone.
func (w *Writer) Shutdown(ctx context.Context) error {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.queue)
	}
	cancel := w.cancel
	w.mu.Unlock()
	if cancel == nil {
		return nil
	}
	defer cancel()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		cancel()
		<-w.done
		return ctx.Err()
	}
}

// Done is closed when the goroutine that Start began has ended.
func (w *Writer) Done() <-chan struct{} { return w.done }

// Stats returns the counters.
func (w *Writer) Stats() Stats {
	s := Stats{
		Written: w.written.Load(), Queued: len(w.queue), QueuedBytes: w.bytes.Load(),
		Dropped: make(map[Cause]uint64, len(causes)),
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range causes {
		s.Dropped[c] = w.dropped[c]
	}
	return s
}

// DroppedOf returns how many dead letters of one tenant were dropped since New.
func (w *Writer) DroppedOf(tenant string) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost[tenant]
}
