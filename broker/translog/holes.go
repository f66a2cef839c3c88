package translog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// ErrDamaged: sequences cannot be read that nothing can have taken out of the stream.
// The log waits for them: a leaf that says "absent" is for good.
var ErrDamaged = errors.New("translog: the copy of the stream on this node is damaged")

// stepDownEvery is between two times that a node hands the lead of a damaged copy on: if
// every copy has the hole, the lead must not go round.
const stepDownEvery = time.Hour

// lacks says why the sequences from one up to, not including, to, which the leader has no
// message at, may not be logged as absent; nil: they may. Only age takes events out of a
// stream that denies deleting and purging.
//
// Errors: ErrDamaged, or the connection's.
func (w *writer) lacks(ctx context.Context, from, to uint64) error {
	if w.l.src.Filter != "" {
		return nil
	}
	state, err := stateOf(ctx, w.tenant, w.l.src.Stream)
	if err != nil {
		return err
	}
	known := uint64(0)
	if w.l.s.cfg.Lacks != nil {
		known = w.l.s.cfg.Lacks(w.l.src.Account, w.l.src.Stream)
	}
	if c := &state.Config; !c.DenyDelete || !c.DenyPurge || known == math.MaxUint64 {
		return nil
	}
	switch first := state.State.FirstSeq; {
	case to > first && state.State.Deleted > known:
		err = fmt.Errorf("%w: sequences %d to %d", ErrDamaged, max(from, first), to-1)
	case from < first && w.tooYoung(state.Config.MaxAge):
		err = fmt.Errorf("%w: it begins at sequence %d, and those from %d on cannot have aged out", ErrDamaged, first, from)
	default:
		return nil
	}
	w.handOn(ctx, state.Config.Replicas)
	return fmt.Errorf("%w cannot be read and are not logged as absent; a whole copy heals it, on a single node restart with --accept-damage %s/%s when nothing else does (docs/operations.md, A damaged store)",
		err, w.l.src.Account, w.l.src.Stream)
}

// tooYoung says whether the message behind the last one that was seen must still be
// there.
func (w *writer) tooYoung(keep time.Duration) bool {
	if keep == 0 {
		return true
	}
	return w.stored > 0 && time.Unix(0, w.stored).After(w.l.s.cfg.Now().Add(-keep).Add(slack(keep)))
}

// handOn lets another node lead the stream: the log goes on there if its copy is whole.
func (w *writer) handOn(ctx context.Context, replicas int) {
	if replicas < 2 || !w.l.stepped.IsZero() && time.Since(w.l.stepped) < stepDownEvery {
		return
	}
	w.l.stepped = time.Now()
	var answer struct {
		Success bool `json:"success"`
	}
	err := ask(ctx, w.tenant, "STREAM.LEADER.STEPDOWN."+w.l.src.Stream, nil, &answer)
	w.l.s.cfg.Log.Error().AnErr("error", err).Bool("done", answer.Success).Str("tenant", w.l.src.Tenant).Str("stream", w.l.src.Stream).
		Msg("a copy with a hole hands the lead of its stream on")
}
