package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/signetbus/signet/internal/wire"
)

// setUp finds the stream, makes the consumers of all partitions, and takes those that
// are free.
func (g *KeyedSubscription) setUp(ctx context.Context) (err error) {
	ctx, cancel := g.client.cfg.deadline(ctx)
	defer cancel()
	ttl, _, err := g.kv.look(ctx)
	if err != nil {
		return err
	}
	if ttl > 0 && ttl < 3*g.cfg.Lease {
		return fmt.Errorf("%w: values of bucket %s live %v, which must be at least three times the lease of %v",
			ErrInvalidOption, g.cfg.Bucket, ttl, g.cfg.Lease)
	}
	if g.stream == "" {
		if g.stream, err = g.client.js().streamFor(ctx, g.filter); err != nil {
			return err
		}
	}
	if _, _, err := g.read(ctx); err != nil {
		return err
	}
	if err := makeConsumers(ctx, g); err != nil {
		return err
	}
	return g.attend(ctx)
}

// jsNotUnique and jsNotFiltered are JetStream's codes for a second consumer that reads the same
// of a stream whose events go to one alone.
const (
	jsNotFiltered = 10099
	jsNotUnique   = 10100
)

// makeConsumers makes the consumers of all partitions, or finds them.
func makeConsumers(ctx context.Context, g *KeyedSubscription) error {
	js, made := g.client.js(), []string{}
	for p := range g.cfg.Partitions {
		cfg := *g.sub
		cfg.durable = g.cfg.durable(p)
		info, fresh, err := js.ensureDurable(ctx, g.stream, g.filter, &cfg)
		if fresh {
			made = append(made, cfg.durable)
		}
		var e *Error
		switch {
		case errors.As(err, &e) && (e.Code == jsNotUnique || e.Code == jsNotFiltered):
			// What this call has made would keep everybody else from the stream.
			for _, name := range made {
				err = errors.Join(err, js.deleteConsumer(ctx, g.stream, name))
			}
			return fmt.Errorf("%w: stream %s gives each event to one consumer alone (retention workqueue): use Partitions: 1, or limits or interest: %w",
				ErrInvalidOption, g.stream, err)
		case err != nil:
			return err
		case info.Config.AckWait < g.cfg.Lease:
			return &Error{
				Op: "subscribe", Class: string(wire.ClassConflict), Subject: g.filter, Title: "the group began with a shorter lease",
				Detail: fmt.Sprintf("consumer %s has an ack wait of %v, less than the lease of %v", cfg.durable, info.Config.AckWait, g.cfg.Lease),
				Fix:    "use a Lease of at most that, or another Group",
			}
		}
	}
	return nil
}
