package broker

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/store"
)

// patient makes of a step of the start one that is tried again, as long as ctx lasts,
// while the cluster gives no answer. When all nodes start at once, streams have no
// leader for a while and the cluster's own leader changes; a node that gave up would
// take the quorum from the others, which then give up as well. The step must be safe to
// repeat.
func (b startup) patient(step func(context.Context, *material) error) func(context.Context, *material) error {
	return func(ctx context.Context, m *material) error {
		for {
			err := step(ctx, m)
			if b.cfg.Cluster == nil || !unanswered(err) || ctx.Err() != nil {
				return err
			}
			b.log.Warn().Err(err).Msg("the cluster gives no answer, trying again")
			if errors.Is(err, store.ErrNoLeader) { // which may come at once
				select {
				case <-ctx.Done():
					return errors.Join(err, ctx.Err())
				case <-time.After(unledRetry):
				}
			}
			if err := b.awaitQuorum(ctx, m); err != nil {
				return err
			}
		}
	}
}

// unledRetry is between two tries while a stream has no leader.
const unledRetry = time.Second

// unanswered tells a cluster that cannot answer now from a refusal.
func unanswered(err error) bool {
	if errors.Is(err, store.ErrNoLeader) {
		return true
	}
	var api *jetstream.APIError
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &api) && store.Transient(api)
}
