package admin

import (
	"context"
	"time"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/audit"
	"github.com/signetbus/signet/internal/adminapi"
)

func (s *Service) refusalsLs(ctx context.Context, r *request) (any, error) {
	var req adminapi.RefusalsLsRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	var err error
	if req.Principal, err = r.ofTenant(req.Principal); err != nil {
		return nil, err
	}
	// An After without Cursors is the position on one node, and says nothing of others.
	if s.cfg.Nodes != nil && !r.forwarded && (req.After == 0 || req.Cursors != nil) {
		return s.refusalsOfAll(ctx, r, &req)
	}
	return s.refusalsHere(ctx, r, &req), nil
}

func (s *Service) refusalsHere(ctx context.Context, r *request, req *adminapi.RefusalsLsRequest) *adminapi.RefusalList {
	tenant := r.caller.Tenant.Name
	f := audit.Filter{Tenant: tenant, Code: req.Code, Subject: req.Subject}
	if req.Principal != "" {
		f.Principal = tenant + "/" + req.Principal
	}
	entries, cursor := s.cfg.Trail.List(req.After, f, limit(req.Limit))
	if wait := min(req.WaitMs, adminapi.MaxWaitMs); len(entries) == 0 && wait > 0 {
		poll, cancel := context.WithTimeout(ctx, time.Duration(wait)*time.Millisecond)
		defer cancel()
		entries, cursor = s.cfg.Trail.Tail(poll, cursor, f, limit(req.Limit))
	}
	out := &adminapi.RefusalList{Cursor: cursor, Entries: []adminapi.Refusal{}}
	explain := acl.Admin(r.caller, adminapi.AreaPolicy).Allowed
	for i := range entries {
		e := &entries[i]
		if !req.Since.IsZero() && e.Last.Before(req.Since) {
			continue
		}
		row := s.refusal(e)
		if explain {
			row.Explain = e.Explain
		}
		out.Entries = append(out.Entries, row)
	}
	return out
}

func (s *Service) refusal(e *audit.Entry) adminapi.Refusal {
	reg := e.Code.Entry()
	node := ""
	if s.cfg.Nodes != nil {
		node = s.cfg.Nodes.Self()
	}
	return adminapi.Refusal{
		Node: node, Cursor: e.Cursor, Time: e.Time, Code: e.Code, Name: reg.Name, Class: reg.Class, Title: reg.Title,
		Rule: e.Rule, Subject: e.Subject, Principal: e.Principal, Detail: e.Detail, Ref: e.Ref, Count: e.Count,
		Fix: reg.Fix, Violations: e.Violations,
	}
}
