package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/internal/wire"
)

// StreamStatus is the state of one stream at one moment.
type StreamStatus struct {
	Name      string
	Subjects  []string
	Messages  uint64
	Bytes     uint64
	MaxBytes  int64
	FirstSeq  uint64
	LastSeq   uint64
	FirstTime time.Time
	LastTime  time.Time
	MaxAge    time.Duration // 0: kept for ever
	Deleted   int           // holes between FirstSeq and LastSeq; 0 on a healthy event stream
	Consumers int
}

// StreamInfo returns the state of a tenant's stream; the DLQ and the streams of
// buckets (KV_, OBJ_) are streams too.
//
// Errors: ErrNotFound, ErrNoAccount, ErrServer, ErrClosed, or the connection's.
func (s *Store) StreamInfo(ctx context.Context, tenant, stream string) (StreamStatus, error) {
	a, err := s.account(tenant)
	if err != nil {
		return StreamStatus{}, err
	}
	if !plainName(stream) {
		return StreamStatus{}, fmt.Errorf("%w: stream %q", ErrNotFound, stream)
	}
	var info jetstream.StreamInfo
	if err := a.request(ctx, "STREAM.INFO."+stream, nil, &info); missing(err) {
		return StreamStatus{}, fmt.Errorf("%w: stream %s", ErrNotFound, stream)
	} else if err != nil {
		return StreamStatus{}, fmt.Errorf("tenant %s: %w", tenant, err)
	}
	return status(&info), nil
}

// Streams returns the state of all streams of a tenant, declared or not, sorted by name.
// In a cluster it leaves out those that have no leader now.
//
// Errors: ErrNoAccount, ErrServer, ErrClosed, or the connection's.
func (s *Store) Streams(ctx context.Context, tenant string) ([]StreamStatus, error) {
	a, err := s.account(tenant)
	if err != nil {
		return nil, err
	}
	l, err := a.list(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]StreamStatus, 0, len(l.infos))
	for _, info := range l.infos {
		out = append(out, status(info))
	}
	slices.SortFunc(out, func(x, y StreamStatus) int { return strings.Compare(x.Name, y.Name) })
	return out, nil
}

func status(i *jetstream.StreamInfo) StreamStatus {
	return StreamStatus{
		Name: i.Config.Name, Subjects: i.Config.Subjects,
		Messages: i.State.Msgs, Bytes: i.State.Bytes, MaxBytes: i.Config.MaxBytes,
		FirstSeq: i.State.FirstSeq, LastSeq: i.State.LastSeq, FirstTime: i.State.FirstTime, LastTime: i.State.LastTime,
		MaxAge: i.Config.MaxAge, Deleted: i.State.NumDeleted, Consumers: i.State.Consumers,
	}
}

// ConsumerOwner returns the principal ("tenant/name") that owns a consumer, as the
// read guard wrote it into the consumer's metadata; empty if it names none. found
// is false if there is no such stream or consumer.
//
// Errors: ErrNoAccount, ErrServer, ErrClosed, or the connection's.
func (s *Store) ConsumerOwner(ctx context.Context, tenant, stream, consumer string) (owner string, found bool, err error) {
	if !plainName(stream) || !plainName(consumer) {
		return "", false, nil // the server could not have made it
	}
	a, err := s.account(tenant)
	if err != nil {
		return "", false, err
	}
	var info struct {
		Config struct {
			Metadata map[string]string `json:"metadata"`
		} `json:"config"`
	}
	err = a.request(ctx, "CONSUMER.INFO."+stream+"."+consumer, nil, &info)
	switch {
	case missing(err):
		return "", false, nil
	case err != nil:
		return "", false, fmt.Errorf("tenant %s: %w", tenant, err)
	}
	return info.Config.Metadata[wire.MetaOwner], true, nil
}

// plainName reports whether s can be one token of a subject, and no wildcard.
func plainName(s string) bool {
	return wire.CheckRawSubject(s, false) == nil && !strings.ContainsAny(s, ".*>/\\")
}
