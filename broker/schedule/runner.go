package schedule

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker/admission"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/wire"
)

const (
	followEvery = time.Second // between two looks at the policy, and tries of what failed
	firstLook   = 5 * time.Second
	slowdown    = 5 * time.Second  // after an error of the store
	alarmEvery  = 10 * time.Second // between two lines of the log about one tenant
)

// ErrConfig: a function or part is missing.
var ErrConfig = errors.New("schedule: store, chain, policy, lets in, refused and ended are required")

// Config is what a Runner works with. All functions return the present state and are safe
// for concurrent use. All but Log, Settle and Now are required.
type Config struct {
	Store  *store.Store
	Chain  func() *admission.Chain
	Policy func() *policy.Set
	// LetsIn reports whether somebody could come in as the principal, by its identities.
	LetsIn func(*policy.Principal) bool
	// Refused is told of an event that was not let in. The slices end with the call.
	Refused func(r *wire.Refusal, rejected *Rejected)
	// Ended is told of a schedule that was taken away because its principal is gone or has
	// lost the right.
	Ended func(tenant, principal, name, why string)
	// Settle acknowledges a firing that was worked; nil: Ack. If it does not, the firing comes
	// again.
	Settle func(jetstream.Msg) error
	Now    func() time.Time // default time.Now
	Log    zerolog.Logger
}

// Rejected is an event that a schedule could not publish.
type Rejected struct {
	Tenant, Principal, Subject string // Principal without the tenant
	Header, Payload            []byte
	Store                      bool // policy says: keep it as a dead letter
	Schema                     string
}

// Outcome is what became of a firing.
type Outcome uint8

// The outcomes.
const (
	Published Outcome = iota
	Repeated          // it was published before
	Refused           // admission did not let it in
	Missed            // nobody can tell whether it was published, or it came too late
	Void              // its schedule was removed or replaced meanwhile
	Ended             // and so did its schedule
	outcomes
)

// String is the name in metrics.
func (o Outcome) String() string {
	return [...]string{"published", "repeated", "refused", "missed", "void", "ended"}[o]
}

// Runner works the firings of all tenants, one after the other for each. Its goroutines run
// from Start to Shutdown.
type Runner struct {
	cfg    Config
	cancel context.CancelFunc
	work   sync.WaitGroup
	counts [outcomes]atomic.Uint64
}

// NewRunner checks cfg.
//
// Errors: ErrConfig.
func NewRunner(cfg Config) (*Runner, error) {
	if cfg.Store == nil || cfg.Chain == nil || cfg.Policy == nil || cfg.LetsIn == nil || cfg.Refused == nil || cfg.Ended == nil {
		return nil, ErrConfig
	}
	if cfg.Settle == nil {
		cfg.Settle = func(m jetstream.Msg) error { return m.Ack() }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Runner{cfg: cfg}, nil
}

// Start looks which tenants have schedules and begins to work, until Shutdown; of a store that
// does not answer it waits for a few seconds, and asks again later. Call it once.
func (r *Runner) Start(ctx context.Context) {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.cancel = cancel
	look, done := context.WithTimeout(ctx, firstLook)
	defer done()
	f := follower{r: r, life: life, served: map[string]context.CancelFunc{}, without: map[string]bool{}}
	f.cover(look, r.cfg.Policy())
	r.work.Go(f.run)
}

// Shutdown stops; a firing that is being published is published, or comes again.
func (r *Runner) Shutdown(ctx context.Context) error {
	r.cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.work.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Count returns how many firings ended so since Start.
func (r *Runner) Count(o Outcome) uint64 { return r.counts[o].Load() }

// Outcomes returns all of them.
func Outcomes() []Outcome { return []Outcome{Published, Repeated, Refused, Missed, Void, Ended} }

// follower has a worker for each tenant with schedules, also for one in which nobody has the
// right any more: what is there must end.
type follower struct {
	r       *Runner
	life    context.Context // of the workers; the only context kept
	served  map[string]context.CancelFunc
	without map[string]bool // tenants without the stream, as long as nobody in them has the right
	done    *policy.Set     // that served was made for
}

func (f *follower) run() {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case <-f.life.Done():
			return
		case <-tick.C:
		}
		f.cover(f.life, f.r.cfg.Policy())
	}
}

// cover starts and stops workers. It asks again what it was not told.
func (f *follower) cover(ctx context.Context, set *policy.Set) {
	if set == f.done {
		return
	}
	for name, stop := range f.served {
		if set.Tenant(name) == nil {
			stop()
			delete(f.served, name)
		}
	}
	whole := true
	for _, t := range set.Tenants() {
		if f.served[t.Name] != nil {
			continue
		}
		has, known := f.has(ctx, t)
		whole = whole && known
		if !has {
			continue
		}
		life, stop := context.WithCancel(f.life)
		f.served[t.Name] = stop
		f.r.work.Go(func() { f.r.serve(life, t.Name) })
	}
	if whole {
		f.done = set
	}
}

// has reports whether a tenant has, or may have, schedules.
func (f *follower) has(ctx context.Context, t *policy.Tenant) (has, known bool) {
	switch {
	case policy.Schedules(t):
		delete(f.without, t.Name)
		return true, true
	case f.without[t.Name]:
		return false, true
	}
	_, err := f.r.cfg.Store.StreamInfo(ctx, t.Name, wire.StreamSchedules)
	if errors.Is(err, store.ErrNotFound) {
		f.without[t.Name] = true
	}
	return err == nil, err == nil || f.without[t.Name]
}

// serve works the firings of a tenant until ctx ends.
func (r *Runner) serve(ctx context.Context, tenant string) {
	var alarmed time.Time
	for ctx.Err() == nil {
		err := r.drain(ctx, tenant)
		if err == nil || ctx.Err() != nil {
			continue
		}
		if now := time.Now(); now.Sub(alarmed) > alarmEvery && !errors.Is(err, store.ErrNotFound) {
			alarmed = now
			r.cfg.Log.Warn().Err(err).Str("tenant", tenant).Msg("the firings of schedules cannot be read now; tried again")
		}
		pause(ctx, followEvery)
	}
}

// drain works firings until an error, or until ctx ends.
func (r *Runner) drain(ctx context.Context, tenant string) error {
	firings, err := store.Firings(ctx, r.cfg.Store, tenant)
	if err != nil {
		return err
	}
	defer firings.Stop()
	defer context.AfterFunc(ctx, firings.Stop)()
	for {
		msg, err := firings.Next()
		switch {
		case err == nil:
			r.take(ctx, tenant, msg)
		case errors.Is(err, jetstream.ErrNoHeartbeat):
			return nil // the connection was away; begin anew
		default:
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
