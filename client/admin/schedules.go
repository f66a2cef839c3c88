package admin

import (
	"context"

	"github.com/signetbus/signet/internal/adminapi"
)

// Schedules lists and removes the schedules of a tenant; client.SchedulesOf puts those of a
// principal.
type Schedules struct{ a *API }

// SchedulesOf returns the part of the API that is about schedules.
func SchedulesOf(a *API) Schedules { return Schedules{a} }

// List returns the schedules of all principals of the tenant, by principal and name, without
// what they publish.
//
// Errors: client.ErrDenied without the area schedules.
func (s Schedules) List(ctx context.Context) ([]Schedule, error) {
	list, err := call[adminapi.ScheduleList](ctx, s.a, adminapi.SubjectSchedulesLs, &adminapi.ScheduleLsRequest{All: true})
	if err != nil {
		return nil, err
	}
	return list.Schedules, nil
}

// Remove takes a schedule away. principal is the name without the tenant.
//
// Errors: client.ErrNotFound if there is none; client.ErrDenied without the area schedules.
func (s Schedules) Remove(ctx context.Context, principal, name string) error {
	_, err := call[adminapi.ScheduleRemoved](ctx, s.a, adminapi.SubjectSchedulesRm, &adminapi.ScheduleRmRequest{Principal: principal, Name: name})
	return err
}
