package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/internal/wire"
)

// ErrUncovered: events are stored on subjects that a stream would no longer declare.
var ErrUncovered = errors.New("store: the stream holds events on subjects that it would no longer have")

// uncovered refuses to take subjects from a stream while it holds events on them. Whoever
// may read every subject that the policy declares for a stream may read all of it, by
// sequence too: the events left behind would become readable by principals that never had
// a grant for their subjects.
//
// Errors: ErrUncovered, or those of the server.
func uncovered(ctx context.Context, a *account, have, want *jetstream.StreamConfig) error {
	for _, old := range have.Subjects {
		if wire.SubsetOfAny(old, want.Subjects) {
			continue
		}
		left, err := storedOutside(ctx, a, want, old)
		switch {
		case err != nil:
			return err
		case left != "":
			return fmt.Errorf("%w: %s, for one: leave %s among its subjects until they have aged out, and grant it to nobody", ErrUncovered, left, old)
		}
	}
	return nil
}

// covered refuses a restored stream that holds events on subjects that the policy does
// not declare for it, for the reason that uncovered has.
//
// Errors: ErrNotRestored with ErrUncovered, or those of the server.
func covered(ctx context.Context, a *account, want *jetstream.StreamConfig) error {
	left, err := storedOutside(ctx, a, want, ">")
	if err == nil && left != "" {
		err = fmt.Errorf("%w: %w: %s, for one: declare it for the stream, granted to nobody, or leave the stream out of the restore", ErrNotRestored, ErrUncovered, left)
	}
	return err
}

// storedOutside returns a subject inside filter on which something is stored, and which
// want does not declare; empty for none. It reads the list in the server's pages.
func storedOutside(ctx context.Context, a *account, want *jetstream.StreamConfig, filter string) (string, error) {
	for offset := 0; ; {
		var page struct {
			Total int `json:"total"`
			State struct {
				Subjects map[string]uint64 `json:"subjects"`
			} `json:"state"`
		}
		ask := map[string]any{"subjects_filter": filter, "offset": offset}
		if err := a.request(ctx, "STREAM.INFO."+want.Name, ask, &page); err != nil {
			return "", err
		}
		for subject := range page.State.Subjects {
			covered := slices.ContainsFunc(want.Subjects, func(s string) bool { return wire.Match(s, subject) })
			if !covered {
				return subject, nil
			}
		}
		offset += len(page.State.Subjects)
		if len(page.State.Subjects) == 0 || offset >= page.Total {
			return "", nil
		}
	}
}
