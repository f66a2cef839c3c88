package admin

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/signetbus/signet/broker/audit"
	"github.com/signetbus/signet/internal/adminapi"
)

// throttled answers status.throttled: who of the caller's tenant was refused because of a
// limit within the last minutes, at all nodes.
func throttled(s *Service, ctx context.Context, r *request) (any, error) {
	if err := r.decode(&struct{}{}); err != nil {
		return nil, err
	}
	node := s.cfg.Node
	if s.cfg.Nodes != nil {
		node = s.cfg.Nodes.Self()
	}
	out := &adminapi.ThrottleList{Minutes: audit.ThrottledMinutes, Throttled: throttledHere(s, r.caller.Tenant.Name, node, time.Now())}
	if s.cfg.Nodes == nil || r.forwarded {
		return out, nil
	}
	out.Without = askOthers(s, ctx, r, func(theirs *adminapi.ThrottleList) {
		out.Throttled = append(out.Throttled, theirs.Throttled...)
		out.More += theirs.More
	})
	slices.SortFunc(out.Throttled, func(a, b adminapi.Throttle) int {
		return cmp.Or(cmp.Compare(b.Refused, a.Refused), cmp.Compare(a.Principal, b.Principal), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Node, b.Node))
	})
	if n := len(out.Throttled) - adminapi.MaxListLimit; n > 0 {
		out.Throttled, out.More = out.Throttled[:adminapi.MaxListLimit], out.More+n
	}
	return out, nil
}

func throttledHere(s *Service, tenant, node string, now time.Time) []adminapi.Throttle {
	list := []adminapi.Throttle{}
	for _, t := range s.cfg.Trail.Throttled().List(now) {
		if t.Tenant == tenant && t.Recent > 0 && len(list) < adminapi.MaxListLimit {
			list = append(list, adminapi.Throttle{
				Principal: t.Principal, Rule: t.Rule, Code: t.Code, Name: t.Code.Entry().Name, Node: node,
				Refused: t.Recent, Last: t.Last, RetryAfterMs: t.RetryAfter.Milliseconds(),
			})
		}
	}
	return list
}
