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
	// pruneEvery is between two looks at the chains; one that did not move costs nothing but
	// a question each partEvery.
	pruneEvery = time.Second
	// ageEvery is how often what is too old is taken away: each time is a record.
	ageEvery = time.Hour
	// partEvery is how often the nodes that have a chain of a tenant are counted.
	partEvery = time.Minute
	// tightEvery is how often the stream as a whole is looked at.
	tightEvery = time.Minute
	// A share is pruned when it is fuller than fullPercent, down to goalPercent. When the
	// stream as a whole is fuller than fullPercent, both are halved.
	fullPercent = 80
	goalPercent = 70
	// minPart is room for two of the largest batches: one that stays, and one that comes.
	minPart = 2 * (auditlog.MaxBatchBytes + overhead)
	// maxPruned bounds the messages that one record stands for.
	maxPruned = 4096
	// overhead of a message of the trail in the store: its headers, subject and index.
	overhead = 192
	// storedFor bounds the wait until the stream has a pruned record. It is looked for
	// again later.
	storedFor = 10 * time.Second
)

// Retention is how much of a tenant's trail is kept.
type Retention struct {
	MaxBytes int64         // its share of the stream, of all nodes together
	MaxAge   time.Duration // of a record
}

// PrunerConfig configures a Pruner. All members but Clock and Members are required.
type PrunerConfig struct {
	Journal *Journal
	Keep    func(tenant string) Retention
	// Clock says why the clock of this node must not be believed, as other nodes see it; nil,
	// or a nil error: nothing is known against it.
	Clock func() error
	// Members are the nodes of the cluster, this one among them, as the keyring names them.
	// The first one by name prunes what nodes have left that are gone. nil: nobody does.
	Members func() []string
	// Verify is auditlog.Batch.Verify with the keyring in force: no node acts on a record
	// that it has not signed.
	Verify func(b *auditlog.Batch, tenant string) error
	Log    zerolog.Logger
}

// Pruner takes the oldest batches of this node's chains away when they are too old or
// their share of the stream is full: first a record of kind pruned says so, and once
// the stream has it, the batches go. A process that ends between the two goes on with
// the second at its next start. What another node wrote it touches only if that node is
// gone for good.
type Pruner struct {
	cfg     PrunerConfig
	stream  Stream
	stop    context.CancelFunc
	done    sync.WaitGroup
	shares  map[string]*share // by tenant; the goroutine's
	tight   bool              // the stream as a whole is too full
	tightAt time.Time         // when that is looked at again
	biggest *share            // of this node's, when all were looked at last
	clock   clockWatch
	left    departed
	counted struct{ age, size, early atomic.Uint64 }
	looked  atomic.Uint64 // times that every chain was looked at
}

// PrunerStats are counters since the start.
type PrunerStats struct {
	Age, Size uint64 // records that went
	Early     uint64 // of Size, records that went before half of their time
}

// share is what is known of this node's batches for one tenant.
type share struct {
	tenant, subject string
	node            string                       // whose chain it is
	link                                         // reading, to the end of what was read
	cursor          uint64                       // sequence of the last message that was read
	sizes           int64                        // bytes of the messages that are there
	oldest          time.Time                    // of the last record of the first message
	ageAt           time.Time                    // when the age is looked at again
	partAt          time.Time                    // when writers are counted again
	writers         int64                        // nodes that have a chain
	gone            map[string]auditlog.Position // by chain, what the last pruned record says
	unproved        []auditlog.Position          // what pruned records say that no valid head covers yet
	sure            bool                         // what was read is what this node wrote
	owed            bool                         // a pruned record may be there whose batches are too
	pending         auditlog.Position            // where the chain was when a pruned record was kept
	rest            time.Time                    // nothing is pruned before
}

// link checks that batches follow one another.
type link struct{ at auditlog.Position }

// next moves on to a batch and says what is wrong with it, if anything.
func (l *link) next(b *auditlog.Batch, gone map[string]auditlog.Position) (fault string) {
	before := l.at
	for i := range b.Records {
		r := &b.Records[i]
		id := b.ID()
		switch {
		case i == 0 && r.Kind == auditlog.KindChain:
			if before.Seq > 0 && (r.Ref != auditlog.RefOf(before) || r.Before != before.Hash) {
				fault = fmt.Sprintf("chain %s does not go on from %s", r.Chain, auditlog.RefOf(before))
			}
		case i == 0 && before.Seq == 0:
			if end := gone[r.Chain]; end.Seq+1 != r.Seq || end.Hash != r.Prev {
				fault = fmt.Sprintf("records before %d are missing, and no pruned record says so", r.Seq)
			}
		case before.ChainID != id || before.Seq+1 != r.Seq || before.Hash != r.Prev:
			fault = fmt.Sprintf("record %d does not go on from %s", r.Seq, auditlog.RefOf(before))
		}
		before = auditlog.Position{ChainID: id, Seq: r.Seq, Hash: b.Hashes[i]}
	}
	l.at = before
	return fault
}

// NewPruner returns a Pruner. It does nothing before Attach.
func NewPruner(cfg PrunerConfig) *Pruner {
	if cfg.Clock == nil {
		cfg.Clock = func() error { return nil }
	}
	return &Pruner{cfg: cfg, shares: map[string]*share{}, clock: clockWatch{began: time.Now(), offAt: -1}}
}

// Attach begins to look after the chains in s, until Detach. It is called once.
func (p *Pruner) Attach(s Stream) {
	ctx, stop := context.WithCancel(context.Background())
	p.stream, p.stop = s, stop
	p.done.Go(func() { p.run(ctx) })
}

// Detach stops and waits. What is begun goes on at the next start. It comes after
// Attach, and before that of the journal.
func (p *Pruner) Detach() {
	p.stop()
	p.done.Wait()
}

// Stats returns the counters.
func (p *Pruner) Stats() PrunerStats {
	c := &p.counted
	return PrunerStats{Age: c.age.Load(), Size: c.size.Load(), Early: c.early.Load()}
}

func (p *Pruner) run(ctx context.Context) {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	troubled := false
	for {
		err := p.all(ctx)
		if err != nil && ctx.Err() == nil && !troubled {
			p.cfg.Log.Error().Err(err).Msg("the audit trail was not pruned; it is tried again")
		}
		troubled = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-p.cfg.Journal.prune:
		}
	}
}

func (p *Pruner) all(ctx context.Context) error {
	now := p.cfg.Journal.cfg.Now()
	if err := p.clock.look(ctx, p, now); err != nil {
		return err
	}
	p.tightAt = notBeyond(p.tightAt, now, tightEvery)
	if !now.Before(p.tightAt) || streamFull(p.cfg.Journal) {
		used, limit, err := p.stream.Used(ctx)
		if err != nil {
			return err
		}
		p.tight, p.tightAt = limit > 0 && used > limit/100*fullPercent, now.Add(tightEvery)
	}
	for _, tenant := range tenantsOf(p.cfg.Journal) {
		s := p.shares[tenant]
		if s == nil {
			s = &share{tenant: tenant, node: p.cfg.Journal.cfg.Node, subject: RecordSubject(tenant, p.cfg.Journal.cfg.Node), gone: map[string]auditlog.Position{}, owed: true}
			p.shares[tenant] = s
		}
		if err := p.one(ctx, s, now); err != nil {
			return fmt.Errorf("tenant %s: %w", tenant, err)
		}
	}
	for _, s := range p.shares {
		if p.biggest == nil || s.sizes > p.biggest.sizes {
			p.biggest = s
		}
	}
	p.looked.Add(1)
	return p.departures(ctx, now)
}

// notBeyond returns at, or now where that is further away than it was ever set.
func notBeyond(at, now time.Time, most time.Duration) time.Time {
	if at.Sub(now) > most {
		return now
	}
	return at
}

// one looks after the chain of one tenant.
func (p *Pruner) one(ctx context.Context, s *share, now time.Time) error {
	// A clock that was ahead and is right again must not make them wait for long.
	s.ageAt, s.rest = notBeyond(s.ageAt, now, ageEvery), notBeyond(s.rest, now, ageEvery)
	s.partAt = notBeyond(s.partAt, now, partEvery)
	at, ok := p.cfg.Journal.Position(s.tenant)
	held := heldUp(p.cfg.Journal, s.tenant)
	if !ok || at == s.at && now.Before(s.ageAt) && now.Before(s.partAt) && !s.owed && !p.tight && !held {
		return nil
	}
	if !held && s.pending.Seq > 0 && at.ChainID == s.pending.ChainID && at.Seq < s.pending.Seq {
		return nil // the record that was kept last is not in the stream yet
	}
	s.pending = auditlog.Position{}
	if err := p.read(ctx, s, at); err != nil {
		return err
	}
	if err := p.recall(s); err != nil {
		return err
	}
	defer p.measure(s)
	if s.owed {
		if !s.sure {
			return nil
		}
		if err := p.purge(ctx, s); err != nil {
			return err
		}
	}
	if len(s.unproved) > 0 && !held {
		return nil // this node's key is not valid now: what it says would not count
	}
	for !now.Before(s.rest) {
		c, err := p.choose(ctx, s, now, held)
		if err != nil || c == nil {
			return err
		}
		done, err := p.carryOut(ctx, s, c, now, held)
		if err != nil || !done {
			return err
		}
	}
	return nil
}

// read takes in what has come since the last time. at is how far this node knows its
// chain to be: what leads to it is what the node wrote.
func (p *Pruner) read(ctx context.Context, s *share, at auditlog.Position) error {
	whole := true // all that came was batches
	for {
		m, err := p.stream.Next(ctx, s.subject, s.cursor+1)
		if err != nil {
			return err
		}
		if m == nil {
			// What the node knew at first may have gone, and nothing come since.
			s.sure = s.sure || whole && s.at == at
			return nil
		}
		s.cursor, s.sizes = m.Seq, s.sizes+size(m)
		b, err := auditlog.ParseBatch(m.Data)
		if err != nil {
			whole = false
			s.doubt()
			continue
		}
		first := s.oldest.IsZero()
		if first {
			s.oldest = b.Records[len(b.Records)-1].Time
		}
		if s.next(b, s.gone) != "" && !first { // how the first one begins is looked at when it goes
			s.doubt()
		}
		p.said(s, b)
		if s.at == at {
			s.sure = true
		}
	}
}

// said takes what pruned records of a batch say, if the node has signed it. Under a head
// of a time at which its key was not valid, that waits for a batch that covers it.
func (p *Pruner) said(s *share, b *auditlog.Batch) {
	var ends []auditlog.Position
	for i := range b.Records {
		if end := b.Records[i].PrunedEnd(); end.Seq > 0 && end.Node == s.node {
			ends = append(ends, end)
		}
	}
	if len(ends)+len(s.unproved) == 0 {
		return
	}
	s.unproved = append(s.unproved, ends...)
	switch err := p.cfg.Verify(b, s.tenant); {
	case errors.Is(err, auditlog.ErrKeyTime):
	case err != nil:
		p.cfg.Log.Error().Err(err).Str("tenant", s.tenant).Msg("a pruned record in the audit trail is not of this node; run signet audit verify")
		s.doubt()
	default:
		for _, end := range s.unproved {
			s.gone[end.Chain] = end
		}
		s.unproved = nil
	}
}

// recall adds what pruned records in the spool say: they are this node's word, and so is
// what they say that went, once it went.
func (p *Pruner) recall(s *share) error {
	said, err := saidInSpool(p.cfg.Journal, s.tenant, func(b *auditlog.Batch) error { return p.cfg.Verify(b, s.tenant) })
	for _, end := range said {
		if end.Node == s.node {
			s.gone[end.Chain] = end
		}
	}
	return err
}

// measure tells the publisher how much room there is, and that there may be some again.
func (p *Pruner) measure(s *share) {
	if s.writers == 0 {
		return // not looked at yet
	}
	part := max(p.cfg.Keep(s.tenant).MaxBytes/s.writers, minPart)
	measured(p.cfg.Journal, s.tenant, s.sizes, s.cursor, part)
	p.cfg.Journal.poke()
}

// doubt: what was read so far does not lead to what this node wrote, so nothing that it
// says is believed.
func (s *share) doubt() {
	s.sure, s.unproved = false, nil
	clear(s.gone)
}

func size(m *Message) int64 { return int64(len(m.Data)+len(m.Subject)) + overhead }

// purge takes away what pruned records of this node say has gone.
func (p *Pruner) purge(ctx context.Context, s *share) error {
	var upTo uint64
	var freed, bytes int64
	var oldest time.Time
	for seq := uint64(1); seq < s.cursor; {
		m, err := p.stream.Next(ctx, s.subject, seq)
		if err != nil {
			return err
		}
		if m == nil || m.Seq >= s.cursor {
			break
		}
		bytes, seq = bytes+size(m), m.Seq+1
		b, err := auditlog.ParseBatch(m.Data)
		if err != nil {
			continue // goes with what is behind it
		}
		last := b.Last()
		if last.Seq > s.gone[last.Chain].Seq {
			oldest = b.Records[len(b.Records)-1].Time
			break
		}
		upTo, freed = m.Seq, bytes
	}
	if upTo > 0 {
		if err := p.stream.Purge(ctx, s.subject, upTo); err != nil {
			return err
		}
		s.sizes -= freed
	}
	if !oldest.IsZero() {
		s.oldest = oldest
	}
	s.owed = false
	return nil
}
