package client

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
)

// Bounds of schedules.
const (
	MaxSchedulePayload = adminapi.MaxSchedulePayload      // bytes
	MaxSchedules       = adminapi.MaxSchedulesOfPrincipal // of one principal
)

// Schedule says what the broker publishes again and again.
type Schedule struct {
	// Name tells the schedules of a principal apart: 1 to 64 of A-Z a-z 0-9 _ -.
	Name string
	// Spec says when, in UTC: "@every 90s" (whole seconds, 1 s to 366 days), "@hourly",
	// "@daily", "@weekly", "@monthly", "@yearly", or a cron expression of five fields (minute,
	// hour, day of the month, month, day of the week), or of six, with the second before them.
	Spec string
	// NATSSubject is an event subject of a stream.
	NATSSubject string
	// Event is published each time, with an id and a time of its own: it has none, nor an
	// expirytime, and at most MaxSchedulePayload of Data. It is neither signed nor encrypted
	// by the producer.
	Event *Event
}

// ScheduleInfo is a schedule as the broker has it.
type ScheduleInfo struct {
	Principal   string // without the tenant
	Name        string
	Spec        string
	NATSSubject string
	Type        string // of the events; empty: the default
	Bytes       int    // of the payload
	Put         time.Time
	Next        time.Time // zero for @every, which counts from when it was put
}

// Schedules puts, lists and removes schedules of the principal of a client.
type Schedules struct{ c *Client }

// SchedulesOf returns the schedules of the principal of c, which needs the right
// Nats-Schedule-Cron (headers in the policy) and a publish grant for each subject. The right is
// that of the principal: a schedule goes on when the client has ended.
func SchedulesOf(c *Client) Schedules { return Schedules{c} }

// Put puts s in place of the schedule of that name. It is judged now as its first firing would
// be, and each firing anew, as the principal, by the policy of that moment: grant, rate, size,
// schema. A firing that is refused is missed, and the schedule goes on; it ends when the
// principal is gone, disabled or has lost the right. After an error that is Retryable it may be
// put or not; to put it again is harmless.
//
// Of firings that fell due while no broker was up at most one comes. docs/spec/policy.md,
// "Schedules", says what is published twice (nothing) and what may be missed.
//
// Errors: ErrMalformed for a name, time specification or event that is none; ErrDenied,
// ErrSchemaViolation and what else a publish gives; ErrConflict for one schedule too many.
func (s Schedules) Put(ctx context.Context, sched Schedule) (*ScheduleInfo, error) {
	if err := wire.CheckSubject(sched.NATSSubject); err != nil {
		return nil, malformed("schedule", sched.NATSSubject, "", err)
	}
	if sched.Event == nil {
		return nil, malformed("schedule", sched.NATSSubject, "", fmt.Errorf("no event"))
	}
	rec := sched.Event.record()
	if err := checkOutgoing(withID(rec)); err != nil {
		return nil, malformed("schedule", sched.NATSSubject, "", err)
	}
	payload := rec.Data
	rec.Data = nil
	request := adminapi.SchedulePutRequest{
		Name: sched.Name, Spec: sched.Spec, Subject: sched.NATSSubject, Event: json.RawMessage(cloudevent.AppendJSON(nil, &rec)), Payload: payload,
	}
	var out adminapi.Schedule
	if err := s.c.request(ctx, adminapi.SubjectSchedulesPut, &request, &out); err != nil {
		return nil, err
	}
	info := infoOf(&out)
	return &info, nil
}

// withID is an event that can be validated: an id is the broker's to give.
func withID(rec cloudevent.Event) cloudevent.Event {
	if len(rec.ID) == 0 {
		rec.ID = []byte("-")
	}
	return rec
}

// List returns the schedules of the principal, by name.
func (s Schedules) List(ctx context.Context) ([]ScheduleInfo, error) {
	var list adminapi.ScheduleList
	if err := s.c.request(ctx, adminapi.SubjectSchedulesLs, &adminapi.ScheduleLsRequest{}, &list); err != nil {
		return nil, err
	}
	out := make([]ScheduleInfo, len(list.Schedules))
	for i := range list.Schedules {
		out[i] = infoOf(&list.Schedules[i])
	}
	return out, nil
}

// Remove takes a schedule away. When it returns, no further firing begins; one that was being
// published meanwhile is the last.
//
// Errors: ErrNotFound if there is none.
func (s Schedules) Remove(ctx context.Context, name string) error {
	return s.c.request(ctx, adminapi.SubjectSchedulesRm, &adminapi.ScheduleRmRequest{Name: name}, &adminapi.ScheduleRemoved{})
}

func infoOf(s *adminapi.Schedule) ScheduleInfo {
	return ScheduleInfo{
		Principal: s.Principal, Name: s.Name, Spec: s.Spec, NATSSubject: s.Subject, Type: s.Type, Bytes: s.Bytes, Put: s.Put, Next: s.Next,
	}
}
