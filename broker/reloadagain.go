package broker

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker/store"
)

// reloadAgain reloads once more where the last reload failed because too few of the other
// nodes were in touch, and they are again: no file changes then, and without it this node would go
// by the policy of before, with grants that are revoked. Once a minute; nothing on a broker by itself.
func reloadAgain(ctx context.Context, b *Broker) {
	fault := b.fault.Load()
	if b.nodes == nil || fault == nil || !alone(*fault) || b.server.Cluster().Quorum() != nil {
		return
	}
	b.log.Info().Msg("the last reload failed while other nodes were away: trying again")
	_ = b.Reload(ctx) // it has logged what was wrong
}

// alone reports whether a reload may have failed because other nodes did not answer.
func alone(err error) bool {
	for _, cause := range []error{context.DeadlineExceeded, store.ErrNoLeader, nats.ErrTimeout, nats.ErrNoResponders} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}
