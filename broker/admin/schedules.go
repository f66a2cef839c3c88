package admin

import (
	"context"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

// Schedules keeps the schedules of all tenants; *schedule.Book does. What it refuses is a
// *wire.Refusal.
type Schedules interface {
	// Put puts a schedule of by, in place of the one of that name.
	Put(ctx context.Context, by *policy.Principal, req *adminapi.SchedulePutRequest) (*adminapi.Schedule, error)
	// List returns the schedules of a principal, or of all ("").
	List(ctx context.Context, tenant, principal string) ([]adminapi.Schedule, error)
	// Remove takes a schedule away.
	Remove(ctx context.Context, tenant, principal, name string) error
}

// schedulesPut puts a schedule of the caller: with the area or without, it needs the right.
func schedulesPut(s *Service, ctx context.Context, r *request) (any, error) {
	var req adminapi.SchedulePutRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	if !acl.OwnSchedules(r.caller, adminapi.SubjectSchedulesPut) {
		return nil, wire.Refuse(wire.CodeHeaderDenied, "schedule", "to put a schedule the principal needs the right "+policy.Cron+", under headers in the policy")
	}
	return s.cfg.Schedules.Put(ctx, r.caller, &req)
}

func schedulesLs(s *Service, ctx context.Context, r *request) (any, error) {
	var req adminapi.ScheduleLsRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	of := r.caller.Name
	if req.All {
		if of = ""; !acl.Admin(r.caller, adminapi.AreaSchedules).Allowed {
			return nil, othersSchedules()
		}
	}
	list, err := s.cfg.Schedules.List(ctx, r.caller.Tenant.Name, of)
	if err != nil {
		return nil, err
	}
	return &adminapi.ScheduleList{Schedules: list}, nil
}

func schedulesRm(s *Service, ctx context.Context, r *request) (any, error) {
	var req adminapi.ScheduleRmRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	if req.Principal == "" {
		req.Principal = r.caller.Name
	}
	if req.Principal != r.caller.Name && !acl.Admin(r.caller, adminapi.AreaSchedules).Allowed {
		return nil, othersSchedules()
	}
	return adminapi.ScheduleRemoved{}, s.cfg.Schedules.Remove(ctx, r.caller.Tenant.Name, req.Principal, req.Name)
}

func othersSchedules() error {
	return wire.Refuse(wire.CodeAdminDenied, "default-deny/admin", "others' schedules need the area "+adminapi.AreaSchedules)
}
