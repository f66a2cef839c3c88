package audit

import (
	"time"

	"github.com/signetbus/signet/internal/auditlog"
)

// gather is the worker: it makes batches of what has come.
func (j *Journal) gather() {
	tick := time.NewTicker(gatherFor)
	defer tick.Stop()
	for {
		select {
		case <-j.stop:
			j.flush()
			return
		case <-tick.C:
		case <-j.wake:
		}
		j.flush()
	}
}

// job is what is to be put on one chain.
type job struct {
	tenant  string
	line    *chain
	entries []queued
}

// flush chains, signs and keeps what is queued: one sync for a batch of each tenant.
func (j *Journal) flush() {
	j.mu.Lock()
	jobs := j.takeLocked()
	j.moving++
	j.mu.Unlock()
	defer j.moved()
	for len(jobs) > 0 {
		var batches [][]byte
		var parts []part
		var rest []*job
		for _, w := range jobs {
			if j.shed(w); len(w.entries) == 0 {
				continue
			}
			p, data, err := j.batch(w)
			if err != nil {
				j.fail(w.tenant, w.entries, err)
				continue
			}
			batches, parts = append(batches, data), append(parts, p)
			if w.entries = w.entries[len(p.entries):]; len(w.entries) > 0 {
				rest = append(rest, w)
			}
		}
		j.keep(batches, parts)
		jobs = rest
	}
}

func (j *Journal) moved() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.moving--
}

// shed counts what there is no room for any more, where nobody waits for it.
func (j *Journal) shed(w *job) {
	if !j.fullFor(&auditlog.Entry{Kind: auditlog.KindRefusal}) {
		return
	}
	rest := w.entries[:0]
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, q := range w.entries {
		if q.kept == nil && j.fullFor(&q.entry) {
			j.loseEntryLocked(w.tenant, &q.entry)
			continue
		}
		rest = append(rest, q)
	}
	w.entries = rest
}

// part is one batch on its way to the spool.
type part struct {
	tenant  string
	entries []queued
	next    auditlog.Position
	line    *chain
}

// takeLocked takes what is queued, by tenant; entries of tenants whose chain is not
// known yet are put by.
func (j *Journal) takeLocked() []*job {
	var jobs []*job
	by := map[string]*job{}
	add := func(tenant string, q queued) {
		w := by[tenant]
		if w == nil {
			w = &job{tenant: tenant, line: j.lines[tenant]}
			by[tenant] = w
			jobs = append(jobs, w)
		}
		w.entries = append(w.entries, q)
	}
	for tenant, n := range j.lost {
		if j.lines[tenant] != nil && !j.fullFor(&auditlog.Entry{Kind: auditlog.KindLost}) {
			add(tenant, queued{entry: auditlog.Entry{Time: j.cfg.Now(), Kind: auditlog.KindLost, Outcome: auditlog.OutcomeFailed, Count: n, Detail: "records that could not be kept"}})
			delete(j.lost, tenant)
		}
	}
	for _, q := range j.queue {
		tenant := q.entry.Tenant
		switch {
		case j.lines[tenant] != nil:
			add(tenant, q)
		case len(j.waiting[tenant]) < queueFor(&q.entry):
			j.waiting[tenant] = append(j.waiting[tenant], q)
			j.held.Add(1)
			j.poke()
		default:
			j.loseLocked(tenant, 1)
			if q.kept != nil {
				q.kept <- ErrFull
			}
		}
	}
	j.queue = nil
	return jobs
}

// batch makes the next batch of a chain.
func (j *Journal) batch(w *job) (part, []byte, error) {
	plain := make([]auditlog.Entry, min(len(w.entries), auditlog.MaxBatchRecords))
	for i := range plain {
		plain[i] = w.entries[i].entry
	}
	data, taken, next, err := w.line.writer.Batch(plain, j.cfg.Now(), j.cfg.Signer())
	return part{w.tenant, w.entries[:taken], next, w.line}, data, err
}

// keep brings batches to the spool and says so to who waits.
func (j *Journal) keep(batches [][]byte, parts []part) {
	if len(batches) == 0 {
		return
	}
	frames, err := j.spool.append(batches)
	if err != nil {
		j.cfg.Log.Error().Err(err).Msg("the spool of the audit trail cannot be written")
		j.refused.Store(j.cfg.Now().Add(refuseFor).UnixNano())
		for _, p := range parts {
			j.fail(p.tenant, p.entries, err)
		}
		return
	}
	j.mu.Lock()
	for i, p := range parts {
		f := frames[i]
		f.tenant, f.after, f.to, f.proved = p.tenant, p.line.writer.Position(), p.next, true
		for _, q := range p.entries {
			if end := (&auditlog.Record{Node: j.cfg.Node, Entry: q.entry}).PrunedEnd(); end.Seq > 0 {
				f.gone = append(f.gone, end)
			}
			if q.entry.Kind == auditlog.KindChain {
				f.after = afterOf(j.cfg.Node, &q.entry)
			}
		}
		if p.line.dead { // given up meanwhile: its records go to the chain that follows
			f.seg.pending.Add(-1)
			for _, q := range p.entries {
				j.queue = append(j.queue, queued{entry: q.entry})
			}
			continue
		}
		p.line.writer.Advance(p.next)
		p.line.pending = append(p.line.pending, f)
		j.counted.records.Add(uint64(len(p.entries)))
	}
	j.mu.Unlock()
	j.counted.batches.Add(uint64(len(parts)))
	for _, p := range parts {
		for _, q := range p.entries {
			if q.kept != nil {
				q.kept <- nil
			}
		}
	}
	for _, s := range j.sinks {
		for _, b := range batches {
			s.offer(b)
		}
	}
	j.poke()
}

// fail tells who waits, and counts the others.
func (j *Journal) fail(tenant string, entries []queued, err error) {
	j.cfg.Log.Error().Err(err).Str("tenant", tenant).Int("records", len(entries)).Msg("records of the audit trail were not kept")
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, q := range entries {
		if q.kept != nil {
			q.kept <- err
			continue
		}
		j.loseEntryLocked(tenant, &q.entry)
	}
}

func (j *Journal) poke() {
	select {
	case j.work <- struct{}{}:
	default:
	}
}
