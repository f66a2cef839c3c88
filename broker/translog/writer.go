package translog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
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
	// pollLeader bounds the time in which a writer sees that it leads no more.
	pollLeader = 250 * time.Millisecond
)

// writer is a log while this node writes it. It belongs to one goroutine.
type writer struct {
	l      *log
	tenant *nats.Conn
	system *nats.Conn
	feed   *feed
	hasher tlog.Hasher
	edge   *tlog.Edge
	cp     tlog.Checkpoint
	cpSeq  uint64            // sequence of cp's message
	tiles  map[string]uint64 // sequences of the tiles at the edge, by subject
	// check are the leaf hashes of the sequences from checkFrom on that are compared
	// with the stream before the log goes on.
	check     []tlog.Hash
	checkFrom uint64
	state     *streamState
	saved     time.Time // of the last checkpoint, by this node's clock
	raw       []byte    // the last checkpoint of this writer that AUDIT has not got
	kept      time.Time // when AUDIT last got one
}

func (w *writer) close() {
	if w.feed != nil {
		w.feed.close()
	}
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
	note, seq, err := l.s.archive.last(ctx, l.src.Tenant, l.src.Stream)
	if err != nil {
		return nil, err
	}
	if note == nil {
		if note, seq, err = l.begin(ctx, w.system, w.state, nil, 0); err != nil {
			return nil, err
		}
	}
	if note.Size == 0 { // what comes was stored after it: AUDIT must know
		w.raw = note.Bytes()
		if err := w.remember(ctx); err != nil {
			return nil, err
		}
		w.kept = time.Time{}
	}
	w.cp, w.cpSeq = note.Checkpoint, seq
	whole, err := l.trusted(note, w.state)
	if err != nil {
		return nil, err
	}
	if err := w.load(ctx, whole); err != nil {
		return nil, err
	}
	w.feed, err = openFeed(ctx, l.s.cfg.Upstream, l.src.Account, l.src.Stream, l.src.Filter, w.checkFrom)
	if err != nil {
		return nil, err
	}
	l.update(func(s *State) { s.LastSeq = w.state.State.LastSeq })
	return w, nil
}

// begin publishes the empty checkpoint of a new log, which takes the place of the
// checkpoint old with the sequence after, if there is one.
func (l *log) begin(ctx context.Context, system *nats.Conn, state *streamState, old *tlog.Note, after uint64) (*tlog.Note, uint64, error) {
	now := l.s.cfg.Now().UTC()
	if old != nil && now.Before(old.Origin.Start.Add(time.Second)) { // no two logs have one origin
		now = old.Origin.Start.Add(time.Second)
	}
	cp := tlog.Checkpoint{
		Origin: tlog.Origin{Cluster: l.s.cfg.Cluster, Tenant: l.src.Tenant, Stream: l.src.Stream, Start: now.Truncate(time.Second)},
		Root:   (&tlog.Edge{}).Root(), First: max(state.State.FirstSeq, 1),
		Time: now.Truncate(time.Millisecond), Created: state.Created,
	}
	raw, err := cp.Sign(l.s.cfg.Signer())
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

// trusted checks the last checkpoint, and says whether the whole of what is stored must
// be compared with the log before it goes on: the stream was made anew, or the key of
// the checkpoint has been revoked since.
func (l *log) trusted(note *tlog.Note, state *streamState) (whole bool, err error) {
	_, err = note.Verify(l.s.cfg.Ring())
	switch {
	case errors.Is(err, tlog.ErrKeyNotValid):
		whole = true
	case err != nil:
		return false, fmt.Errorf("%w: the last checkpoint: %w", ErrDisagrees, err)
	}
	if !note.Created.Equal(state.Created) {
		l.s.cfg.Log.Warn().Str("log", note.Origin.String()).Time("created", state.Created).Time("logged", note.Created).
			Msg("the stream was made anew: comparing all of it with its log")
		whole = true
	}
	if state.State.LastSeq+1 < note.Next() {
		return false, fmt.Errorf("%w: the stream ends at sequence %d, the log at %d: what is between was removed", ErrDisagrees, state.State.LastSeq, note.Next()-1)
	}
	return whole, nil
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
	idle := time.Now()
	for ctx.Err() == nil {
		ok, err := w.feed.next(w.wait(), &m)
		if err != nil {
			return err
		}
		if ok {
			idle = time.Now()
			if err := w.take(ctx, &m); err != nil {
				return err
			}
			if w.feed.buffered() && w.edge.Size()-w.cp.Size < maxUnsaved && w.edge.Size()%1024 != 0 {
				continue
			}
		} else if time.Since(idle) > idleCheck && w.l.src.Filter == "" {
			idle = time.Now()
			if err := w.takeRemovedEnd(ctx); err != nil {
				return err
			}
		}
		if !w.l.s.cfg.Leads(w.l.src.Account, w.l.src.Stream) {
			return nil
		}
		if unsaved := w.edge.Size() - w.cp.Size; unsaved >= maxUnsaved || unsaved > 0 && time.Since(w.saved) >= checkpointEvery {
			if err := w.save(ctx); err != nil {
				return err
			}
		}
		if err := w.remember(ctx); err != nil {
			return err
		}
	}
	return nil
}

// remember gives AUDIT the last checkpoint, now and then: each of them would fill it
// within hours, and there nothing makes way.
func (w *writer) remember(ctx context.Context) error {
	if w.raw == nil || time.Since(w.kept) < w.l.s.cfg.HistoryEvery {
		return nil
	}
	m := nats.NewMsg(SubjectHistory(w.l.src.Tenant, w.l.src.Stream))
	m.Data = w.raw
	if _, err := publish(ctx, w.system, m); err != nil {
		return err
	}
	w.raw, w.kept = nil, time.Now()
	return nil
}

// wait is how long the feed may be waited for.
func (w *writer) wait() time.Duration {
	if w.edge.Size() > w.cp.Size {
		return min(max(checkpointEvery-time.Since(w.saved), time.Millisecond), pollLeader)
	}
	return pollLeader
}

// take adds one message to the log, and absent leaves before it for the sequences that
// the stream has no message at.
func (w *writer) take(ctx context.Context, m *message) error {
	leaf := w.hasher.Stored(m.seq, m.stored, m.subject, m.block, m.data)
	hash := leaf.Hash()
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
	if m.pending == 0 || w.edge.Size()%256 == 0 {
		w.l.update(func(s *State) { s.LastSeq = m.seq + m.pending })
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
		return fmt.Errorf("%w: it skipped from sequence %d to %d, the leader has %d", errFeed, next, seq, found)
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
		return fmt.Errorf("%w: the stream was deleted and made anew at %s", errFeed, state.Created.Format(time.RFC3339))
	case state.State.LastSeq+1 < next:
		return fmt.Errorf("%w: the stream ends at sequence %d, the log at %d: what is between was removed", ErrDisagrees, state.State.LastSeq, next-1)
	case len(w.check) > 0: // nothing came behind them
		return w.uncompared(ctx, state)
	case state.State.LastSeq < next:
		return nil
	}
	found, err := nextAfter(ctx, w.tenant, w.l.src.Stream, "", next)
	if err != nil || found != 0 {
		return err // an event is on its way
	}
	n := state.State.LastSeq + 1 - next
	if err := w.edge.AppendAbsent(int64(n)); err != nil {
		return fmt.Errorf("%w: %w", ErrDisagrees, err)
	}
	w.l.update(func(s *State) { s.Absent += n })
	return nil
}

// uncompared judges the logged sequences at the end of the stream that no message came
// at.
func (w *writer) uncompared(ctx context.Context, state *streamState) error {
	found, err := nextAfter(ctx, w.tenant, w.l.src.Stream, "", w.checkFrom)
	if err != nil || found != 0 {
		return err // it is on its way
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
	if err := w.l.s.archive.settle(ctx); err != nil {
		return err
	}
	if err := w.saveTiles(ctx, w.edge.Take()); err != nil {
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
	raw, err := cp.Sign(w.l.s.cfg.Signer())
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
	w.cp, w.cpSeq, w.saved, w.raw = cp, seq, time.Now(), raw
	w.l.update(func(s *State) {
		s.Origin, s.First, s.Size, s.Time = cp.Origin, cp.First, cp.Size, cp.Time
		s.Checkpoints++
	})
	w.l.s.sink.keep(raw, &cp.Origin)
	return nil
}

// saveTiles publishes all tiles and waits for their acknowledgements.
func (w *writer) saveTiles(ctx context.Context, tiles []tlog.Tile) error {
	if len(tiles) == 0 {
		return nil
	}
	inbox := w.system.NewInbox()
	sub, err := w.system.SubscribeSync(inbox + ".*")
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }()
	subjects := make([]string, len(tiles))
	for i := range tiles {
		subjects[i] = SubjectTile(&w.cp.Origin, tiles[i].Level, tiles[i].Index)
		m := nats.NewMsg(subjects[i])
		m.Data, m.Reply = tiles[i].Bytes(), inbox+"."+strconv.Itoa(i)
		m.Header[headerExpected] = []string{strconv.FormatUint(w.tiles[subjects[i]], 10)}
		if err := w.system.PublishMsg(m); err != nil {
			return fmt.Errorf("translog: publish tiles: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*requestTimeout)
	defer cancel()
	for range tiles {
		answer, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return fmt.Errorf("translog: publish tiles: %w", err)
		}
		i, err := strconv.Atoi(answer.Subject[len(inbox)+1:])
		if err != nil || i >= len(tiles) {
			return fmt.Errorf("translog: publish tiles: an answer on %q", answer.Subject)
		}
		seq, err := acknowledged(answer.Data, subjects[i])
		if errors.Is(err, errFenced) {
			seq, err = w.takeTile(ctx, &tiles[i], subjects[i])
		}
		if err != nil {
			return err
		}
		if w.tiles[subjects[i]] = seq; len(tiles[i].Hashes) == tlog.TileWidth {
			delete(w.tiles, subjects[i]) // it is final
		}
	}
	return nil
}

// takeTile deals with a tile that another writer has left, which stopped before its
// checkpoint: it is replaced, if this writer still has the log. One that holds all of t
// is kept: the writer that left it is ahead, and a tile never gets shorter.
func (w *writer) takeTile(ctx context.Context, t *tlog.Tile, subject string) (uint64, error) {
	have, seq, err := w.l.s.archive.tile(ctx, &w.cp.Origin, t.Level, t.Index)
	if err != nil {
		return 0, err
	}
	if bytes.HasPrefix(have, t.Bytes()) {
		return seq, nil
	}
	_, last, err := w.l.s.archive.last(ctx, w.l.src.Tenant, w.l.src.Stream)
	if err != nil {
		return 0, err
	}
	if last != w.cpSeq {
		return 0, fmt.Errorf("%w: %s", errFenced, subject)
	}
	return put(ctx, w.system, subject, t.Bytes(), seq)
}
