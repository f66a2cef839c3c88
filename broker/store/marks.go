package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// Bounds of SweepMarks.
const (
	markLasts    = time.Hour // longer than any redrive, and than a new leader needs to know its letters
	maxMarkSweep = 1000
)

// SweepMarks takes away the marks of redrives whose letter is gone: a broker that ended
// between the two left them. Nobody else finds them, since nobody redrives what is gone.
//
// Errors: ErrNoAccount, ErrServer, ErrSyncFailed, ErrClosed, or the connection's.
func SweepMarks(ctx context.Context, s *Store, tenant string, now time.Time) (gone int, err error) {
	a, err := s.account(tenant)
	if err != nil {
		return 0, err
	}
	var after uint64
	for range maxMarkSweep {
		m, err := a.message(ctx, wire.StreamRetry, messageRequest{Next: wire.PrefixRedrive + "*", Sequence: after + 1})
		switch {
		case errors.Is(err, ErrNotFound): // the tenant has no dead letters
			return gone, nil
		case m == nil || err != nil:
			return gone, err
		}
		after = m.Sequence
		var mark Mark
		if err := json.Unmarshal(m.Data, &mark); err != nil {
			return gone, fmt.Errorf("store: mark at %d: %w", m.Sequence, err)
		}
		if now.Sub(mark.Time) < markLasts {
			continue
		}
		_, err = s.GetDLQ(ctx, tenant, mark.Letter)
		if err == nil {
			continue
		}
		if !errors.Is(err, ErrNotFound) {
			return gone, err
		}
		if _, err := remove(ctx, s, tenant, wire.StreamRetry, m.Sequence); err != nil {
			return gone, err
		}
		gone++
	}
	return gone, nil
}
