package translog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

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
	// makeWayAtOnce bounds the tiles of level 0 that make way under one record of it.
	makeWayAtOnce = 64
)

// Errors of room.
var (
	// errRoom: the log has used its share of LOG.
	errRoom = errors.New("translog: no room in LOG")
	// ErrLetGo: what is asked for needs events that are no longer stored, or tiles that
	// have made way for newer ones.
	ErrLetGo = errors.New("translog: these sequences have left the stream; signet log verify says whether they had aged out")
)

// measureEvery is how long what was counted is believed: counting takes a request to the
// leader of the cluster.
const measureEvery = time.Minute

// measure counts what a log has in LOG, its earlier runs included. Where that fails the
// log goes on: LOG has a limit of its own.
func (w *writer) measure(ctx context.Context) {
	l := w.l
	if l.src.Room == 0 {
		return
	}
	if l.counted.IsZero() || time.Since(l.counted) > measureEvery {
		n, err := w.count(ctx)
		if err != nil {
			l.s.cfg.Log.Warn().Err(err).Str("log", w.cp.Origin.String()).Msg("what the log takes in LOG is not known")
		} else {
			l.counted, l.used = time.Now(), n
		}
	}
	w.used = l.used
	l.update(func(s *State) { s.Used, s.Room = w.used, l.src.Room })
}

func (w *writer) count(ctx context.Context) (int64, error) {
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
		return 0, err
	}
	var deleted struct {
		Success bool `json:"success"`
	}
	if err := ask(ctx, w.system, "CONSUMER.DELETE."+StreamLog+"."+answer.Name, nil, &deleted); err != nil {
		w.l.s.cfg.Log.Debug().Err(err).Msg("a consumer that counts tiles goes by itself")
	}
	return answer.Pending * storedTile, nil
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
	for more > 0 && w.used+more > share/100*roomMakeWay {
		if some, err := w.makeWay(ctx); err != nil || !some {
			if err != nil {
				return err
			}
			break
		}
	}
	if more > 0 && w.used+more > share {
		return fmt.Errorf("%w: the log has used %d of its %d bytes there, and no more of its events have aged out: raise maxBytes of the stream, of which an eighth is for the log", errRoom, w.used, share)
	}
	w.used += more
	w.l.used = w.used
	w.l.update(func(s *State) { s.Used, s.Room = w.used, share })
	return nil
}

// makeWay takes the oldest tiles away whose events have all aged out: nothing can be proven
// of those any more, and what comes later needs only the tiles above them. The ages that
// say so are stored first. It says whether there were any.
func (w *writer) makeWay(ctx context.Context) (bool, error) {
	c := w.cal
	end := int64(0)
	if c.Gone > w.cp.First { // the end of the log is compared with by the next writer
		end = min(int64(c.Gone-w.cp.First), w.cp.Size-2*tailCheck)
	}
	first := c.LetGo
	end = min(end/tlog.TileWidth*tlog.TileWidth, first+makeWayAtOnce*tlog.TileWidth)
	if end <= first {
		return false, nil
	}
	c.LetGo = end
	if err := w.keepAges(ctx, w.l.s.cfg.Now()); err != nil {
		c.LetGo = first
		return false, err
	}
	from := first
	if !c.swept { // an earlier writer may have ended before it had taken them away
		from, c.swept = max(first-makeWayAtOnce*tlog.TileWidth, 0), true
	}
	for level, width := 0, int64(tlog.TileWidth); from/width < end/width; level, width = level+1, width*tlog.TileWidth {
		for index := from / width; index < end/width; index++ {
			n, err := purge(ctx, w.system, SubjectTile(&w.cp.Origin, level, index))
			if err != nil {
				return false, err
			}
			w.used = max(w.used-n*storedTile, 0)
		}
	}
	w.l.s.cfg.Log.Info().Str("log", w.cp.Origin.String()).Int64("leaves", end).Msg("the log has little room in LOG: tiles of events that have aged out make way")
	return true, nil
}

// purge takes what is stored on a subject of LOG away.
func purge(ctx context.Context, nc *nats.Conn, subject string) (int64, error) {
	var answer struct {
		Purged int64 `json:"purged"`
	}
	err := ask(ctx, nc, "STREAM.PURGE."+StreamLog, map[string]any{"filter": subject}, &answer)
	return answer.Purged, err
}
