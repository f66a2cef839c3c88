package translog

import (
	"cmp"
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/signing/tlog"
)

const (
	// checkpointEvery is between two checkpoints while events flow.
	checkpointEvery = 500 * time.Millisecond
	// maxUnsaved bounds the leaves, and so the tiles in memory, between two checkpoints.
	maxUnsaved = 1 << 16
	// tailCheck is how many of the last logged sequences are compared with the stream
	// when a writer begins.
	tailCheck = tlog.TileWidth
	// idleCheck is how often an idle log looks for sequences that were removed at the end.
	idleCheck = 2 * time.Second
	// rememberMost bounds the time between two tries to give AUDIT a checkpoint.
	rememberMost = time.Minute
	// pollLeader bounds the time in which a writer sees that it leads no more.
	pollLeader = 250 * time.Millisecond
)

// writer is a log while this node writes it. It belongs to one goroutine.
type writer struct {
	l      *log
	tenant *nats.Conn
	system *nats.Conn
	in     input
	leaves leaves
	edge   *tlog.Edge
	cp     tlog.Checkpoint
	cpSeq  uint64            // sequence of cp's message
	cpKey  string            // that signed it; empty: one that was not valid
	tiles  map[string]uint64 // sequences of the tiles at the edge, by subject
	// check are the leaf hashes of the sequences from checkFrom on that are compared
	// with the stream before the log goes on.
	check     []tlog.Hash
	checkFrom uint64
	state     *streamState
	saved     time.Time // of the last checkpoint, or try, by this node's clock
	history   history
	stored    int64  // of the last message that came, by the stream's clock
	pending   uint64 // messages behind it, as far as it is known
	cal       *calendar
	used      int64 // bytes in LOG
}

// history is what AUDIT is still to get.
type history struct {
	raw     []byte        // the last checkpoint of the writer that it has not got
	kept    time.Time     // when it last got one
	again   time.Time     // before which it is not asked again
	backoff time.Duration // between two tries
}

func (w *writer) close() {
	w.in.end()
	w.leaves.end()
}

func (w *writer) next() uint64 { return w.cp.First + uint64(w.edge.Size()) }

// run follows the stream until ctx ends, this node leads no more, or something fails.
func (w *writer) run(ctx context.Context) error {
	var m message
	var idle time.Time // since when no message came; zero: one has
	for ctx.Err() == nil {
		wait := time.Duration(0)
		if !w.in.buffered() { // to ask for the time for each message costs more than to read it
			wait = w.wait()
		}
		ok, err := w.in.next(wait, &m)
		if err != nil {
			return w.in.ended(err)
		}
		if ok {
			idle = time.Time{}
			if err := w.take(ctx, &m); err != nil {
				return err
			}
			if w.in.buffered() && w.edge.Size()-w.cp.Size < maxUnsaved && w.edge.Size()%1024 != 0 {
				continue
			}
		} else if err := w.rest(ctx, &idle); err != nil {
			return err
		}
		if !w.l.s.cfg.Leads(w.l.src.Account, w.l.src.Stream) {
			return nil
		}
		if unsaved := w.edge.Size() - w.cp.Size; unsaved >= maxUnsaved || unsaved > 0 && time.Since(w.saved) >= checkpointEvery {
			if err := w.save(ctx); err != nil {
				return err
			}
		}
		w.remember(ctx)
		if err := w.look(ctx); err != nil {
			return err
		}
		if len(w.check) == 0 {
			if err := w.in.follow(ctx, w.next()); err != nil {
				return err
			}
		}
	}
	return nil
}

// rest is what is done while no message comes.
func (w *writer) rest(ctx context.Context, idle *time.Time) error {
	if w.edge.Size() == w.cp.Size && w.pending == 0 && len(w.check) == 0 {
		w.l.well()
	}
	if idle.IsZero() {
		*idle = time.Now()
	}
	if time.Since(*idle) <= idleCheck {
		return nil
	}
	*idle = time.Now()
	// Nothing is published that could fail: a log that was begun anew has to be looked for.
	if _, last, err := w.l.s.archive.last(ctx, w.l.src.Tenant, w.l.src.Stream); err != nil || last != w.cpSeq {
		return cmp.Or(err, errFenced)
	}
	if renewable(w) {
		return w.save(ctx)
	}
	if w.l.src.Filter != "" {
		return nil
	}
	return w.takeRemovedEnd(ctx)
}

// renewable says whether the last checkpoint proves nothing more, because its key was
// revoked, and this node can sign another one. Without events nobody would.
func renewable(w *writer) bool {
	if _, err := w.l.signer(w.l.s.cfg.Now()); err != nil {
		return false
	}
	key, ok := w.l.s.cfg.Ring().ByID(w.cpKey)
	return !ok || !key.RevokedAt.IsZero()
}

// wait is how long the reader may be waited for.
func (w *writer) wait() time.Duration {
	if w.edge.Size() > w.cp.Size {
		return min(max(checkpointEvery-time.Since(w.saved), time.Millisecond), pollLeader)
	}
	return pollLeader
}

// save makes tiles, then a checkpoint, and both durable.
func (w *writer) save(ctx context.Context) error {
	// What is not yet on stable storage may be gone after a power cut, and other events
	// may have its sequences: no checkpoint may name it.
	if ok, err := w.in.confirmed(ctx, w.next()); !ok || err != nil {
		w.saved = time.Now() // the next try is as far away as the next checkpoint
		return err
	}
	if err := w.l.s.archive.settle(ctx); err != nil {
		return err
	}
	tiles := w.edge.Take()
	if err := w.room(ctx, tiles); err != nil {
		return err
	}
	if err := w.saveTiles(ctx, tiles); err != nil {
		return err
	}
	if err := w.l.s.archive.settle(ctx); err != nil {
		return err
	}
	cp := w.cp
	cp.Size, cp.Root, cp.Created = w.edge.Size(), w.edge.Root(), w.state.Created
	if now := w.l.s.cfg.Now().UTC().Truncate(time.Millisecond); now.After(cp.Time) { // clocks of nodes differ
		cp.Time = now
	}
	signer, err := w.l.signer(cp.Time)
	if err != nil {
		return err
	}
	raw, err := cp.Sign(signer)
	if err != nil {
		return err
	}
	seq, err := put(ctx, w.system, SubjectCheckpoint(w.l.src.Tenant, w.l.src.Stream), raw, w.cpSeq)
	if err != nil {
		return err
	}
	if err := w.l.s.archive.settle(ctx); err != nil {
		return err
	}
	w.cp, w.cpSeq, w.cpKey, w.saved, w.history.raw = cp, seq, signer.KeyID(), time.Now(), raw
	w.l.s.sink.keep(raw, &cp.Origin)
	if w.stored > 0 {
		w.cal.next, w.cal.stored = cp.Next(), w.stored
	}
	w.l.update(func(s *State) {
		s.Origin, s.First, s.Size, s.Time = cp.Origin, cp.First, cp.Size, cp.Time
		s.Checkpoints++
		s.Attested += w.leaves.news()
		s.Fault, s.Behind = nil, time.Time{}
	})
	if w.pending > 0 {
		w.l.behind(w.stored) // what comes was not stored before
	}
	return nil
}
