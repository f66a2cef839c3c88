package translog

import (
	"context"
	"fmt"
	"time"

	"github.com/signetbus/signet/signing/tlog"
)

// take adds one message to the log, and absent leaves before it for the sequences that
// the stream has no message at.
func (w *writer) take(ctx context.Context, m *message) error {
	w.pending = m.pending
	// What is compared is computed whole: what a gate knew may have gone into the log.
	hash := w.leaves.hash(m, len(w.check) > 0)
	for len(w.check) > 0 && w.checkFrom <= m.seq {
		switch want := w.check[0]; {
		case w.checkFrom == m.seq && want != hash:
			return fmt.Errorf("%w: sequence %d is not what was stored there", ErrDisagrees, m.seq)
		case w.checkFrom < m.seq && want != tlog.AbsentHash() && w.checkFrom >= w.state.State.FirstSeq:
			state, err := stateOf(ctx, w.tenant, w.l.src.Stream)
			if err != nil {
				return err
			}
			if w.checkFrom >= state.State.FirstSeq { // it has not aged out just now
				return fmt.Errorf("%w: sequence %d was dropped", ErrDisagrees, w.checkFrom)
			}
			w.state.State.FirstSeq = state.State.FirstSeq
		}
		w.check = w.check[1:]
		w.checkFrom++
	}
	next := w.next()
	if m.seq < next {
		w.stored = m.stored
		return nil // was compared
	}
	if m.seq > next {
		if err := w.absent(ctx, next, m.seq); err != nil {
			return err
		}
	}
	if err := w.edge.Append(hash); err != nil {
		return err
	}
	if w.stored = m.stored; w.edge.Size()-w.cp.Size == 1 {
		w.l.behind(m.stored)
	}
	if m.pending == 0 || w.edge.Size()%256 == 0 {
		w.l.update(func(s *State) { s.LastSeq = max(s.LastSeq, m.seq+m.pending) })
	}
	return nil
}

// absent adds the sequences from next up to, not including, seq. A damaged copy of a
// stream shows holes that are none, so the leader is asked first.
func (w *writer) absent(ctx context.Context, next, seq uint64) error {
	found, err := nextAfter(ctx, w.tenant, w.l.src.Stream, w.l.src.Filter, next)
	if err != nil {
		return err
	}
	if found != seq {
		return w.in.ended(fmt.Errorf("%w: it skipped from sequence %d to %d, the leader has %d", errFeed, next, seq, found))
	}
	if err := w.lacks(ctx, next, seq); err != nil {
		return err
	}
	if err := w.edge.AppendAbsent(int64(seq - next)); err != nil {
		return fmt.Errorf("%w: sequences jump from %d to %d: %w", ErrDisagrees, next, seq, err)
	}
	if w.l.src.Filter == "" {
		w.l.s.cfg.Log.Warn().Str("log", w.cp.Origin.String()).Uint64("from", next).Uint64("to", seq-1).Msg("sequences without an event are logged as absent")
		w.l.update(func(s *State) { s.Absent += seq - next })
	}
	return nil
}

// takeRemovedEnd adds absent leaves for sequences at the end of the stream that were
// removed before the log reached them; no message will ever come behind them to tell.
func (w *writer) takeRemovedEnd(ctx context.Context) error {
	state, err := stateOf(ctx, w.tenant, w.l.src.Stream)
	if err != nil {
		return err
	}
	next := w.next()
	switch {
	case !state.Created.Equal(w.cp.Created) && w.cp.Created.Equal(w.state.Created):
		return remade(state)
	case state.State.LastSeq+1 < next && w.in.filed && state.State.LastSeq+1 >= w.cp.Next():
		return nil // in no checkpoint yet: input.confirmed
	case state.State.LastSeq+1 < next:
		return fmt.Errorf("%w: the stream ends at sequence %d, the log at %d: what is between was removed", ErrDisagrees, state.State.LastSeq, next-1)
	case len(w.check) > 0: // nothing came behind them
		return w.uncompared(ctx, state)
	case state.State.LastSeq < next:
		w.pending = 0 // what stands behind the last message in its file may be none
		w.l.update(func(s *State) { s.LastSeq = state.State.LastSeq })
		return nil
	}
	found, err := nextAfter(ctx, w.tenant, w.l.src.Stream, "", next)
	if err != nil {
		return err
	}
	if found != 0 {
		w.pending = state.State.LastSeq + 1 - next // files do not tell that there is more
		w.l.behind(time.Now().Add(-idleCheck).UnixNano())
		return w.in.overdue(found)
	}
	if err := w.lacks(ctx, next, state.State.LastSeq+1); err != nil {
		return err
	}
	n := state.State.LastSeq + 1 - next
	if err := w.edge.AppendAbsent(int64(n)); err != nil {
		return fmt.Errorf("%w: %w", ErrDisagrees, err)
	}
	w.pending = 0
	w.l.update(func(s *State) { s.Absent += n })
	return nil
}

// uncompared judges the logged sequences at the end of the stream that no message came
// at.
func (w *writer) uncompared(ctx context.Context, state *streamState) error {
	found, err := nextAfter(ctx, w.tenant, w.l.src.Stream, "", w.checkFrom)
	if err != nil {
		return err
	}
	if found != 0 {
		return w.in.overdue(found)
	}
	for i, want := range w.check {
		if seq := w.checkFrom + uint64(i); want != tlog.AbsentHash() && seq >= state.State.FirstSeq {
			return fmt.Errorf("%w: sequence %d was dropped", ErrDisagrees, seq)
		}
	}
	w.check = nil
	return nil
}
