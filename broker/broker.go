// Package broker is the server: it loads the configuration, starts the parts in
// order, swaps policy, keys and certificates while it runs, and stops everything
// again, gate first. It decides nothing about any message; that is what the
// packages under it are for.
//
// New validates and starts nothing; Start returns when clients may connect, or
// with the first error and everything undone; Shutdown blocks until every
// goroutine has ended. Only the command handles signals.
//
// The goroutines, who starts and who stops them: docs/ARCHITECTURE.md.
package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker/admin"
	"github.com/signetbus/signet/broker/admission"
	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/broker/deadletter"
	"github.com/signetbus/signet/broker/gate"
	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/broker/ops"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/schedule"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/broker/translog"
	"github.com/signetbus/signet/ratelimit"
)

// Errors of the broker.
var (
	ErrStarted  = errors.New("broker: already started")
	ErrNotReady = errors.New("broker: not ready")
	// ErrServerEnded: the embedded server ended during the start.
	ErrServerEnded = errors.New("broker: the embedded server ended")
	// ErrVolume: the volume of the store is full or too small. Nothing was touched.
	ErrVolume = errors.New("broker: the volume of the store")
	// ErrSpaceBack: the store had failed for want of space, there is space again, and
	// the broker has stopped so that it can be started anew, which repairs it.
	ErrSpaceBack = errors.New("broker: the volume of the store has space again, the broker must start anew")
)

// phase is where a broker is in its life.
type phase int32

const (
	phaseNew phase = iota
	phaseStarting
	phaseReady
	phaseDraining
	phaseStopped
)

var phaseNames = [...]string{"new", "starting", "ready", "draining", "stopped"}

// Broker is one server. Its methods are safe for concurrent use.
type Broker struct {
	cfg     Config
	version string
	log     zerolog.Logger
	buckets ratelimit.Table
	phase   atomic.Int32
	started time.Time

	storage
	inForce
	auditing
	reload sync.Mutex // one Reload at a time; held while it waits for the cluster

	cert    *ca.Reloader
	letters *deadletter.Writer
	failures
	admin *admin.Service
	gate  *gate.Gate
	ops   *ops.Server
	files *watcher

	parts []part // what Start has started, in order
	done  chan struct{}
}

// storage is the embedded server and what is built on it.
type storage struct {
	server  *embed.Server
	barrier *store.Barrier // nil unless DurabilityBarrier
	store   *store.Store
	nodes   *nodes // nil without a cluster
	held    holds  // nothing without a cluster
	own     *ownStreams
	logs    atomic.Pointer[translog.Service]
	firings atomic.Pointer[schedule.Runner]
	// attested is what the gate tells the logs of this node.
	attested *translog.Attested
}

// inForce is what changes while the broker runs: what a reload replaces, and how
// that and the store are.
type inForce struct {
	material atomic.Pointer[material]
	chain    atomic.Pointer[admission.Chain]
	guards   *guards               // of the volume, the memory and the store
	fault    atomic.Pointer[error] // of the last reload; nil: it went well, or there was none
	damage   damageState
	seen     admission.Seen // signed ephemeral events
	policies
	issuers issuerKeys // that are fetched, of tokens

	// swap guards the change of material and of what follows from it. It is held for no
	// longer than the embedded server takes to reload: nobody who holds it asks the store
	// or another node. Whoever needs both takes Broker.reload first.
	swap sync.Mutex
	life context.Context // ends when the broker begins to stop: no reload goes on
	end  context.CancelFunc
}

// part is something that was started and must be stopped.
type part struct {
	name string
	stop func(context.Context) error
}

// New validates cfg and returns a broker that has started nothing. version is
// what `signet version` prints.
func New(cfg Config, version string, log zerolog.Logger) (*Broker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	b := &Broker{cfg: cfg, version: version, log: log, done: make(chan struct{}), storage: storage{attested: translog.NewAttested()}, inForce: inForce{guards: newGuards()}}
	b.life, b.end = context.WithCancel(context.Background())
	var err error
	if b.issuers, err = newIssuerKeys(b); err != nil {
		b.end()
		return nil, err
	}
	return b, nil
}

// Check does what a start does before it touches the store or a port: it reads
// and checks policy, schemas, keys and certificates, those of the routes too, and whether the key of the
// store is the right one.
func (b *Broker) Check(ctx context.Context) error {
	m, err := loadMaterial(ctx, &b.cfg, b.issuers, time.Now())
	if err == nil {
		_, err = declaredAccounts(m.policy, &b.cfg)
	}
	if m.ringNote != nil { // a start goes on with the newer one
		b.log.Warn().Err(m.ringNote).Msg("the keyring's file is not what counts")
	}
	warnUngiven(b, m)
	_, certErr := ca.ServerTLS(b.cfg.TLS.Certificate, b.cfg.TLS.Key)
	_, routeErr := clusterOptions(startup{b})
	return errors.Join(err, certErr, routeErr, checkEncryption(&b.cfg))
}

// Start starts the parts in order. When one fails, those before it are stopped
// again and its error is returned: a broker runs whole or not at all.
func (b *Broker) Start(ctx context.Context) (err error) {
	if !b.phase.CompareAndSwap(int32(phaseNew), int32(phaseStarting)) {
		return ErrStarted
	}
	b.started = time.Now()
	defer func() {
		if err != nil {
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.cfg.Drain)
			defer cancel()
			b.end()
			err = errors.Join(err, b.stopParts(stop))
			b.phase.Store(int32(phaseStopped))
			close(b.done)
		}
	}()
	m, err := loadMaterial(ctx, &b.cfg, b.issuers, b.started)
	if err != nil {
		return err
	}
	if b.cert, err = ca.ServerTLS(b.cfg.TLS.Certificate, b.cfg.TLS.Key); err != nil {
		return err
	}
	b.cert.OnError(func(err error) { b.log.Error().Err(err).Msg("certificate not reloaded, the old one stays") })
	if m.ringNote != nil {
		b.log.Error().Err(m.ringNote).Uint64("keyring", m.ring.Version()).Msg("the keyring's file is not what counts")
	}
	b.material.Store(m)
	up := startup{b}
	for _, step := range []struct {
		name string
		do   func(context.Context, *material) error
	}{
		{"guards", up.startGuards},
		{"audit", up.startAudit},
		{"issuers", func(context.Context, *material) error { startIssuers(b); return nil }},
		{"server", up.startServer},
		{"store", up.openStore},
		{"dead letters", up.startDeadLetters},
		{"failures", func(ctx context.Context, _ *material) error { return startFailures(ctx, up) }},
		{"gate", func(_ context.Context, m *material) error { return makeGate(b, m) }},
		{"operations port", up.startOps},
		{"filling", func(context.Context, *material) error { startFilling(up); return nil }},
		{"quorum", up.awaitQuorum},
		{"streams", up.patient(up.makeStreams)},
		{"own streams", up.patient(func(ctx context.Context, _ *material) error { return startOwnStreams(ctx, up) })},
		{"audit stream", up.startAuditStream},
		{"first start", func(ctx context.Context, _ *material) error { return awaitFormed(ctx, up) }},
		{"logs", func(_ context.Context, m *material) error { return startLogs(up, m) }},
		{"admin", up.startAdmin},
		{"keyring", func(ctx context.Context, _ *material) error { return newestRing(ctx, b) }},
		{"policy", func(ctx context.Context, _ *material) error { return startPolicy(ctx, up) }},
		{"consumer sweep", func(ctx context.Context, _ *material) error { startConsumerSweep(ctx, up); return nil }},
		{"schedules", func(ctx context.Context, _ *material) error { return startSchedules(ctx, up) }},
		{"gate", up.startGate},
		{"store watch", up.startStoreWatch},
		{"stream watch", func(context.Context, *material) error { startStreamWatch(up); return nil }},
		{"file watch", up.startWatch},
		{"keys", func(context.Context, *material) error { return startKeys(up) }},
		{"scrubber", up.startScrub},
		{"server guard", func(context.Context, *material) error { guardServer(b); return nil }},
	} {
		if err := step.do(ctx, m); err != nil {
			return fmt.Errorf("broker: start %s: %w", step.name, err)
		}
	}
	b.phase.Store(int32(phaseReady))
	select {
	case <-b.server.Done(): // the guard may have come too early to shut down
		if b.phase.CompareAndSwap(int32(phaseReady), int32(phaseStarting)) {
			return errors.Join(ErrServerEnded, b.server.Err())
		}
	default:
	}
	b.logStarted(m)
	return nil
}

func (b *Broker) logStarted(m *material) {
	b.log.Info().Str("name", b.cfg.Name).Str("version", b.version).Str("listen", b.Addr().String()).
		Str("policy", m.policy.Digest()).Str("durability", string(b.Durability())).
		Dur("after", time.Since(b.started)).Msg("ready")
	if b.Durability() == DurabilityUnsafeLazy {
		b.log.Warn().Msg("unsafe-lazy-sync is on: a power cut loses acknowledged events")
	}
}

func (b *Broker) running(name string, stop func(context.Context) error) {
	b.parts = append(b.parts, part{name, stop})
}

// Addr returns the address of the client port, once started.
func (b *Broker) Addr() net.Addr { return b.gate.Addr() }

// OpsAddr returns the address of the operations port, nil when it is off.
func (b *Broker) OpsAddr() net.Addr {
	if b.ops == nil {
		return nil
	}
	return b.ops.Addr()
}

// Durability returns the mode in force, which is sync-always where the barrier
// cannot be had.
func (b *Broker) Durability() Durability {
	if b.cfg.Storage.Durability == DurabilityBarrier && b.barrier == nil {
		return DurabilitySyncAlways
	}
	return b.cfg.Storage.Durability
}

// Policy returns the policy in force.
func (b *Broker) Policy() *policy.Set { return b.material.Load().policy }

// Done is closed when the broker has stopped, by Shutdown or by itself; Err then
// tells why.
func (b *Broker) Done() <-chan struct{} { return b.done }

// Err returns why the broker ended by itself: what the embedded server said, or
// ErrSpaceBack. It is nil while it runs and after an orderly end.
func (b *Broker) Err() error {
	if b.guards.spaceBack() {
		return ErrSpaceBack
	}
	if b.server == nil {
		return nil
	}
	return b.server.Err()
}

// Shutdown stops admitting, lets clients leave, flushes what is queued and stops
// the parts in reverse order. It blocks until every goroutine has ended; ctx
// bounds the orderly part, after which connections are cut.
func (b *Broker) Shutdown(ctx context.Context) error {
	if !b.phase.CompareAndSwap(int32(phaseReady), int32(phaseDraining)) {
		return ErrNotReady
	}
	b.log.Info().Msg("draining")
	b.end()
	b.nodes.handOver(ctx)
	err := b.stopParts(ctx)
	b.phase.Store(int32(phaseStopped))
	close(b.done)
	b.log.Info().AnErr("error", err).Msg("stopped")
	return err
}

func (b *Broker) stopParts(ctx context.Context) error {
	var errs []error
	for i := len(b.parts) - 1; i >= 0; i-- {
		if err := b.parts[i].stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("broker: stop %s: %w", b.parts[i].name, err))
		}
	}
	b.parts = nil
	return errors.Join(errs...)
}
