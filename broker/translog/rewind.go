package translog

import (
	"context"
	"fmt"
	"time"

	"github.com/signetbus/signet/signing/tlog"
)

// outside returns the last checkpoint of the log that the sink has; nil if it has none.
func (l *log) outside() (*tlog.Note, error) {
	o := tlog.Origin{Cluster: l.s.cfg.Cluster, Tenant: l.src.Tenant, Stream: l.src.Stream}
	return l.s.sink.newest(&o, l.s.cfg.Ring())
}

// rewound compares the last checkpoint of the store, nil for none, with that of the sink,
// out, which was read before: a store that was put back to an earlier state would let a
// second history be signed under the name of the first.
//
// Errors: ErrDisagrees, or the connection's.
func (l *log) rewound(ctx context.Context, out, note *tlog.Note) error {
	if out == nil {
		return nil
	}
	went := func(have string) error {
		return fmt.Errorf("%w: the sink has a checkpoint of %d leaves from %s of %s, the store %s: was a volume, a machine or a backup put back? Nothing is signed until somebody has looked (docs/operations.md, When a log does not verify)",
			ErrDisagrees, out.Size, out.Time.Format(time.RFC3339), out.Origin, have)
	}
	switch {
	case note == nil:
		return went("has none")
	case out.Origin.Start.After(note.Origin.Start):
		return went("has an older log, " + note.Origin.String())
	case out.Origin.String() != note.Origin.String():
		return nil // of an earlier run
	case out.Size > note.Size:
		return went(fmt.Sprintf("one of %d from %s", note.Size, note.Time.Format(time.RFC3339)))
	}
	var proof []tlog.Hash
	var err error
	if out.Size < note.Size {
		r := tlog.NewHashReader(note.Size, note.Root, l.s.archive.reader(ctx, &note.Origin))
		if proof, err = tlog.ProveConsistency(out.Size, note.Size, r); err != nil {
			return disagrees(err)
		}
	}
	if err := tlog.CheckConsistency(&out.Checkpoint, &note.Checkpoint, proof); err != nil {
		return fmt.Errorf("%w: %w: the log in the store has another history than the sink: was a volume, a machine or a backup put back? Nothing is signed until somebody has looked (docs/operations.md, When a log does not verify)", ErrDisagrees, err)
	}
	return nil
}
