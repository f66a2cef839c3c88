package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/signetbus/signet/internal/auditlog"
)

// departed is what is known of the chains of nodes that are gone.
type departed struct {
	at    time.Time              // when they are looked at again
	scans map[string]*prunedScan // by tenant
}

// prunedScan is what the pruned records of all nodes in a tenant's trail say.
type prunedScan struct {
	cursor uint64
	ends   map[auditlog.ChainID]auditlog.Position
}

// departures prunes the chains of nodes that are no members any more and have written
// nothing for auditlog.GoneFor, by the rules of their own pruning. One node does it: two
// would say the same twice.
func (p *Pruner) departures(ctx context.Context, now time.Time) error {
	p.left.at = notBeyond(p.left.at, now, ageEvery)
	if p.cfg.Members == nil || now.Before(p.left.at) {
		return nil
	}
	members, own := p.cfg.Members(), p.cfg.Journal.cfg.Node
	if !p.clock.believed() || !slices.Contains(members, own) || slices.Min(members) != own {
		return nil
	}
	subjects, err := p.stream.Subjects(ctx, PrefixRecord+">")
	if err != nil {
		return err
	}
	for _, subject := range subjects {
		if err := p.departed(ctx, subject, members, now); err != nil {
			return err
		}
	}
	p.left.at = now.Add(ageEvery)
	return nil
}

// departed prunes what is on a subject, if its node is gone.
func (p *Pruner) departed(ctx context.Context, subject string, members []string, now time.Time) error {
	m, err := p.stream.Last(ctx, subject)
	if err != nil || m == nil {
		return err
	}
	b, fault := auditlog.ParseBatch(m.Data)
	if fault != nil {
		p.cfg.Log.Debug().Err(fault).Str("subject", subject).Msg("the end of a chain is not readable; signet audit verify says more")
		return nil
	}
	id, last := b.ID(), &b.Records[len(b.Records)-1]
	if slices.Contains(members, id.Node) || RecordSubject(last.Tenant, id.Node) != subject || now.Sub(last.Time) <= auditlog.GoneFor {
		return nil
	}
	if err := p.departure(ctx, last.Tenant, subject, b.Last(), now); err != nil {
		return fmt.Errorf("tenant %s, node %s, which is gone: %w", last.Tenant, id.Node, err)
	}
	return nil
}

// departure prunes one chain of a node that is gone; end is where it ends.
func (p *Pruner) departure(ctx context.Context, tenant, subject string, end auditlog.Position, now time.Time) error {
	s := &share{tenant: tenant, subject: subject, node: end.Node, gone: map[string]auditlog.Position{}}
	if err := p.read(ctx, s, end); err != nil || !s.sure {
		return err // what does not lead to its end stays: signet audit verify says what is wrong
	}
	said, err := p.scan(ctx, tenant)
	if err != nil {
		return err
	}
	for id, at := range said {
		if id.Node == s.node && at.Seq > s.gone[id.Chain].Seq {
			s.gone[id.Chain] = at
		}
	}
	if err := p.purge(ctx, s); err != nil { // what was said, and not done
		return err
	}
	for {
		c, err := p.choose(ctx, s, now, false)
		if err != nil || c == nil {
			return err
		}
		c.Node = s.node
		if stored, err := p.declare(ctx, tenant, c, now); err != nil || !stored {
			return err
		}
		s.gone[c.Chain] = auditlog.Position{ChainID: auditlog.ChainID{Node: s.node, Chain: c.Chain}, Seq: c.Last, Hash: c.Hash}
		if err := p.purge(ctx, s); err != nil {
			return err
		}
		p.tell(s, c, c.Last-c.First+1, now)
	}
}

// declare puts on record, in this node's chain, what goes of another's, and waits until the
// stream has it under a head that counts. false: it has not yet.
func (p *Pruner) declare(ctx context.Context, tenant string, c *auditlog.Pruning, now time.Time) (bool, error) {
	j := p.cfg.Journal
	if err := j.Keep(ctx, c.Entry(now, tenant)); err != nil {
		return false, err
	}
	at, err := p.await(ctx, &share{tenant: tenant, pending: written(j, tenant)})
	if err != nil || at == (auditlog.Position{}) {
		return false, err
	}
	said, err := p.scan(ctx, tenant)
	if err != nil {
		return false, err
	}
	if said[auditlog.ChainID{Node: c.Node, Chain: c.Chain}].Seq < c.Last {
		return false, errors.New("the record of what is pruned is not under a valid head; it is tried again")
	}
	return true, nil
}

// scan reads what has come into a tenant's trail since the last time, and returns what
// pruned records name. The caller changes nothing of it.
func (p *Pruner) scan(ctx context.Context, tenant string) (map[auditlog.ChainID]auditlog.Position, error) {
	if p.left.scans == nil {
		p.left.scans = map[string]*prunedScan{}
	}
	s := p.left.scans[tenant]
	if s == nil {
		s = &prunedScan{ends: map[auditlog.ChainID]auditlog.Position{}}
		p.left.scans[tenant] = s
	}
	for {
		m, err := p.stream.Next(ctx, PrefixRecord+tenant+".>", s.cursor+1)
		if err != nil || m == nil {
			return s.ends, err
		}
		s.cursor = m.Seq
		b, err := auditlog.ParseBatch(m.Data)
		if err != nil {
			continue
		}
		for i := range b.Records {
			if end := b.Records[i].PrunedEnd(); end.Seq > 0 && p.cfg.Verify(b, tenant) == nil {
				s.ends[end.ChainID] = end
			}
		}
	}
}
