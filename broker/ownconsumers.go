package broker

import (
	"context"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
)

// consumersOf counts the consumers that a principal has made: see gate.Deps.Consumers.
func consumersOf(s *store.Store) func(ctx context.Context, p *policy.Principal, stream, consumer string) (n int, there bool, err error) {
	return func(ctx context.Context, p *policy.Principal, stream, consumer string) (n int, there bool, err error) {
		all, err := s.ConsumerStates(ctx, p.Tenant.Name)
		for i := range all {
			if c := &all[i]; c.Owner == p.FullName() {
				n++
				there = there || c.Stream == stream && c.Name == consumer
			}
		}
		return n, there, err
	}
}
