package admin

import (
	"cmp"
	"context"
	"slices"

	"github.com/signetbus/signet/internal/adminapi"
)

// consumers answers status.consumers: those with the most to do first, so that a cut
// list has what an administrator looks for.
func (s *Service) consumers(ctx context.Context, r *request) (any, error) {
	var req adminapi.StatusConsumersRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	all, err := s.cfg.Consumers(ctx, r.caller.Tenant.Name)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(x, y adminapi.ConsumerStatus) int {
		return cmp.Or(
			cmp.Compare(y.Pending+uint64(max(y.AckPending, 0)), x.Pending+uint64(max(x.AckPending, 0))),
			cmp.Compare(x.Stream, y.Stream), cmp.Compare(x.Name, y.Name),
		)
	})
	return adminapi.ConsumerList{Consumers: all[:min(len(all), limit(req.Limit))], Total: len(all)}, nil
}
