package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/internal/wire"
)

// Bounds of wire.StreamSchedules. The server keeps no schedule in a stream that refuses when
// it is full: the oldest would go. So what is put is counted before (broker/schedule), and
// this is room for twice that: each schedule, and one firing of it.
const (
	// MaxSchedules is how many schedules a tenant may have.
	MaxSchedules = 256
	// MaxScheduleBytes is the size of one, as it is stored.
	MaxScheduleBytes = 16 << 10

	scheduleBytes  = 16 << 20 // 10 MiB when full; the rest is for two nodes that count at once
	scheduleHeader = 4 << 10  // of what the server adds to a firing

	firingConsumer = "firings"
	firingAckWait  = 30 * time.Second
	firingPending  = 2 * MaxSchedules // what waits to be tried again holds up nobody
)

// scheduleStream holds schedules, each a message that nats-server publishes again at its
// moments, and those firings until they are worked: at most one of each schedule.
func scheduleStream() jetstream.StreamConfig {
	cfg := safe(wire.StreamSchedules, scheduleBytes, wire.ScheduleSubject("", ""), wire.FiringSubject("", ""))
	cfg.Retention, cfg.Discard = jetstream.WorkQueuePolicy, jetstream.DiscardOld
	cfg.MaxMsgsPerSubject, cfg.MaxMsgSize = 1, MaxScheduleBytes+scheduleHeader
	cfg.Duplicates = bucketWindow
	cfg.AllowMsgSchedules, cfg.AllowRollup = true, true
	cfg.DenyDelete = false
	return cfg
}

// StoredSchedule is a schedule as it is stored.
type StoredSchedule struct {
	Subject  string // wire.ScheduleSubject
	Sequence uint64
	Stored   time.Time
	Data     []byte
}

// PutSchedule stores a schedule, in place of one of the same names, and waits until that is
// durable. spec is what the server reads: @every and a duration, or six fields.
//
// Errors: ErrServer, ErrNoAccount, ErrSyncFailed, ErrClosed, or the connection's and ctx's,
// after which it may be stored or not.
func PutSchedule(ctx context.Context, s *Store, tenant, principal, name, spec string, data []byte) (sequence uint64, err error) {
	m := &nats.Msg{Subject: wire.ScheduleSubject(principal, name), Header: nats.Header{}, Data: data}
	m.Header.Set("Nats-Schedule", spec)
	m.Header.Set("Nats-Schedule-Target", wire.FiringSubject(principal, name))
	sequence, _, err = Republish(ctx, s, tenant, wire.StreamSchedules, m)
	return sequence, err
}

// Schedules returns the schedules of a principal, or of all (""), oldest first. A tenant
// without a stream for them has none.
//
// Errors: ErrNoAccount, ErrServer, ErrClosed, or the connection's.
func Schedules(ctx context.Context, s *Store, tenant, principal string) ([]StoredSchedule, error) {
	var out []StoredSchedule
	a, err := s.account(tenant)
	if err != nil {
		return nil, err
	}
	for after := uint64(0); ; {
		m, err := scheduleAt(ctx, a, messageRequest{Sequence: after + 1, Next: wire.ScheduleSubject(principal, "")})
		if m == nil || err != nil {
			return out, err
		}
		out, after = append(out, *m), m.Sequence
	}
}

// ScheduleOf returns one schedule; nil if there is none.
//
// Errors: ErrNoAccount, ErrServer, ErrClosed, or the connection's.
func ScheduleOf(ctx context.Context, s *Store, tenant, principal, name string) (*StoredSchedule, error) {
	a, err := s.account(tenant)
	if err != nil {
		return nil, err
	}
	return scheduleAt(ctx, a, messageRequest{Sequence: 1, Next: wire.ScheduleSubject(principal, name)})
}

func scheduleAt(ctx context.Context, a *account, req messageRequest) (*StoredSchedule, error) {
	m, err := a.message(ctx, wire.StreamSchedules, req)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, nil
	case m == nil || err != nil:
		return nil, err
	}
	return &StoredSchedule{Subject: m.Subject, Sequence: m.Sequence, Stored: m.Time, Data: m.Data}, nil
}

// RemoveSchedule takes away the schedule at that sequence, and not one that was put in its
// place, and waits until that is durable. removed is false if it was gone.
//
// Errors: those of RemoveDLQ.
func RemoveSchedule(ctx context.Context, s *Store, tenant string, sequence uint64) (removed bool, err error) {
	return remove(ctx, s, tenant, wire.StreamSchedules, sequence)
}

// Firings makes the consumer of the firings of a tenant, which all nodes share, and returns
// what gives them, until it is stopped. A firing that is not acknowledged within 30 s comes
// again, to any node.
//
// Errors: ErrNotFound where the tenant has no stream for schedules; ErrNoAccount, ErrServer,
// ErrClosed, or the connection's.
func Firings(ctx context.Context, s *Store, tenant string) (jetstream.MessagesContext, error) {
	a, err := s.account(tenant)
	if err != nil {
		return nil, err
	}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	c, err := a.js.CreateOrUpdateConsumer(ctx, wire.StreamSchedules, jetstream.ConsumerConfig{
		Name: firingConsumer, Durable: firingConsumer, FilterSubject: wire.FiringSubject("", ""),
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: firingAckWait, MaxDeliver: -1, MaxAckPending: firingPending,
		Metadata: map[string]string{wire.MetaOwner: wire.BrokerAccount},
	})
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, fmt.Errorf("%w: stream %s of %s", ErrNotFound, wire.StreamSchedules, tenant)
	case err != nil:
		return nil, fmt.Errorf("%w: consumer of the firings of %s: %w", ErrServer, tenant, err)
	}
	// One at a time: what a node holds on to when it ends is late by the wait for its
	// acknowledgement.
	out, err := c.Messages(jetstream.PullMaxMessages(1))
	if err != nil {
		return nil, fmt.Errorf("%w: firings of %s: %w", ErrServer, tenant, err)
	}
	return out, nil
}

// HeaderOf makes of a header block what nats.go sends, names as they are.
//
// Errors: those of wire.Headers.Parse.
func HeaderOf(block []byte) (nats.Header, error) {
	var h wire.Headers
	if err := h.Parse(block); err != nil {
		return nil, fmt.Errorf("store: headers: %w", err)
	}
	out := nats.Header{}
	for _, line := range h.All() {
		out[string(line.Name)] = append(out[string(line.Name)], string(line.Value))
	}
	return out, nil
}

// ScheduleCounts returns how many schedules each principal of a tenant has; none without a
// stream for them.
//
// Errors: ErrNoAccount, ErrServer, ErrClosed, or the connection's.
func ScheduleCounts(ctx context.Context, s *Store, tenant string) (map[string]int, error) {
	a, err := s.account(tenant)
	if err != nil {
		return nil, err
	}
	var info jetstream.StreamInfo
	err = a.request(ctx, "STREAM.INFO."+wire.StreamSchedules, map[string]string{"subjects_filter": wire.ScheduleSubject("", "")}, &info)
	switch {
	case missing(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("tenant %s: %w", tenant, err)
	}
	out := map[string]int{}
	for subject := range info.State.Subjects {
		if principal, _, ok := wire.ScheduleOf(subject); ok {
			out[principal]++
		}
	}
	return out, nil
}
