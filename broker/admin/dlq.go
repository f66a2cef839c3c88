package admin

import (
	"context"
	"errors"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/dlq"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

// Letters reads and works the dead letters of a tenant; broker/store and broker/redrive
// implement it.
type Letters interface {
	Redrives
	ReadDLQ(ctx context.Context, tenant string, after uint64, filters []string, limit int) (page []store.DeadLetter, next uint64, err error)
	GetDLQ(ctx context.Context, tenant string, seq uint64) (*store.DeadLetter, error)
}

// maxScan bounds how many records one request looks at: a filter that matches
// little must not read a whole stream in one request.
const maxScan = 5000

// ownOnly reports whether the caller may work its own dead letters only.
func ownOnly(r *request) bool { return !acl.Admin(r.caller, adminapi.AreaDLQ).Allowed }

// may reports whether the caller may have to do with a letter: with the area dlq with any,
// else with what it sent, and with what a consumer of its own has failed on and it may
// still read.
func may(r *request, rec *dlq.Record) bool {
	switch {
	case !ownOnly(r):
		return true
	case rec.Principal != r.caller.FullName():
		return false
	case rec.Stage == dlq.StageIngress:
		return true
	}
	return rec.Stage == dlq.StageConsumer && acl.Subscribe(r.caller, rec.NATSSubject).Allowed
}

// letterFor returns one letter that the caller may have to do with.
func letterFor(s *Service, ctx context.Context, r *request, seq uint64) (*store.DeadLetter, *dlq.Record, error) {
	d, err := s.cfg.Letters.GetDLQ(ctx, r.caller.Tenant.Name, seq)
	if err != nil {
		return nil, nil, storeRefusal(err)
	}
	rec, err := dlq.Decode(d.Header, d.Data)
	switch {
	case err != nil && ownOnly(r), err == nil && !may(r, rec):
		return nil, nil, storeRefusal(store.ErrNotFound) // not even that it is there
	case err != nil:
		return nil, nil, wire.Refuse(wire.CodeConflict, "admin", err.Error())
	}
	return d, rec, nil
}

// filterOf reads a filter of a request.
func filterOf(r *request, q *adminapi.DLQFilter) (dlq.Filter, error) {
	tenant := r.caller.Tenant.Name
	f := dlq.Filter{
		Stage: dlq.Stage(q.Stage), Code: q.Code, Subject: q.Subject, Stream: q.Stream, Consumer: q.Consumer,
		Type: q.Type, Since: q.Since, Until: q.Until,
	}
	if q.Reason != "" {
		f.Reasons = []dlq.Reason{dlq.Reason(q.Reason)}
	}
	if q.Principal != "" {
		name, err := r.ofTenant(q.Principal)
		if err != nil {
			return f, err
		}
		f.Principal = tenant + "/" + name
	}
	if own := r.caller.FullName(); ownOnly(r) && f.Principal != own {
		if f.Principal != "" {
			return f, wire.Refuse(wire.CodeAdminDenied, "default-deny/admin", "others' dead letters need the area dlq")
		}
		f.Principal = own
	}
	for _, text := range q.Where {
		w, err := dlq.ParseWhere(text)
		if err != nil {
			return f, wire.Refuse(wire.CodeRequestMalformed, "admin", err.Error())
		}
		f.Where = append(f.Where, w)
	}
	if err := f.Validate(); err != nil {
		return f, wire.Refuse(wire.CodeRequestMalformed, "admin", err.Error())
	}
	return f, nil
}

// scan is one look through the dead letters of a tenant.
type scan struct {
	s      *Service
	r      *request
	tenant string
	filter dlq.Filter
	cursor uint64 // the last sequence that was looked at
	upTo   uint64 // 0: no bound
	read   int
	ended  bool // there is nothing behind cursor
}

// next returns the next letters that the filter selects, at most want. None: the scan has
// ended, or has looked at maxScan letters.
func (c *scan) next(ctx context.Context, want int) (letters []store.DeadLetter, records []*dlq.Record, err error) {
	for len(letters) == 0 && !c.ended && c.read < maxScan {
		page, next, err := c.s.cfg.Letters.ReadDLQ(ctx, c.tenant, c.cursor, c.filter.Subjects(), want)
		if err != nil {
			return nil, nil, storeRefusal(err)
		}
		c.ended = len(page) == 0
		for i := range page {
			if c.upTo > 0 && page[i].Sequence > c.upTo {
				c.ended = true
				break
			}
			c.cursor = page[i].Sequence
			rec, err := dlq.Decode(page[i].Header, page[i].Data)
			if err != nil {
				// One unreadable record must not hide the others.
				c.s.cfg.Log.Error().Err(err).Uint64("seq", page[i].Sequence).Msg("dead letter not readable")
				continue
			}
			if c.filter.Match(rec) && may(c.r, rec) {
				letters, records = append(letters, page[i]), append(records, rec)
			}
		}
		if !c.ended {
			c.cursor = next
		}
		c.read += len(page)
	}
	return letters, records, nil
}

// more reports whether there may be letters behind the cursor.
func (c *scan) more(ctx context.Context) (bool, error) {
	if c.ended || c.upTo > 0 && c.cursor >= c.upTo {
		return false, nil
	}
	rest, next, err := c.s.cfg.Letters.ReadDLQ(ctx, c.tenant, c.cursor, c.filter.Subjects(), 1)
	return err == nil && len(rest) > 0 && (c.upTo == 0 || next <= c.upTo), storeRefusal(err)
}

func (s *Service) dlqLs(ctx context.Context, r *request) (any, error) {
	var req adminapi.DLQLsRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	f, err := filterOf(r, &req.DLQFilter)
	if err != nil {
		return nil, err
	}
	c := scan{s: s, r: r, tenant: r.caller.Tenant.Name, filter: f, cursor: req.Cursor}
	out := adminapi.DLQList{Entries: []adminapi.DeadLetter{}}
	for want := limit(req.Limit); len(out.Entries) < want; {
		letters, records, err := c.next(ctx, want-len(out.Entries))
		if err != nil {
			return nil, err
		}
		if len(letters) == 0 {
			break
		}
		for i, rec := range records {
			out.Entries = append(out.Entries, describe(&letters[i], rec))
		}
	}
	out.Cursor = c.cursor
	out.More, err = c.more(ctx)
	return out, err
}

func (s *Service) dlqShow(ctx context.Context, r *request) (any, error) {
	var req adminapi.DLQShowRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	letter, rec, err := letterFor(s, ctx, r, req.Seq)
	if err != nil {
		return nil, err
	}
	size := len(rec.Payload)
	if req.Offset < 0 || req.Offset > size {
		return nil, wire.Refuse(wire.CodeRequestMalformed, "admin", "offset is outside the payload")
	}
	n := min(size-req.Offset, adminapi.MaxChunkBytes)
	if req.Limit > 0 {
		n = min(n, req.Limit)
	}
	out := adminapi.DLQShow{DeadLetter: describe(letter, rec), Payload: rec.Payload[req.Offset : req.Offset+n], Offset: req.Offset}
	if req.Offset == 0 {
		out.Header = rec.Header
	}
	return out, nil
}

func describe(d *store.DeadLetter, r *dlq.Record) adminapi.DeadLetter {
	var deliveries []adminapi.DLQDelivery
	for _, one := range r.Deliveries {
		deliveries = append(deliveries, adminapi.DLQDelivery(one))
	}
	return adminapi.DeadLetter{
		Seq: d.Sequence, Time: r.Time, Reason: string(r.Reason), Code: r.Code, Detail: r.Detail, Rule: r.Rule, Ref: r.Ref,
		Stage: string(r.Stage), Principal: r.Principal, Subject: r.NATSSubject,
		Stream: r.Origin.Stream, StreamSeq: r.Origin.Sequence, Consumer: r.Origin.Consumer, Type: dlq.EventType(r),
		Policy: r.Policy, Schema: r.Schema, Violations: r.Violations, Bytes: len(r.Payload),
		DLQHistory: adminapi.DLQHistory{Attempts: uint64(r.Attempts), Redrives: r.Redrives, By: r.By, Stored: r.Stored, Deliveries: deliveries},
	}
}

func storeRefusal(err error) error {
	if errors.Is(err, store.ErrKept) {
		return wire.Refuse(wire.CodeConflict, "dlq", "these dead letters were made by a release that lets nothing be taken from them: they go by deadLetter.maxAge; a backup that is restored into a new cluster can be worked")
	}
	if errors.Is(err, store.ErrNotFound) {
		return wire.Refuse(wire.CodeNotFound, "admin", "there is no dead letter of this number: it was redriven or purged, is gone by its age, or was never there; signet dlq ls shows those that are there")
	}
	if errors.Is(err, store.ErrClosed) {
		return wire.Refuse(wire.CodeDraining, "admin", "")
	}
	return err
}
