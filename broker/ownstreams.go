package broker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/wire"
)

// ownRetry is between two looks whether every node has the broker's own account.
const ownRetry = time.Second

// ownStreams is whether the broker's own streams (store.StreamAudit and the others) are
// there. In a cluster they are made when every node that is in touch has the account for
// them, which one of an earlier release has not: while nodes are upgraded one by one, the
// broker runs without, and what writes to the streams waits for Made.
type ownStreams struct {
	made chan struct{}
	once sync.Once
}

// Made is closed when the streams are there.
func (o *ownStreams) Made() <-chan struct{} { return o.made }

func (o *ownStreams) done() bool {
	select {
	case <-o.made:
		return true
	default:
		return false
	}
}

// startOwnStreams makes the streams, or goes on trying until they can be made. It is
// safe to repeat after an error.
func startOwnStreams(ctx context.Context, b startup) error {
	if b.own == nil {
		b.own = &ownStreams{made: make(chan struct{})}
	}
	made, err := makeOwnStreams(ctx, b.Broker)
	if err != nil || made {
		return err
	}
	b.log.Warn().Msg("other nodes do not have the account for the broker's own streams yet: no audit stream, no logs and no pushed keyrings until they are upgraded")
	life, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		awaitOwnStreams(life, b.Broker)
	}()
	b.running("own streams", func(context.Context) error {
		stop()
		<-ended
		return nil
	})
	return nil
}

func awaitOwnStreams(life context.Context, b *Broker) {
	poll := time.NewTicker(ownRetry)
	defer poll.Stop()
	for {
		select {
		case <-life.Done():
			return
		case <-poll.C:
		}
		ctx, cancel := context.WithTimeout(life, reloadLimit)
		made, err := makeOwnStreams(ctx, b)
		cancel()
		if made {
			b.log.Info().Msg("the broker's own streams are made")
			return
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			b.log.Error().Err(err).Msg("the broker's own streams are not made")
		}
	}
}

// makeOwnStreams makes the streams, or enlarges them to what the policy in force needs.
// false without an error: not every node has the account.
func makeOwnStreams(ctx context.Context, b *Broker) (bool, error) {
	if b.nodes != nil && !b.own.done() {
		for _, info := range b.nodes.ask(ctx, question{}) {
			if !hasAccount(info.Tenants, wire.BrokerAccount) {
				return false, nil
			}
		}
	}
	if err := store.ApplyOwn(ctx, b.store, b.Policy()); err != nil {
		return false, err
	}
	b.own.once.Do(func() { close(b.own.made) })
	return true, nil
}
