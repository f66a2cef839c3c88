package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

// clusterVerbs are the handlers of the area cluster.
type clusterVerbs struct{ *Service }

// inCluster makes a handler of one of them.
func inCluster(verb func(clusterVerbs, context.Context, *request) (any, error)) handler {
	return func(s *Service, ctx context.Context, r *request) (any, error) { return verb(clusterVerbs{s}, ctx, r) }
}

func (s clusterVerbs) status(ctx context.Context, r *request) (any, error) {
	if err := r.decode(&struct{}{}); err != nil {
		return nil, err
	}
	if err := s.clustered(); err != nil {
		return nil, err
	}
	return s.cfg.Nodes.Status(ctx, r.caller.Tenant.Name), nil
}

func (s clusterVerbs) clustered() error {
	if s.cfg.Nodes == nil {
		return wire.Refuse(wire.CodeNotFound, "admin", "this broker is by itself: its configuration has no cluster")
	}
	return nil
}

func (s clusterVerbs) evacuate(ctx context.Context, r *request) (any, error) {
	return s.changeNode(ctx, r, func(node string) error { return s.cfg.Nodes.Evacuate(ctx, node) })
}

func (s clusterVerbs) remove(ctx context.Context, r *request) (any, error) {
	return s.changeNode(ctx, r, func(node string) error { return s.cfg.Nodes.Remove(ctx, node) })
}

func (s clusterVerbs) changeNode(ctx context.Context, r *request, do func(node string) error) (any, error) {
	var req adminapi.ClusterNodeRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	if req.Node == "" {
		return nil, wire.Refuse(wire.CodeRequestMalformed, "admin", "node is missing")
	}
	return s.change(ctx, r, req.Node, func() (any, error) { return struct{}{}, do(req.Node) })
}

func (s clusterVerbs) stepDown(ctx context.Context, r *request) (any, error) {
	var req adminapi.ClusterNodeRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	return s.change(ctx, r, req.Node, func() (any, error) { return struct{}{}, s.cfg.Nodes.StepDown(ctx, req.Node) })
}

func (s clusterVerbs) rebalance(ctx context.Context, r *request) (any, error) {
	if err := r.decode(&struct{}{}); err != nil {
		return nil, err
	}
	return s.change(ctx, r, "", func() (any, error) { return s.cfg.Nodes.Rebalance(ctx, r.caller.Tenant.Name) })
}

func (s clusterVerbs) rescue(ctx context.Context, r *request) (any, error) {
	var req adminapi.ClusterRescueRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	if !req.Confirm {
		return nil, wire.Refuse(wire.CodeRequestMalformed, "admin", "a rescue may lose acknowledged events: confirm is not true")
	}
	return s.change(ctx, r, strings.Join(req.Lost, ","), func() (any, error) { return s.cfg.Nodes.Rescue(ctx, req.Lost) })
}

// change does one change of the cluster at a time: at the node that leads its log,
// because only there is "at a time" that of the whole cluster. Without a leader it is
// done here, which only a rescue gets through. Each is audited twice, so that one that
// never ended is seen too.
func (s clusterVerbs) change(ctx context.Context, r *request, on string, do func() (any, error)) (any, error) {
	if err := s.clustered(); err != nil {
		return nil, err
	}
	_, verb, _ := adminapi.Split(r.Subject)
	event := func(detail string) {
		s.cfg.Trail.Event("cluster-"+verb, r.Tenant, r.Principal, "", strings.TrimSpace(on+" "+detail))
	}
	if leader := s.cfg.Nodes.Leader(); leader != "" && leader != s.cfg.Nodes.Self() && !r.forwarded {
		event("asked; done at node " + leader)
		var raw json.RawMessage
		if err := s.forward(ctx, leader, r.call, &raw); err != nil {
			return nil, err
		}
		return raw, nil
	}
	if !s.changing.TryLock() {
		return nil, wire.Refuse(wire.CodeConflict, "cluster", "another change of the cluster is at work: wait for it")
	}
	defer s.changing.Unlock()
	event("begun")
	result, err := do()
	if err != nil {
		event(fmt.Sprintf("failed: %v", err))
		return nil, err
	}
	event("done")
	return result, nil
}
