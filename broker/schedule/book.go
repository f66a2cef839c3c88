package schedule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/admission"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

// rule is what refusals of schedules name.
const rule = "schedule"

var plainName = regexp.MustCompile(fmt.Sprintf(`^[A-Za-z0-9_-]{1,%d}$`, adminapi.MaxScheduleNameBytes))

// Book puts, lists and takes away schedules.
type Book struct {
	store *store.Store
	chain func() *admission.Chain

	// putting is held from the count to the put, so that one node keeps to the bounds;
	// several at once can pass them by one each, for which the stream has room.
	putting sync.Mutex
}

// NewBook returns a book. chain returns the chain in force.
func NewBook(s *store.Store, chain func() *admission.Chain) *Book {
	return &Book{store: s, chain: chain}
}

// Put judges a schedule as its first firing would be now, without taking from any limit, and
// puts it in place of the one of that name.
//
// Errors: *wire.Refusal; those of the store, after which it may be put or not.
func (b *Book) Put(ctx context.Context, by *policy.Principal, req *adminapi.SchedulePutRequest) (*adminapi.Schedule, error) {
	now := time.Now()
	if !plainName.MatchString(req.Name) {
		return nil, malformed(fmt.Sprintf("name: want 1 to %d of A-Z a-z 0-9 _ -", adminapi.MaxScheduleNameBytes))
	}
	if !acl.Header(by, policy.Cron).Allowed {
		return nil, wire.Refuse(wire.CodeHeaderDenied, rule, "the right is "+policy.Cron)
	}
	rec, err := recordOf(req, now)
	if err != nil {
		return nil, err
	}
	p, err := rec.publish(firingID(req.Name, rec, now), now)
	if err != nil {
		return nil, malformed(err.Error())
	}
	if _, _, refusal := admission.Fire(b.chain().Session(by), p, now, true); refusal != nil {
		return nil, refusal
	}
	body, err := json.Marshal(rec)
	if err != nil {
		return nil, fmt.Errorf("schedule: %w", err)
	}
	b.putting.Lock()
	defer b.putting.Unlock()
	if err := b.room(ctx, by, req.Name); err != nil {
		return nil, err
	}
	if _, err := store.PutSchedule(ctx, b.store, by.Tenant.Name, by.Name, req.Name, rec.Spec, body); err != nil {
		return nil, unavailable(err)
	}
	out := rec.describe(by.Name, req.Name, now)
	return &out, nil
}

// room refuses a schedule that is one too many.
func (b *Book) room(ctx context.Context, by *policy.Principal, name string) error {
	have, err := store.ScheduleOf(ctx, b.store, by.Tenant.Name, by.Name, name)
	if have != nil || err != nil {
		return unavailable(err)
	}
	counts, err := store.ScheduleCounts(ctx, b.store, by.Tenant.Name)
	if err != nil {
		return unavailable(err)
	}
	sum := 0
	for _, n := range counts {
		sum += n
	}
	switch {
	case counts[by.Name] >= adminapi.MaxSchedulesOfPrincipal:
		return wire.Refuse(wire.CodeConflict, rule, fmt.Sprintf("the principal has %d schedules, which is the most: remove one first", counts[by.Name]))
	case sum >= store.MaxSchedules:
		return wire.Refuse(wire.CodeConflict, rule, fmt.Sprintf("the tenant has %d schedules, which is the most: somebody must remove one first", sum))
	}
	return nil
}

// List returns the schedules of a principal, or of all (""), by principal and name. What
// cannot be read is listed with its names only.
//
// Errors: those of the store.
func (b *Book) List(ctx context.Context, tenant, principal string) ([]adminapi.Schedule, error) {
	stored, err := store.Schedules(ctx, b.store, tenant, principal)
	if err != nil {
		return nil, unavailable(err)
	}
	out := make([]adminapi.Schedule, 0, len(stored))
	for i := range stored {
		of, name, ok := wire.ScheduleOf(stored[i].Subject)
		if !ok {
			continue
		}
		if rec, err := decode(stored[i].Data); err == nil {
			out = append(out, rec.describe(of, name, time.Now()))
		} else {
			out = append(out, adminapi.Schedule{Principal: of, Name: name, Put: stored[i].Stored})
		}
	}
	slices.SortFunc(out, func(x, y adminapi.Schedule) int {
		return strings.Compare(x.Principal+"."+x.Name, y.Principal+"."+y.Name)
	})
	return out, nil
}

// Remove takes a schedule away. A firing that is being published meanwhile is the last.
//
// Errors: *wire.Refusal, CodeNotFound if there is none; those of the store.
func (b *Book) Remove(ctx context.Context, tenant, principal, name string) error {
	gone := wire.Refuse(wire.CodeNotFound, rule, "no such schedule")
	if !plainName.MatchString(name) || !plainName.MatchString(principal) {
		return gone
	}
	have, err := store.ScheduleOf(ctx, b.store, tenant, principal, name)
	switch {
	case err != nil:
		return unavailable(err)
	case have == nil:
		return gone
	}
	removed, err := store.RemoveSchedule(ctx, b.store, tenant, have.Sequence)
	if err == nil && !removed {
		return gone
	}
	return unavailable(err)
}

func malformed(detail string) error { return wire.Refuse(wire.CodeRequestMalformed, rule, detail) }

// unavailable is what callers are told of a store that does not do it.
func unavailable(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrClosed):
		return wire.Refuse(wire.CodeDraining, rule, "")
	}
	return wire.Refuse(wire.CodeUnavailable, rule, "the store did not answer, or refused; to try again is harmless: "+err.Error())
}
