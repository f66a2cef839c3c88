package translog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/signetbus/signet/signing/tlog"
)

// Where checkpoints are kept besides LOG.
const (
	whereSink  = "the sink"
	whereAudit = "AUDIT"
)

// witness is a checkpoint of the log that is kept elsewhere than in LOG.
type witness struct {
	where string
	note  *tlog.Note
}

// outside returns the last checkpoints of the log that the sink and AUDIT have. The log
// does not wait for AUDIT.
func (l *log) outside(ctx context.Context) ([]witness, error) {
	var out []witness
	o := tlog.Origin{Cluster: l.s.cfg.Cluster, Tenant: l.src.Tenant, Stream: l.src.Stream}
	note, err := l.s.sink.newest(&o, l.s.cfg.Ring())
	if err != nil {
		return nil, err
	}
	if note != nil {
		out = append(out, witness{whereSink, note})
	}
	if note := l.history(ctx); note != nil {
		out = append(out, witness{whereAudit, note})
	}
	return out, nil
}

// history returns the last checkpoint that AUDIT has; nil if there is none that a node
// of this cluster has signed.
func (l *log) history(ctx context.Context) *tlog.Note {
	nc, err := l.s.archive.conn()
	if err != nil {
		return nil
	}
	m, err := get(ctx, nc, StreamAudit, map[string]any{"last_by_subj": SubjectHistory(l.src.Tenant, l.src.Stream)})
	if err != nil || m == nil {
		return nil
	}
	n, err := tlog.ParseNote(m.Data)
	if err != nil || n.Origin.Cluster != l.s.cfg.Cluster || n.Origin.Tenant != l.src.Tenant || n.Origin.Stream != l.src.Stream {
		return nil
	}
	if _, err := n.Verify(l.s.cfg.Ring()); err != nil {
		return nil
	}
	return n
}

// rewound compares the last checkpoint of the store, nil for none, with a witness that was
// read before: a store that was put back to an earlier state would let a second history be
// signed under the name of the first.
//
// Errors: ErrDisagrees, or the connection's.
func (l *log) rewound(ctx context.Context, w witness, note *tlog.Note) error {
	out := w.note
	went := func(have string) error {
		return fmt.Errorf("%w: %s has a checkpoint of %d leaves from %s of %s, the store %s: was a volume, a machine or a backup put back? Nothing is signed until somebody has looked (docs/operations.md, When a log does not verify)",
			ErrDisagrees, w.where, out.Size, out.Time.Format(time.RFC3339), out.Origin, have)
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
		proof, err = tlog.ProveConsistency(out.Size, note.Size, r)
		if errors.Is(err, ErrLetGo) {
			l.s.cfg.Log.Warn().Str("log", note.Origin.String()).Int64("leaves", out.Size).Str("where", w.where).Msg("a checkpoint cannot be compared with: its tiles have made way")
			return nil
		}
		if err != nil {
			return disagrees(err)
		}
	}
	if err := tlog.CheckConsistency(&out.Checkpoint, &note.Checkpoint, proof); err != nil {
		return fmt.Errorf("%w: %w: the log in the store has another history than %s: was a volume, a machine or a backup put back? Nothing is signed until somebody has looked (docs/operations.md, When a log does not verify)", ErrDisagrees, err, w.where)
	}
	return nil
}
