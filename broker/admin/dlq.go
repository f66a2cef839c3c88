package admin

import (
	"context"
	"errors"

	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/dlq"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

// Letters reads the dead letters of a tenant; broker/store implements it.
type Letters interface {
	ReadDLQ(ctx context.Context, tenant string, after uint64, filters []string, limit int) (page []store.DeadLetter, next uint64, err error)
	GetDLQ(ctx context.Context, tenant string, seq uint64) (*store.DeadLetter, error)
}

// maxScan bounds how many records one dlq.ls looks at: a filter that matches
// little must not read a whole stream in one request.
const maxScan = 5000

func (s *Service) dlqLs(ctx context.Context, r *request) (any, error) {
	var req adminapi.DLQLsRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	tenant := r.caller.Tenant.Name
	f := dlq.Filter{Subject: req.Subject, Since: req.Since}
	if req.Reason != "" {
		f.Reasons = []dlq.Reason{dlq.Reason(req.Reason)}
	}
	if req.Principal != "" {
		f.Principal = tenant + "/" + req.Principal
	}
	if err := f.Validate(); err != nil {
		return nil, wire.Refuse(wire.CodeRequestMalformed, "admin", err.Error())
	}
	out := adminapi.DLQList{Entries: []adminapi.DeadLetter{}, Cursor: req.Cursor}
	want := limit(req.Limit)
	for scanned := 0; len(out.Entries) < want; {
		page, next, err := s.cfg.Letters.ReadDLQ(ctx, tenant, out.Cursor, f.Subjects(), want-len(out.Entries))
		if err != nil {
			return nil, storeRefusal(err)
		}
		if len(page) == 0 {
			return out, nil
		}
		for i := range page {
			rec, err := dlq.Decode(page[i].Header, page[i].Data)
			if err != nil {
				// One unreadable record must not hide the others.
				s.cfg.Log.Error().Err(err).Uint64("seq", page[i].Sequence).Msg("dead letter not readable")
				continue
			}
			if f.Match(rec) {
				out.Entries = append(out.Entries, describe(page[i].Sequence, rec))
			}
		}
		out.Cursor = next
		if scanned += len(page); scanned >= maxScan {
			break
		}
	}
	rest, _, err := s.cfg.Letters.ReadDLQ(ctx, tenant, out.Cursor, f.Subjects(), 1)
	if err != nil {
		return nil, storeRefusal(err)
	}
	out.More = len(rest) > 0
	return out, nil
}

func (s *Service) dlqShow(ctx context.Context, r *request) (any, error) {
	var req adminapi.DLQShowRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	letter, err := s.cfg.Letters.GetDLQ(ctx, r.caller.Tenant.Name, req.Seq)
	if err != nil {
		return nil, storeRefusal(err)
	}
	rec, err := dlq.Decode(letter.Header, letter.Data)
	if err != nil {
		return nil, wire.Refuse(wire.CodeConflict, "admin", err.Error())
	}
	size := len(rec.Payload)
	if req.Offset < 0 || req.Offset > size {
		return nil, wire.Refuse(wire.CodeRequestMalformed, "admin", "offset is outside the payload")
	}
	n := min(size-req.Offset, adminapi.MaxChunkBytes)
	if req.Limit > 0 {
		n = min(n, req.Limit)
	}
	out := adminapi.DLQShow{DeadLetter: describe(letter.Sequence, rec), Payload: rec.Payload[req.Offset : req.Offset+n], Offset: req.Offset}
	if req.Offset == 0 {
		out.Header = rec.Header
	}
	return out, nil
}

func describe(seq uint64, r *dlq.Record) adminapi.DeadLetter {
	return adminapi.DeadLetter{
		Seq: seq, Time: r.Time, Reason: string(r.Reason), Code: r.Code, Detail: r.Detail, Rule: r.Rule, Ref: r.Ref,
		Stage: string(r.Stage), Principal: r.Principal, Subject: r.NATSSubject,
		Stream: r.Origin.Stream, StreamSeq: r.Origin.Sequence, Consumer: r.Origin.Consumer,
		Attempts: uint64(r.Attempts), Policy: r.Policy, Schema: r.Schema, Violations: r.Violations, Bytes: len(r.Payload),
	}
}

func storeRefusal(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return wire.Refuse(wire.CodeNotFound, "admin", "no such dead letter")
	}
	if errors.Is(err, store.ErrClosed) {
		return wire.Refuse(wire.CodeDraining, "admin", "")
	}
	return err
}
