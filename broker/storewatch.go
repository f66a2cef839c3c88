package broker

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker/diskguard"
)

// storeEvery is how often the store is asked how it is. The volume is looked at more
// often where it is nearly full (diskguard.Reading.LookAgain).
const (
	storeEvery   = time.Second
	starvedEvery = storeEvery / 4 // while it waits for space

	wellWithin = 5 * time.Second // for a store to be well at the start
	wellEvery  = 20 * time.Millisecond
)

// storeWatch looks at the volume and at the store, and decides what admission refuses.
// Its fields belong to its goroutine.
type storeWatch struct {
	startup
	checked time.Time
	down    bool
	level   diskguard.Level
	worst   diskguard.Level // since the store was last well
	blind   bool            // the latest look at the volume failed
	waits   string          // why a starved store still waits
}

func (b startup) startStoreWatch(ctx context.Context, _ *material) error {
	awaitWell(ctx, b)
	life, stop := context.WithCancel(context.Background())
	w, done := &storeWatch{startup: b, level: b.guards.reading().Level}, make(chan struct{})
	w.worst = w.level
	go func() {
		defer close(done)
		t := time.NewTimer(0)
		defer t.Stop()
		for {
			select {
			case <-life.Done():
				return
			case now := <-t.C:
				t.Reset(w.look(now))
			}
		}
	}()
	b.running("store watch", func(context.Context) error {
		stop()
		<-done
		return nil
	})
	return nil
}

// awaitWell gives a store that has just come up, with the other nodes of a cluster, some time
// to be well: the first look is in force until the second one, and a node that says that it
// is ready takes publishes.
func awaitWell(ctx context.Context, b startup) {
	ctx, cancel := context.WithTimeout(ctx, wellWithin)
	defer cancel()
	poll := time.NewTicker(wellEvery)
	defer poll.Stop()
	for errors.Join(view(b).storage(), b.server.Health()) != nil {
		select {
		case <-ctx.Done():
			return // the watch says so
		case <-poll.C:
		}
	}
}

// look returns when to look again.
func (w *storeWatch) look(now time.Time) time.Duration {
	g, next := w.guards, storeEvery
	if g.disk != nil {
		r := g.disk.Look()
		w.said(r)
		w.worst = max(w.worst, r.Level)
		next = min(next, r.LookAgain)
	}
	every := storeEvery
	if g.starved.Load() {
		every = starvedEvery
		next = min(next, every)
	}
	if now.Sub(w.checked) >= every {
		w.checked = now
		w.check()
	}
	g.settle(w.down, w.Policy().HasHigh())
	return next
}

// said logs what has changed on the volume.
func (w *storeWatch) said(r diskguard.Reading) {
	if blind := r.Err != nil; blind != w.blind {
		w.blind = blind
		if blind {
			w.log.Error().Err(r.Err).Msg("the volume of the store cannot be looked at: its level stays what it was")
		} else {
			w.log.Info().Msg("the volume of the store can be looked at again")
		}
	}
	if r.Level == w.level {
		return
	}
	at, msg := zerolog.InfoLevel, "the volume of the store has room again"
	switch r.Level {
	case diskguard.Soft:
		at, msg = zerolog.WarnLevel, "the volume of the store is above the soft watermark: large publishes and new streams are refused"
	case diskguard.Hard:
		at, msg = zerolog.ErrorLevel, "the volume of the store is above the hard watermark: publishes are refused"
	case diskguard.Full:
		at, msg = zerolog.ErrorLevel, "the volume of the store is full: publishes are refused, dead letters are not stored"
	}
	w.log.WithLevel(at).Str("used", percent(r.Volume)).Uint64("free", r.Volume.Free).
		Stringer("level", r.Level).Stringer("before", w.level).Msg(msg)
	w.level = r.Level
}

// check asks the store how it is. A store that has failed for want of space takes
// nothing more, also when there is space again: then, and not before, since it would
// only fail again, the broker ends, to be started anew.
func (w *storeWatch) check() {
	g := w.guards
	err := errors.Join(view(w.startup).storage(), w.server.Health())
	switch was := w.down; {
	case err == nil:
		if was {
			w.log.Info().Msg("the store takes publishes again")
		}
		w.down, w.worst, w.waits = false, w.level, ""
		g.starved.Store(false)
		return
	case !was:
		w.down = true
		w.log.Error().Err(err).Msg("the store takes nothing: publishes are refused")
	}
	if !g.starved.Load() {
		// Whether it lasts shows at the next check.
		g.starved.Store(!w.server.JetStreamEnabled() || outOfSpace(err, w.worst))
		return
	}
	if phase(w.phase.Load()) != phaseReady || g.spaceBack() || !w.spaceForAll() {
		return
	}
	w.log.Error().Err(err).Msg("there is space again: the broker ends, and repairs the store when it is started anew")
	close(g.back)
}

// outOfSpace tells a store without space from one that is broken otherwise: by its own
// words, or by the volume, since a failed sync does not say why.
func outOfSpace(err error, worst diskguard.Level) bool {
	return worst >= diskguard.Hard || strings.Contains(err.Error(), syscall.ENOSPC.Error())
}

// spaceForAll reports whether there is space, by the volume and by trying.
func (w *storeWatch) spaceForAll() bool {
	waits := ""
	if w.level >= diskguard.Hard {
		waits = "the volume is above the hard watermark"
	} else if err := diskguard.Probe(w.cfg.State); err != nil {
		waits = err.Error()
	}
	if waits != w.waits && waits != "" {
		w.log.Error().Str("because", waits).Msg("the store has failed for want of space: free some, and the broker starts anew by itself")
	}
	w.waits = waits
	return waits == ""
}
