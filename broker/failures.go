package broker

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker/deadletter"
	"github.com/signetbus/signet/broker/diskguard"
	"github.com/signetbus/signet/broker/gate"
	"github.com/signetbus/signet/broker/ops"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/adminapi"
)

// failures joins the gate, which sees deliveries fail, and the keeper, which makes dead
// letters of them.
type failures struct {
	keeper *deadletter.Keeper
	sweep  consumerSweep
}

// failed is what the gate hands on.
type failed struct{ keeper *deadletter.Keeper }

var _ gate.Failures = failed{}

// Covers implements gate.Failures.
func (f failed) Covers(t *policy.Tenant, stream string) bool { return deadletter.Covers(t, stream) }

// Judge implements gate.Failures.
func (f failed) Judge(tenant, stream, consumer string, sequence, attempt uint64) gate.Judgement {
	switch f.keeper.Judge(tenant, stream, consumer, sequence, attempt) {
	case deadletter.Withhold:
		return gate.JudgeWithhold
	case deadletter.Unknown:
		return gate.JudgeUnknown
	case deadletter.Deliver:
	}
	return gate.JudgeDeliver
}

// Take implements gate.Failures.
func (f failed) Take(one *gate.Failure) bool {
	taken := deadletter.Failure(*one)
	return f.keeper.Take(&taken)
}

// failureStore is the store as a keeper needs it: dead letters pass the hard watermark, as
// those of the gate do.
type failureStore struct{ b *Broker }

var _ deadletter.Failures = failureStore{}

// Facts implements deadletter.Failures.
func (s failureStore) Facts(ctx context.Context, tenant, stream, consumer string) (store.ConsumerFacts, error) {
	return store.FactsOf(ctx, s.b.store, tenant, stream, consumer)
}

// Event implements deadletter.Failures.
func (s failureStore) Event(ctx context.Context, tenant, stream string, seq uint64) (*store.StoredEvent, error) {
	return store.EventAt(ctx, s.b.store, tenant, stream, seq)
}

// Publish implements deadletter.Failures.
func (s failureStore) Publish(ctx context.Context, tenant, subject string, header nats.Header, data []byte) (bool, error) {
	if r := s.b.guards.reading(); r.Level == diskguard.Full {
		return false, fmt.Errorf("%w: the volume of the store is %s used", store.ErrFull, percent(r.Volume))
	}
	return store.PublishOnce(ctx, s.b.store, tenant, subject, header, data)
}

// Settle implements deadletter.Failures.
func (s failureStore) Settle(ctx context.Context, tenant, ack, reply, body string) error {
	return store.Settle(ctx, s.b.store, tenant, ack, reply, body)
}

// Progress implements deadletter.Failures.
func (s failureStore) Progress(tenant, ack string) error {
	return store.Progress(s.b.store, tenant, ack)
}

// startFailures starts the keeper. The gate is made after it and stops before it.
func startFailures(ctx context.Context, b startup) error {
	b.keeper = deadletter.NewKeeper(deadletter.KeeperConfig{Store: failureStore{b.Broker}, Policy: b.Policy, Log: b.component("deadletter")})
	if err := b.keeper.Start(ctx); err != nil {
		return err
	}
	b.running("failures", b.keeper.Shutdown)
	return nil
}

// failuresHealth says whether what consumers of the tenant fail on can be kept.
func (b view) failuresHealth(tenant string) adminapi.HealthPart {
	h := adminapi.HealthPart{Part: "dead letters", OK: true}
	if err := b.keeper.Trouble(tenant); err != nil {
		h.OK, h.Detail = false, "events stay with their consumers: "+err.Error()
	}
	return h
}

func failureMetrics(b *Broker) []ops.Source {
	stats := func() deadletter.KeeperStats { return b.keeper.Stats() }
	return []ops.Source{
		{Name: "signet_consumer_dead_letters_total", Help: "Dead letters of consumers stored, by reason.", Kind: ops.Counter, Labels: []string{"reason"}, Read: func(emit func(float64, ...string)) {
			for reason, n := range stats().Written {
				emit(float64(n), string(reason))
			}
		}},
		{Name: "signet_consumer_failures_total", Help: "Failures of consumers that made no new dead letter, by what came of them.", Kind: ops.Counter, Labels: []string{"outcome"}, Read: func(emit func(float64, ...string)) {
			s := stats()
			emit(float64(s.Repeated), "repeated")
			emit(float64(s.Gone), "gone")
			emit(float64(s.Full), "full")
			emit(float64(s.Failed), "failed")
			emit(float64(s.Shed), "shed")
			emit(float64(s.Unsettled), "unsettled")
		}},
		{Name: "signet_consumer_advisories_total", Help: "Advisories of the server about deliveries, by kind.", Kind: ops.Counter, Labels: []string{"kind"}, Read: func(emit func(float64, ...string)) {
			for kind := range advisories {
				emit(float64(b.sweep.heard[kind].Load()), advisories[kind].name)
			}
		}},
		{Name: "signet_consumer_stuck_events", Help: "Events that were delivered more than once, are not settled, and that nobody pulls, by tenant.", Kind: ops.Gauge, Labels: []string{"tenant"}, Read: func(emit func(float64, ...string)) {
			for tenant, n := range b.sweep.stuckOf() {
				emit(float64(n), tenant)
			}
		}},
		{Name: "signet_consumer_failures_waiting", Help: "Failures of consumers whose dead letter is not stored yet.", Kind: ops.Gauge, Read: func(emit func(float64, ...string)) { emit(float64(stats().Waiting)) }},
	}
}
