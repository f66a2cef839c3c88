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
	followEvery = time.Second      // between two looks at the policy, and tries of what failed
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

// Start begins to work, until Shutdown. Call it once.
func (r *Runner) Start(ctx context.Context) {
	ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	r.work.Go(func() { r.follow(ctx) })
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

// follow has a worker for each tenant with schedules, also for one that may have none any
// more: what is there must end.
func (r *Runner) follow(ctx context.Context) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	var done *policy.Set
	served := map[string]context.CancelFunc{}
	for {
		if set := r.cfg.Policy(); set != done && r.cover(ctx, set, served) {
			done = set
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// cover starts and stops workers; false: not all tenants could be asked.
func (r *Runner) cover(ctx context.Context, set *policy.Set, served map[string]context.CancelFunc) (whole bool) {
	whole = true
	for name, stop := range served {
		if set.Tenant(name) == nil {
			stop()
			delete(served, name)
		}
	}
	for _, t := range set.Tenants() {
		if ctx.Err() != nil {
			return false
		}
		if served[t.Name] != nil {
			continue
		}
		if !policy.Schedules(t) {
			_, err := r.cfg.Store.StreamInfo(ctx, t.Name, wire.StreamSchedules)
			if err != nil {
				whole = whole && errors.Is(err, store.ErrNotFound)
				continue
			}
		}
		life, stop := context.WithCancel(ctx)
		served[t.Name] = stop
		r.work.Go(func() { r.serve(life, t.Name) })
	}
	return whole
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
