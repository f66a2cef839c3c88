package broker

import (
	"context"

	"github.com/signetbus/signet/broker/gate"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
)

// consumersOf lists the consumers that a principal has made: see gate.Deps.Consumers.
func consumersOf(s *store.Store) func(ctx context.Context, p *policy.Principal) (map[gate.ConsumerName]bool, error) {
	return func(ctx context.Context, p *policy.Principal) (map[gate.ConsumerName]bool, error) {
		all, err := s.ConsumerStates(ctx, p.Tenant.Name)
		own := map[gate.ConsumerName]bool{}
		for i := range all {
			if c := &all[i]; c.Owner == p.FullName() {
				own[gate.ConsumerName{Stream: c.Stream, Consumer: c.Name}] = true
			}
		}
		return own, err
	}
}
