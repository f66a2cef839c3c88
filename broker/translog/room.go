package translog

import (
	"context"
	"errors"
	"fmt"

	"github.com/signetbus/signet/signing/tlog"
)

// What a log may take of LOG, in percent of its share.
const (
	roomMakeWay = 85 // from here on the oldest tiles make way
	roomAlarm   = 90 // from here on it is a fault: nothing may make way
)

const (
	// storedTile is what one tile takes at most: its hashes, its subject and the server's own.
	storedTile = tlog.TileWidth*32 + 512
	// makeWayAtOnce bounds the tiles that make way before one checkpoint.
	makeWayAtOnce = 64
)

// letGo is what a tile is replaced with that has made way.
const letGo = "signet: this tile has made way for newer ones\n"

// Errors of room.
var (
	// errRoom: the log has used its share of LOG.
	errRoom = errors.New("translog: no room in LOG")
	// ErrLetGo: what is asked for needs tiles that have made way for newer ones.
	ErrLetGo = errors.New("translog: the log has let the tiles of these sequences go, which have aged out of the stream")
)

// measure counts what a log has in LOG, its earlier runs included.
func (w *writer) measure(ctx context.Context) error {
	var answer struct {
		Name    string `json:"name"`
		Pending int64  `json:"num_pending"`
	}
	// A consumer that nobody reads tells how many messages there are.
	err := ask(ctx, w.system, "CONSUMER.CREATE."+StreamLog, map[string]any{"stream_name": StreamLog, "config": map[string]any{
		"deliver_policy": "all", "ack_policy": "none", "filter_subject": prefixLog + w.l.src.Tenant + "." + w.l.src.Stream + ".>",
		"mem_storage": true, "num_replicas": 1, "inactive_threshold": requestTimeout,
	}}, &answer)
	if err != nil {
		return err
	}
	var deleted struct {
		Success bool `json:"success"`
	}
	if err := ask(ctx, w.system, "CONSUMER.DELETE."+StreamLog+"."+answer.Name, nil, &deleted); err != nil {
		w.l.s.cfg.Log.Debug().Err(err).Msg("a consumer that counts tiles goes by itself")
	}
	w.used = max(answer.Pending*storedTile-w.cal.LetGo*(storedTile-512), 0)
	w.l.update(func(s *State) { s.Used, s.Room = w.used, w.l.src.Room })
	return nil
}

// room says whether tiles may be stored. The share is the log's own: one that is full
// does not stop the others.
//
// Errors: errRoom, or the connection's.
func (w *writer) room(ctx context.Context, tiles []tlog.Tile) error {
	share := w.l.src.Room
	if share == 0 {
		return nil
	}
	more := int64(0)
	for i := range tiles {
		if w.tiles[SubjectTile(&w.cp.Origin, tiles[i].Level, tiles[i].Index)] == 0 {
			more += storedTile
		}
	}
	if more > 0 && w.used+more > share/100*roomMakeWay {
		if err := w.makeWay(ctx); err != nil {
			return err
		}
	}
	if more > 0 && w.used+more > share {
		return fmt.Errorf("%w: the log has used %d of its %d bytes there, and no more of its events have aged out: raise maxBytes of the stream, of which an eighth is for the log", errRoom, w.used, share)
	}
	w.used += more
	w.l.update(func(s *State) { s.Used, s.Room = w.used, share })
	return nil
}

// makeWay replaces the oldest tiles of leaves whose events have all aged out: nothing can
// be proven of those any more but that the log goes on from where it was. The ages that say
// so are stored first.
func (w *writer) makeWay(ctx context.Context) error {
	c := w.cal
	end := int64(0)
	if c.Gone > w.cp.First {
		end = int64(c.Gone-w.cp.First) / tlog.TileWidth
	}
	first := c.LetGo
	if end = min(end, first+makeWayAtOnce); end <= first {
		return nil
	}
	c.LetGo = end
	if err := w.keepAges(ctx, w.l.s.cfg.Now()); err != nil {
		c.LetGo = first
		return err
	}
	for index := first; index < end; index++ {
		subject := SubjectTile(&w.cp.Origin, 0, index)
		m, err := get(ctx, w.system, StreamLog, map[string]any{"last_by_subj": subject})
		if err != nil {
			return err
		}
		if m == nil || string(m.Data) == letGo {
			continue
		}
		if _, err := put(ctx, w.system, subject, []byte(letGo), m.Seq); err != nil {
			return err
		}
		w.used -= storedTile - 512
	}
	w.l.s.cfg.Log.Warn().Str("log", w.cp.Origin.String()).Int64("tiles", end-first).Msg("the log has little room in LOG: tiles of events that have aged out make way")
	return nil
}
