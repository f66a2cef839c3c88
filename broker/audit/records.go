package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/signetbus/signet/internal/auditlog"
)

// Bounds of reading.
const (
	// maxListed bounds the messages that one List looks at.
	maxListed = 2000
	// MaxReadBytes bounds what one Batches returns; it is more than one batch.
	MaxReadBytes = 384 << 10
	// followEvery is how often a waiting List looks.
	followEvery = 250 * time.Millisecond
)

// Records reads the trail out of the stream. Safe for concurrent use.
type Records struct {
	journal *Journal
	stream  Stream
}

// NewRecords reads what j writes to s.
func NewRecords(j *Journal, s Stream) *Records { return &Records{j, s} }

// Query selects records; a zero member selects everything.
type Query struct {
	Tenant       string // required; auditlog.SystemTenant for the broker's own
	Who          string // tenant/name
	Kind         auditlog.Kind
	Outcome      auditlog.Outcome
	Since, Until time.Time // of the record: Since <= time < Until
	After        uint64    // sequence of a message: only what comes after it
	Limit        int       // records; a page is longer by what is left of its last batch
}

func (q *Query) match(r *auditlog.Record) bool {
	return (q.Who == "" || q.Who == r.Who) && (q.Kind == "" || q.Kind == r.Kind) && (q.Outcome == "" || q.Outcome == r.Outcome) &&
		(q.Since.IsZero() || !r.Time.Before(q.Since)) && (q.Until.IsZero() || r.Time.Before(q.Until))
}

// Page is a part of the trail.
type Page struct {
	Records []auditlog.Record
	Cursor  uint64 // Query.After of the next page
	More    bool   // there is a next page now
}

// List returns the next records of a query, oldest first. A batch that cannot be read
// ends it with ErrBatch: who wants to know more verifies the trail.
//
// Errors: auditlog.ErrBatch, auditlog.ErrRecord, those of the stream.
func (r *Records) List(ctx context.Context, q Query) (*Page, error) {
	filter := PrefixRecord + q.Tenant + ".>"
	page := &Page{Cursor: q.After}
	if q.After == 0 && !q.Since.IsZero() {
		seq, err := r.seek(ctx, filter, q.Since)
		if err != nil {
			return nil, err
		}
		page.Cursor = max(seq, 1) - 1
	}
	for range maxListed {
		m, err := r.stream.Next(ctx, filter, page.Cursor+1)
		if err != nil || m == nil {
			return page, err
		}
		if len(page.Records) >= max(q.Limit, 1) {
			page.More = true
			return page, nil
		}
		b, err := auditlog.ParseBatch(m.Data)
		if err != nil {
			return nil, fmt.Errorf("audit: message %d of the trail: %w", m.Seq, err)
		}
		for i := range b.Records {
			if q.match(&b.Records[i]) {
				page.Records = append(page.Records, b.Records[i])
			}
		}
		page.Cursor = m.Seq
	}
	page.More = true
	return page, nil
}

// Follow is List that waits for at least one record, until ctx ends: then it returns
// none, the cursor to go on from, and no error.
//
// Errors: as List.
func (r *Records) Follow(ctx context.Context, q Query) (*Page, error) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		page, err := r.List(ctx, q)
		if ctx.Err() != nil {
			return &Page{Cursor: q.After}, nil
		}
		if err != nil || len(page.Records) > 0 {
			return page, err
		}
		q.After = page.Cursor
		select {
		case <-tick.C:
		case <-ctx.Done():
			return page, nil
		}
	}
}

// Newest is the sequence of the newest message of a tenant's trail, 0 if there is none:
// List after it returns what comes.
//
// Errors: those of the stream.
func (r *Records) Newest(ctx context.Context, tenant string) (uint64, error) {
	m, err := r.stream.Last(ctx, PrefixRecord+tenant+".>")
	if err != nil || m == nil {
		return 0, err
	}
	return m.Seq, nil
}

// seek returns a sequence from which on all messages were stored at since or later. A
// record is stored after it was made, never before.
func (r *Records) seek(ctx context.Context, filter string, since time.Time) (uint64, error) {
	last, err := r.stream.Last(ctx, filter)
	if err != nil || last == nil {
		return 0, err
	}
	low, high := uint64(1), last.Seq+1
	for low < high {
		middle := low + (high-low)/2
		m, err := r.stream.Next(ctx, filter, middle)
		switch {
		case err != nil:
			return 0, err
		case m == nil || !m.Time.Before(since):
			high = middle
		default:
			low = m.Seq + 1
		}
	}
	return low, nil
}

// Batches returns messages of a tenant's trail after a sequence as they are stored, at
// most MaxReadBytes; none at its end.
//
// Errors: those of the stream.
func (r *Records) Batches(ctx context.Context, tenant string, after uint64) ([]Message, error) {
	var out []Message
	for size := 0; ; {
		m, err := r.stream.Next(ctx, PrefixRecord+tenant+".>", after+1)
		if err != nil || m == nil || len(out) > 0 && size+len(m.Data) > MaxReadBytes {
			return out, err
		}
		out, after, size = append(out, *m), m.Seq, size+len(m.Data)
	}
}

// Seal returns a signed head: how far this node has brought its own chain, and, with
// all, how far the stream has those of the other nodes.
//
// Errors: those of the stream, auditlog.ErrHead.
func (r *Records) Seal(ctx context.Context, tenant string, all bool) ([]byte, error) {
	j := r.journal
	h := auditlog.Head{Tenant: tenant, Node: j.cfg.Node, Time: j.cfg.Now(), Seal: true}
	own := RecordSubject(tenant, j.cfg.Node)
	if all {
		subjects, err := r.stream.Subjects(ctx, PrefixRecord+tenant+".>")
		if err != nil {
			return nil, err
		}
		for _, subject := range subjects {
			m, err := r.stream.Last(ctx, subject)
			if err != nil {
				return nil, err
			}
			if m == nil {
				continue
			}
			b, err := auditlog.ParseBatch(m.Data)
			if err != nil {
				continue // who verifies finds it
			}
			if subject != own || !r.knows(tenant) {
				h.Chains = append(h.Chains, b.Last())
			}
		}
	}
	if at, ok := j.Position(tenant); ok {
		h.Chains = append(h.Chains, at)
	}
	return h.Sign(j.cfg.Signer())
}

// knows reports whether this node has stored something for the tenant: what it
// remembers counts then, not what the stream says.
func (r *Records) knows(tenant string) bool {
	_, ok := r.journal.Position(tenant)
	return ok
}
