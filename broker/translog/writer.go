package translog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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

// open reads the state of the log, begins one if there is none, and checks it.
//
// Errors: ErrDisagrees, errFenced, errFeed, or the connection's.
func (l *log) open(ctx context.Context) (w *writer, err error) {
	w = &writer{l: l, tiles: map[string]uint64{}}
	if w.tenant, err = l.s.cfg.Tenant(l.src.Account); err != nil {
		return nil, err
	}
	if w.system, err = l.s.archive.conn(); err != nil {
		return nil, err
	}
	if w.state, err = stateOf(ctx, w.tenant, l.src.Stream); err != nil {
		return nil, err
	}
	witnesses, err := l.outside(ctx) // before the store is read, which only grows
	if err != nil {
		return nil, err
	}
	note, seq, err := l.s.archive.last(ctx, l.src.Tenant, l.src.Stream)
	if err != nil {
		return nil, err
	}
	for _, out := range witnesses {
		if err := l.rewound(ctx, out, note); err != nil {
			return nil, err
		}
	}
	if note == nil {
		if note, seq, err = l.begin(ctx, w.system, w.state, nil, 0); err != nil {
			return nil, err
		}
	}
	if note.Size == 0 { // what comes was stored after it: AUDIT must know
		w.history.raw = note.Bytes()
		w.remember(ctx)
		w.history.kept = time.Time{}
	}
	w.cp, w.cpSeq = note.Checkpoint, seq
	whole, err := l.trusted(note, w.state)
	if err != nil {
		return nil, err
	}
	if w.cal, err = openCalendar(ctx, l.s, &note.Origin, w.state.Config.MaxAge); err != nil {
		return nil, err
	}
	w.measure(ctx)
	if err := w.load(ctx, whole); err != nil {
		return nil, err
	}
	if err := w.openInput(ctx, w.checkFrom); err != nil {
		return nil, err
	}
	w.leaves.begin(l.s.cfg.Attested, &l.src, l.s.cfg.Log)
	l.update(func(s *State) { s.LastSeq = w.state.State.LastSeq })
	if l.src.Filter == "" && w.state.State.LastSeq >= w.next() {
		w.pending = w.state.State.LastSeq - w.next() + 1
		l.behind(0)
	}
	return w, nil
}

// load reads the edge of the log, and what of it will be compared with the stream.
func (w *writer) load(ctx context.Context, whole bool) error {
	o := &w.cp.Origin
	read := func(level int, index int64) ([]byte, error) {
		data, seq, err := w.l.s.archive.tile(ctx, o, level, index)
		if seq > 0 {
			w.tiles[SubjectTile(o, level, index)] = seq
		}
		return data, err
	}
	var err error
	if w.edge, err = tlog.NewEdge(w.cp.Size, w.cp.Root, read); err != nil {
		return disagrees(err)
	}
	from := w.cp.First
	if next := w.next(); !whole && next-from > tailCheck {
		from = next - tailCheck
	}
	w.checkFrom = from
	if whole {
		return w.compareAll(ctx)
	}
	first := int64(from - w.cp.First)
	w.check, err = tlog.LeafHashes(w.cp.Size, first, w.cp.Size, tlog.NewHashReader(w.cp.Size, w.cp.Root, w.l.s.archive.reader(ctx, o)))
	return disagrees(err)
}

func disagrees(err error) error {
	if errors.Is(err, tlog.ErrTiles) {
		return fmt.Errorf("%w: %w", ErrDisagrees, err)
	}
	return err
}

// compareAll compares everything that is stored with the log.
func (w *writer) compareAll(ctx context.Context) error {
	for from := w.cp.First; from < w.next(); {
		r, err := w.l.verify(ctx, &w.cp, from, verifyChunk)
		if err != nil {
			return err
		}
		if r.Finding != nil {
			return fmt.Errorf("%w: sequence %d: %s", ErrDisagrees, r.Finding.Sequence, r.Finding.What)
		}
		from = r.Next
	}
	w.checkFrom = w.next()
	return nil
}

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
	if w.l.src.Filter != "" {
		return nil
	}
	return w.takeRemovedEnd(ctx)
}

// wait is how long the reader may be waited for.
func (w *writer) wait() time.Duration {
	if w.edge.Size() > w.cp.Size {
		return min(max(checkpointEvery-time.Since(w.saved), time.Millisecond), pollLeader)
	}
	return pollLeader
}

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
	w.cp, w.cpSeq, w.saved, w.history.raw = cp, seq, time.Now(), raw
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
	w.l.s.sink.keep(raw, &cp.Origin)
	return nil
}
