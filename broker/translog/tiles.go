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

// remember gives AUDIT the last checkpoint, now and then: each of them would fill it
// within hours, and there nothing makes way. The log does not wait for it: what AUDIT
// does not take is tried again, more and more seldom, with the checkpoint of that time.
func (w *writer) remember(ctx context.Context) {
	h := &w.history
	if h.raw == nil || time.Since(h.kept) < w.l.s.cfg.HistoryEvery || time.Now().Before(h.again) {
		return
	}
	m := nats.NewMsg(SubjectHistory(w.l.src.Tenant, w.l.src.Stream))
	m.Data = h.raw
	_, err := publish(ctx, w.system, m)
	if err == nil {
		h.raw, h.kept, h.backoff = nil, time.Now(), 0
		w.l.update(func(s *State) { s.Unkept = nil })
		return
	}
	if ctx.Err() != nil {
		return
	}
	h.backoff = min(max(2*h.backoff, retryLater), rememberMost)
	h.again = time.Now().Add(h.backoff)
	if w.l.snapshot().Unkept == nil {
		w.l.s.cfg.Log.Warn().Err(err).Str("log", w.cp.Origin.String()).Msg("AUDIT does not take a checkpoint")
	}
	w.l.update(func(s *State) {
		if s.Unkept == nil {
			s.UnkeptSince = time.Now()
		}
		s.Unkept = err
	})
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
