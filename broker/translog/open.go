package translog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/signetbus/signet/signing/tlog"
)

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
	w.cp, w.cpSeq = note.Checkpoint, seq
	key, whole, err := l.trusted(note, w.state)
	if err != nil {
		return nil, err
	}
	w.cpKey = key
	if !whole {
		l.hand(witnesses, note, &w.history)
	}
	if note.Size == 0 { // what comes was stored after it: AUDIT must know
		w.remember(ctx)
		w.history.kept = time.Time{}
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

// hand brings the last checkpoint to the sink and to AUDIT if they have not got it: its
// writer may have ended before they did, and without another event they never would.
func (l *log) hand(witnesses []witness, note *tlog.Note, h *history) {
	has := func(where string) bool {
		return slices.ContainsFunc(witnesses, func(x witness) bool { return x.where == where && bytes.Equal(x.note.Bytes(), note.Bytes()) })
	}
	if !has(whereSink) {
		l.s.sink.keep(note.Bytes(), &note.Origin)
	}
	if !has(whereAudit) {
		h.raw = note.Bytes()
	}
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
