package audit

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"github.com/signetbus/signet/internal/auditlog"
)

// choose returns what has to go next of a chain, nil: nothing. held: batches wait for
// room, so more goes at once.
func (p *Pruner) choose(ctx context.Context, s *share, now time.Time, held bool) (*auditlog.Pruning, error) {
	keep := p.cfg.Keep(s.tenant)
	if !now.Before(s.partAt) {
		names, err := p.stream.Subjects(ctx, PrefixRecord+s.tenant+".>")
		if err != nil {
			return nil, err
		}
		s.writers, s.partAt = max(int64(len(names)), 1), now.Add(partEvery)
	}
	if !now.Before(s.ageAt) {
		old := now.Add(-keep.MaxAge)
		if s.oldest.Before(old) && p.clock.allows(keep.MaxAge) {
			c, err := p.oldest(ctx, s, func(_ int64, until time.Time) bool { return until.Before(old) })
			if err != nil || c != nil {
				return because(c, auditlog.PrunedAge), err
			}
		}
		s.ageAt = now.Add(ageEvery)
	}
	// Each node has an equal part: so it needs to know nothing of the others' batches.
	part := keep.MaxBytes / s.writers / 100
	if p.tight {
		part /= 2
	}
	full, goal := int64(fullPercent), int64(goalPercent)
	if held {
		full, goal = 0, goalPercent/2
	}
	if s.sizes <= part*full {
		return nil, nil
	}
	left := s.sizes - part*goal
	if s == p.biggest && streamFull(p.cfg.Journal) {
		left = max(left, s.sizes/2) // the shares are more than there is
	}
	c, err := p.oldest(ctx, s, func(before int64, _ time.Time) bool { return before < left })
	return because(c, auditlog.PrunedSize), err
}

func because(c *auditlog.Pruning, why string) *auditlog.Pruning {
	if c != nil {
		c.Why = why
	}
	return c
}

// oldest walks along the oldest batches of one chain for as long as goes wants them:
// it is told the bytes before a batch and the time of its last record. The newest batch
// always stays.
func (p *Pruner) oldest(ctx context.Context, s *share, goes func(before int64, until time.Time) bool) (*auditlog.Pruning, error) {
	var c, covered *auditlog.Pruning // covered: up to where a head under a valid key holds it
	var walk link
	var bytes int64
	broken, enough := "", false
	for seq, n := uint64(1), 0; n < maxPruned; n++ {
		m, err := p.stream.Next(ctx, s.subject, seq)
		if err != nil {
			return nil, err
		}
		if m == nil || m.Seq > s.cursor {
			break
		}
		seq = m.Seq + 1
		b, err := auditlog.ParseBatch(m.Data)
		if err != nil {
			bytes, broken = bytes+size(m), "a message is no batch"
			continue
		}
		first, last := &b.Records[0], &b.Records[len(b.Records)-1]
		fault := walk.next(b, s.gone)
		failed := p.cfg.Verify(b, s.tenant)
		late := errors.Is(failed, auditlog.ErrKeyTime)
		if failed != nil && !late && broken == "" {
			broken = failed.Error()
		}
		if c != nil && first.Chain != c.Chain {
			if broken == "" && (covered == nil || covered.Last != c.Last) {
				broken = "the chain ends under a head that was signed when the key was not valid"
			}
			covered = c
			break
		}
		if fault != "" && broken == "" {
			broken = fault // of the first that stays, too: it must go on from the last that goes
		}
		if c != nil && !late {
			covered = clone(c)
			if enough {
				break
			}
		}
		if enough = enough || m.Seq >= s.cursor || !goes(bytes, last.Time); enough {
			if c == nil || covered != nil && covered.Last == c.Last {
				break
			}
			continue // to a head that covers what goes
		}
		if c == nil {
			c = &auditlog.Pruning{Chain: first.Chain, First: first.Seq, From: first.Time}
		}
		end := b.Last()
		c.Last, c.Hash, c.Until = end.Seq, end.Hash, last.Time
		if !late {
			covered = clone(c)
		}
		bytes += size(m)
	}
	if covered != nil { // what no valid head holds yet stays
		covered.Broken = broken
	}
	return covered, nil
}

func clone(c *auditlog.Pruning) *auditlog.Pruning {
	out := *c
	return &out
}

// carryOut puts on record what goes, waits until the stream has that, and takes the
// batches away. false: the stream does not have the record yet.
//
// Where batches wait for room (held), the record would wait behind them, and they for it.
// Then the batches go once it is in the spool, signed and synced: until the stream has
// taken what is before it, a verifier finds them deleted, and knows better afterwards.
func (p *Pruner) carryOut(ctx context.Context, s *share, c *auditlog.Pruning, now time.Time, held bool) (bool, error) {
	j := p.cfg.Journal
	e := c.Entry(now, s.tenant)
	if held {
		return false, p.ahead(ctx, s, c, e, now)
	}
	if err := j.Keep(ctx, e); err != nil {
		return false, err
	}
	s.owed, s.pending = true, written(j, s.tenant)
	at, err := p.await(ctx, s)
	if err != nil {
		return false, err
	}
	if at == (auditlog.Position{}) {
		return false, nil
	}
	s.sure, s.pending = false, auditlog.Position{}
	if err := p.read(ctx, s, at); err != nil {
		return false, err
	}
	if len(s.unproved) > 0 {
		return false, nil
	}
	if !s.sure || s.gone[c.Chain].Seq < c.Last {
		s.rest = now.Add(ageEvery) // each attempt is a record
		return false, errors.New("the record of what is pruned is not where it was put: run signet audit verify")
	}
	if err := p.purge(ctx, s); err != nil {
		return false, err
	}
	p.tell(s, c, e.Count, now)
	return true, nil
}

// ahead is carryOut where batches wait for room. The record is taken although there may
// be none in the spool: it is what makes some.
func (p *Pruner) ahead(ctx context.Context, s *share, c *auditlog.Pruning, e auditlog.Entry, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, storedFor)
	defer cancel()
	if err := keepAnyway(ctx, p.cfg.Journal, e); err != nil {
		return err
	}
	if err := p.recall(s); err != nil {
		return err
	}
	if s.gone[c.Chain].Seq < c.Last {
		return errors.New("the record of what is pruned is not in the spool; it is tried again")
	}
	if err := p.purge(ctx, s); err != nil {
		return err
	}
	p.tell(s, c, e.Count, now)
	return nil
}

// await waits until the stream has what the chain had when the record was kept; the zero
// Position: it has not, or cannot take it before there is room.
func (p *Pruner) await(ctx context.Context, s *share) (auditlog.Position, error) {
	poll := time.NewTicker(gatherFor / 10)
	defer poll.Stop()
	end := time.NewTimer(storedFor)
	defer end.Stop()
	for {
		at, ok := p.cfg.Journal.Position(s.tenant)
		if ok && at.ChainID == s.pending.ChainID && at.Seq >= s.pending.Seq {
			return at, nil
		}
		select {
		case <-ctx.Done():
			return auditlog.Position{}, ctx.Err()
		case <-end.C:
			return auditlog.Position{}, nil
		case <-poll.C:
			if heldUp(p.cfg.Journal, s.tenant) {
				return auditlog.Position{}, nil
			}
		}
	}
}

// tell counts and logs what went.
func (p *Pruner) tell(s *share, c *auditlog.Pruning, records uint64, now time.Time) {
	if c.Why == auditlog.PrunedAge {
		p.counted.age.Add(records)
	} else {
		p.counted.size.Add(records)
	}
	level, what := zerolog.InfoLevel, "the oldest records of the audit trail were pruned"
	if c.Why == auditlog.PrunedSize && now.Sub(c.Until) < p.cfg.Keep(s.tenant).MaxAge/2 {
		p.counted.early.Add(records)
		level, what = zerolog.WarnLevel, "records of the audit trail were pruned for their size before half of their time: enlarge audit.maxBytes of the tenant in the policy"
	}
	if c.Broken != "" {
		level, what = zerolog.ErrorLevel, "the records of the audit trail that were pruned were not whole; run signet audit verify"
	}
	p.cfg.Log.WithLevel(level).Str("tenant", s.tenant).Str("chain", c.Chain).Uint64("first", c.First).Uint64("last", c.Last).
		Time("from", c.From).Time("until", c.Until).Str("why", c.Why).Str("broken", c.Broken).Msg(what)
}

// tenantsOf are those that this node has chains of its own for.
func tenantsOf(j *Journal) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []string
	for key := range j.lines {
		if tenantOf(key) == key {
			out = append(out, key)
		}
	}
	return out
}

// written is how far the chain of this node for a tenant is in the spool.
func written(j *Journal, tenant string) auditlog.Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	if l := j.lines[tenant]; l != nil {
		return l.writer.Position()
	}
	return auditlog.Position{}
}
