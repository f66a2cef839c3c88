package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/signetbus/signet/internal/auditlog"
)

const (
	// HeadEvery is how often a node publishes the head of a chain that goes on.
	HeadEvery = 10 * time.Minute
	// headLook is between two looks at the chains, which cost nothing while no head is due:
	// the first head of a chain, and of a run, does not wait for HeadEvery.
	headLook = 5 * time.Second
	// headsFailing is how long heads may fail before health says so: a cluster that has
	// just lost its leader is nobody's business.
	headsFailing = 5 * time.Minute
	// When the stream of the heads is fuller than the first, in percent, a head is published
	// once in the time, so that what ages out makes room.
	headsTight, headsTightEvery = 75, time.Hour
	headsFull, headsFullEvery   = 90, 24 * time.Hour
)

// HeadsConfig configures Heads. All members but Every and Full are required.
type HeadsConfig struct {
	Journal *Journal
	Keep    time.Duration // how long the stream keeps a head
	Every   time.Duration // default HeadEvery
	// Full says that the volume takes nothing more now: no head is published then. A write
	// that fails half way leaves a stream that an encrypted store cannot tell from a damaged
	// one. nil: never.
	Full func() bool
	Log  zerolog.Logger
}

// Heads publishes signed heads of the chains of this node in a stream of their own, which
// has a log: so a checkpoint covers the trail. A head names only records that the stream of
// the records has on stable storage. Safe for concurrent use.
type Heads struct {
	cfg  HeadsConfig
	stop context.CancelFunc
	done sync.WaitGroup

	stream Stream // since Start

	one   sync.Mutex           // a round at a time
	lines map[string]*headLine // by tenant; under one

	count atomic.Uint64
	since atomic.Int64 // Unix time in ns since when heads fail; 0: they do not
	fault atomic.Pointer[error]
}

// headLine is what is known of the heads of one chain of this node.
type headLine struct {
	known bool              // the other members are what the stream has
	tail  uint64            // sequence of the last head
	at    auditlog.Position // that it names; zero: there is none
	made  time.Time         // when it was made
	sent  time.Time         // when this run sent one; zero: it did not
}

// NewHeads returns Heads that publish nothing before Start.
func NewHeads(cfg HeadsConfig) *Heads {
	if cfg.Every <= 0 {
		cfg.Every = HeadEvery
	}
	return &Heads{cfg: cfg, lines: map[string]*headLine{}}
}

// Start begins to publish in s, until Shutdown. It is called once.
func (h *Heads) Start(s Stream) {
	ctx, stop := context.WithCancel(context.Background())
	h.stream, h.stop = s, stop
	h.done.Go(func() { h.run(ctx) })
}

// Shutdown publishes the heads of what the stream has by now, within a second and a quarter
// of the time that ctx has left, and stops. It comes after Journal.Detach, so that they name
// the last records. Where the streams take nothing it does not try: the rest of a shutdown
// needs its time, and the next start publishes.
func (h *Heads) Shutdown(ctx context.Context) {
	h.stop()
	h.done.Wait()
	if h.fault.Load() != nil || h.cfg.Journal.trouble.Load() != nil {
		return
	}
	within := settleFor
	if end, ok := ctx.Deadline(); ok {
		within = min(within, time.Until(end)/4)
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := h.Publish(ctx); err != nil {
		h.cfg.Log.Warn().Err(err).Msg("the last heads of the audit trail are not in HEADS; the next start publishes them")
	}
}

func (h *Heads) run(ctx context.Context) {
	tick := time.NewTicker(headLook)
	defer tick.Stop()
	for {
		h.note(h.round(ctx, false), ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// note remembers how a round of run ended.
func (h *Heads) note(err error, ctx context.Context) {
	switch {
	case ctx.Err() != nil:
	case err == nil:
		h.since.Store(0)
		h.fault.Store(nil)
	default:
		if h.fault.Swap(&err) == nil {
			h.since.Store(h.cfg.Journal.cfg.Now().UnixNano())
			h.cfg.Log.Warn().Err(err).Msg("heads of the audit trail are not published; it is tried again")
		}
	}
}

// Health says that heads have failed for minutes, or nil.
func (h *Heads) Health() error {
	err, since := h.fault.Load(), h.since.Load()
	if err == nil || since == 0 || h.cfg.Journal.cfg.Now().UnixNano()-since < int64(headsFailing) {
		return nil
	}
	return fmt.Errorf("the stream HEADS takes no heads, so no log covers what is newest in the trail: %w", *err)
}

// Published is how many heads this run has published.
func (h *Heads) Published() uint64 { return h.count.Load() }

// Publish publishes the heads of all chains that have gone on, due or not; none while
// the volume is full.
//
// Errors: those of the stream, ErrNoRoom, signing.ErrStatement.
func (h *Heads) Publish(ctx context.Context) error { return h.round(ctx, true) }

func (h *Heads) round(ctx context.Context, now bool) error {
	if h.cfg.Full != nil && h.cfg.Full() {
		return nil // health says so; the next round after it publishes
	}
	h.one.Lock()
	defer h.one.Unlock()
	var faults []error
	every := time.Duration(0) // until it is asked
	for tenant, at := range positions(h.cfg.Journal) {
		line := h.lines[tenant]
		if line == nil {
			line = &headLine{}
			h.lines[tenant] = line
		}
		if line.known && !h.changed(line, at) {
			continue
		}
		if !now && !line.sent.IsZero() && line.at.ChainID == at.ChainID && time.Since(line.sent) < h.cfg.Every {
			continue
		}
		if every == 0 {
			var err error
			if every, err = h.pace(ctx); err != nil {
				return err
			}
		}
		faults = append(faults, h.publish(ctx, tenant, line, at, every))
	}
	return errors.Join(faults...)
}

// changed says whether a head is to be published: there is another end of the chain, or
// the one that is there ages out.
func (h *Heads) changed(line *headLine, at auditlog.Position) bool {
	return line.at != at || h.cfg.Journal.cfg.Now().Sub(line.made) > h.cfg.Keep/2
}

// pace is how often a chain may have a head, by how full the stream is.
func (h *Heads) pace(ctx context.Context) (time.Duration, error) {
	used, limit, err := h.stream.Used(ctx)
	switch {
	case err != nil:
		return 0, err
	case limit > 0 && used > limit/100*headsFull:
		return headsFullEvery, nil
	case limit > 0 && used > limit/100*headsTight:
		return headsTightEvery, nil
	}
	return h.cfg.Every, nil
}

// publish brings the head of one chain to the stream.
func (h *Heads) publish(ctx context.Context, tenant string, line *headLine, at auditlog.Position, every time.Duration) error {
	j := h.cfg.Journal
	subject := auditlog.HeadSubject(tenant, j.cfg.Node)
	if !line.known {
		if err := h.read(ctx, subject, line); err != nil {
			return err
		}
		if !h.changed(line, at) {
			return nil
		}
	}
	now := j.cfg.Now()
	if every > h.cfg.Every && line.at.ChainID == at.ChainID && now.Sub(line.made) < every && !now.Before(line.made) {
		return nil // room is short
	}
	doc, err := (&auditlog.Head{Tenant: tenant, Node: j.cfg.Node, Time: now, Chains: []auditlog.Position{at}}).Sign(j.cfg.Signer())
	if err != nil {
		return err
	}
	line.known = false // it may be stored or not
	seq, err := h.stream.Publish(ctx, subject, line.tail, doc)
	if err != nil {
		return err
	}
	h.count.Add(1)
	*line = headLine{known: true, tail: seq, at: at, made: now, sent: time.Now()}
	return nil
}

// read learns the last head of a chain that the stream has. One that cannot be read is as
// none: whoever verifies the log of the stream finds it.
func (h *Heads) read(ctx context.Context, subject string, line *headLine) error {
	m, err := h.stream.Last(ctx, subject)
	if err != nil {
		return err
	}
	sent := line.sent
	*line = headLine{known: true, sent: sent}
	if m == nil {
		return nil
	}
	line.tail = m.Seq
	if at, made, ok := auditlog.HeadPosition(m.Data); ok {
		line.at, line.made = at, made
	}
	return nil
}

// positions returns how far the stream of the records has the chains of this node, by
// tenant.
func positions(j *Journal) map[string]auditlog.Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.storedLocked()
}
