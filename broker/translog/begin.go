package translog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/signing/tlog"
)

// begin publishes the empty checkpoint of a new log, which takes the place of the
// checkpoint old with the sequence after, if there is one.
func (l *log) begin(ctx context.Context, system *nats.Conn, state *streamState, old *tlog.Note, after uint64) (*tlog.Note, uint64, error) {
	signed := l.s.cfg.Now().UTC()
	now := signed
	if old != nil && now.Before(old.Origin.Start.Add(time.Second)) { // no two logs have one origin
		now = old.Origin.Start.Add(time.Second)
	}
	cp := tlog.Checkpoint{
		Origin: tlog.Origin{Cluster: l.s.cfg.Cluster, Tenant: l.src.Tenant, Stream: l.src.Stream, Start: now.Truncate(time.Second)},
		Root:   (&tlog.Edge{}).Root(), First: max(state.State.FirstSeq, 1),
		Time: signed.Truncate(time.Millisecond), Created: state.Created,
	}
	signer, err := l.signer(cp.Time)
	if err != nil {
		return nil, 0, err
	}
	raw, err := cp.Sign(signer)
	if err != nil {
		return nil, 0, err
	}
	seq, err := put(ctx, system, SubjectCheckpoint(l.src.Tenant, l.src.Stream), raw, after)
	if err != nil {
		return nil, 0, err
	}
	if err := l.s.archive.settle(ctx); err != nil {
		return nil, 0, err
	}
	note, err := tlog.ParseNote(raw)
	l.s.cfg.Log.Info().Str("log", cp.Origin.String()).Uint64("first", cp.First).Msg("log begun")
	return note, seq, err
}

// trusted checks the last checkpoint, and says which key has signed it, and whether the
// whole of what is stored must be compared with the log before it goes on: the stream was
// made anew, or the key was not valid when it signed.
//
// Errors: ErrDisagrees, or tlog.ErrFuture, which passes.
func (l *log) trusted(note *tlog.Note, state *streamState) (key string, whole bool, err error) {
	if err := note.CheckTime(l.s.cfg.Now()); err != nil {
		return "", false, fmt.Errorf("the last checkpoint of the log: %w; if a clock was wrong when it was signed, signet log restart begins a new log", err)
	}
	signed, err := note.Verify(l.s.cfg.Ring())
	switch {
	case errors.Is(err, tlog.ErrKeyNotValid):
		whole = true
	case err != nil:
		return "", false, fmt.Errorf("%w: the last checkpoint: %w", ErrDisagrees, err)
	}
	if !note.Created.Equal(state.Created) {
		l.s.cfg.Log.Warn().Str("log", note.Origin.String()).Time("created", state.Created).Time("logged", note.Created).
			Msg("the stream was made anew: comparing all of it with its log")
		whole = true
	}
	if state.State.LastSeq+1 < note.Next() {
		return "", false, fmt.Errorf("%w: the stream ends at sequence %d, the log at %d: what is between was removed", ErrDisagrees, state.State.LastSeq, note.Next()-1)
	}
	return signed.ID, whole, nil
}

// Restart begins a new log of a stream, from what it has stored now: after the operator
// has looked at why the log stands still. The old checkpoints and tiles stay.
//
// Errors: ErrNotLogged, or the connection's.
func (s *Service) Restart(ctx context.Context, tenant, stream string) error {
	l, err := s.find(tenant, stream)
	if err != nil {
		return err
	}
	nc, err := s.cfg.Tenant(l.src.Account)
	if err != nil {
		return err
	}
	system, err := s.archive.conn()
	if err != nil {
		return err
	}
	state, err := stateOf(ctx, nc, stream)
	if err != nil {
		return err
	}
	m, err := get(ctx, system, StreamLog, map[string]any{"last_by_subj": SubjectCheckpoint(tenant, stream)})
	if err != nil {
		return err
	}
	var old *tlog.Note
	after := uint64(0)
	if m != nil {
		after = m.Seq
		old, _ = tlog.ParseNote(m.Data) // it need not be a good one
	}
	_, _, err = l.begin(ctx, system, state, old, after)
	return err
}
