package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/signetbus/signet/broker/redrive"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/dlq"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

// Redrives works the dead letters of all tenants; *redrive.Redriver does.
type Redrives interface {
	// State is where the dead letters of a tenant are.
	State(ctx context.Context, tenant string) (store.DLQState, error)
	// Remove takes one away.
	Remove(ctx context.Context, tenant string, seq uint64) (removed bool, err error)
	// Letter redrives one.
	Letter(ctx context.Context, d *store.DeadLetter, o *redrive.Order) (adminapi.Redriven, error)
}

// workFor bounds the work on one page: the caller waits for the answer.
const workFor = 2 * time.Second

// dlqName tells the dead letters of a tenant from those of another cluster, and from those
// of the same name that were made anew: the numbers of one mean nothing in the other.
func dlqName(tenant string, st *store.DLQState) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d", tenant, st.Created.UnixNano()))
	return hex.EncodeToString(sum[:8])
}

// worked is what all verbs on many letters begin with: the filter, and the state, checked
// against what the caller believes to work on.
func worked(s *Service, ctx context.Context, r *request, q *adminapi.DLQFilter, name string) (f dlq.Filter, st store.DLQState, is string, err error) {
	if f, err = filterOf(r, q); err != nil {
		return f, st, "", err
	}
	tenant := r.caller.Tenant.Name
	if st, err = s.cfg.Letters.State(ctx, tenant); err != nil {
		return f, st, "", storeRefusal(err)
	}
	is = dlqName(tenant, &st)
	if name != "" && name != is {
		return f, st, is, wire.Refuse(wire.CodeConflict, "dlq", "the cursor is of other dead letters ("+name+", these are "+is+"): of another cluster or tenant, or from before they were made anew; begin without it")
	}
	return f, st, is, nil
}

func dlqStats(s *Service, ctx context.Context, r *request) (any, error) {
	var req adminapi.DLQStatsRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	tenant := r.caller.Tenant.Name
	f, st, name, err := worked(s, ctx, r, &req.DLQFilter, "")
	if err != nil {
		return nil, err
	}
	out := adminapi.DLQStats{
		DLQ: name, Messages: st.Messages, Bytes: st.Bytes, MaxBytes: st.MaxBytes, Last: st.Last, Kept: st.Kept,
		Reasons: map[string]uint64{}, Subjects: map[string]uint64{}, Principals: map[string]uint64{}, Types: map[string]uint64{}, Consumers: map[string]uint64{},
	}
	if ownOnly(r) {
		out.Messages, out.Bytes, out.MaxBytes = 0, 0, 0 // of all principals
	}
	c := scan{s: s, r: r, tenant: tenant, filter: f, cursor: req.Cursor, upTo: st.Last}
	for until := time.Now().Add(workFor); time.Now().Before(until); {
		letters, records, err := c.next(ctx, adminapi.MaxListLimit)
		if err != nil {
			return nil, err
		}
		if len(letters) == 0 {
			break
		}
		for i, rec := range records {
			d := describe(&letters[i], rec)
			countLetter(&out, &d)
		}
	}
	for _, rows := range []*map[string]uint64{&out.Subjects, &out.Principals, &out.Types, &out.Consumers} {
		*rows = most(*rows, adminapi.MaxStatRows)
	}
	out.Cursor = c.cursor
	out.More, err = c.more(ctx)
	return out, err
}

func countLetter(out *adminapi.DLQStats, d *adminapi.DeadLetter) {
	out.Matched++
	out.Size += uint64(d.Bytes)
	if out.Oldest.IsZero() || d.Time.Before(out.Oldest) {
		out.Oldest = d.Time
	}
	if d.Time.After(out.Newest) {
		out.Newest = d.Time
	}
	out.Reasons[d.Reason]++
	out.Subjects[d.Subject]++
	if d.Principal != "" {
		out.Principals[d.Principal]++
	}
	if d.Type != "" {
		out.Types[d.Type]++
	}
	if d.Consumer != "" {
		out.Consumers[d.Stream+"."+d.Consumer]++
	}
}

// most keeps the largest rows, and puts the others together.
func most(rows map[string]uint64, n int) map[string]uint64 {
	if len(rows) <= n {
		return rows
	}
	names := slices.SortedFunc(maps.Keys(rows), func(a, b string) int {
		if rows[a] != rows[b] {
			return int(min(max(int64(rows[b])-int64(rows[a]), -1), 1))
		}
		return slices.Compare([]byte(a), []byte(b))
	})
	out := map[string]uint64{}
	for i, name := range names {
		if i >= n-1 {
			name = "other"
		}
		out[name] += rows[names[i]]
	}
	return out
}

func dlqPurge(s *Service, ctx context.Context, r *request) (any, error) {
	var req adminapi.DLQPurgeRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	if !req.DryRun && !req.Confirm {
		return nil, wire.Refuse(wire.CodeRequestMalformed, "dlq", "a purge takes letters away for ever: look with dryRun, then confirm")
	}
	tenant := r.caller.Tenant.Name
	f, st, name, err := worked(s, ctx, r, &req.DLQFilter, req.DLQ)
	if err != nil {
		return nil, err
	}
	if st.Kept && !req.DryRun {
		return nil, storeRefusal(store.ErrKept)
	}
	out := adminapi.DLQPurged{DLQ: name, Cursor: req.Cursor, UpTo: req.UpTo}
	if out.UpTo == 0 {
		out.UpTo = st.Last
	}
	if req.Seq > 0 {
		if _, err := s.cfg.Letters.GetDLQ(ctx, tenant, req.Seq); err != nil {
			return nil, storeRefusal(err)
		}
		req.Cursor, out.UpTo = req.Seq-1, req.Seq
	}
	c := scan{s: s, r: r, tenant: tenant, filter: f, cursor: req.Cursor, upTo: out.UpTo}
	for until := time.Now().Add(workFor); out.Purged < adminapi.MaxPurge && time.Now().Before(until); {
		letters, records, err := c.next(ctx, min(100, adminapi.MaxPurge-int(out.Purged)))
		if err != nil {
			return nil, err
		}
		if len(letters) == 0 {
			break
		}
		for i := range letters {
			if !req.DryRun {
				if _, err := s.cfg.Letters.Remove(ctx, tenant, letters[i].Sequence); err != nil {
					return nil, storeRefusal(err)
				}
			}
			out.Purged++
			out.Bytes += uint64(len(records[i].Payload))
		}
	}
	if out.Purged > 0 && !req.DryRun {
		s.cfg.Trail.Event("dlq-purged", tenant, r.Principal, "", fmt.Sprintf("%d dead letters up to %d", out.Purged, c.cursor))
	}
	out.Cursor = c.cursor
	out.More, err = c.more(ctx)
	return out, err
}

func checkRedrive(r *request, req *adminapi.DLQRedriveRequest) error {
	refuse := func(detail string) error { return wire.Refuse(wire.CodeRequestMalformed, "dlq", detail) }
	switch {
	case req.To != "" && req.To != adminapi.RedriveConsumer && req.To != adminapi.RedriveAll:
		return refuse("to: want consumer or all")
	case req.Payload != nil && (req.Seq == 0 || req.To != adminapi.RedriveAll):
		return refuse("a fixed payload is a new event to all, in place of one letter: say seq and to: all")
	case ownOnly(r) && req.Most > adminapi.DefaultRedrives:
		return wire.Refuse(wire.CodeAdminDenied, "default-deny/admin", "more redrives than the default need the area dlq")
	case req.Limit < 0 || req.Limit > adminapi.MaxRedrive, req.Most < 0:
		return refuse(fmt.Sprintf("limit: 1 to %d; most: not negative", adminapi.MaxRedrive))
	}
	if ownOnly(r) && req.Force {
		return wire.Refuse(wire.CodeAdminDenied, "default-deny/admin", "force needs the area dlq")
	}
	return nil
}

func dlqRedrive(s *Service, ctx context.Context, r *request) (any, error) {
	var req adminapi.DLQRedriveRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	if err := checkRedrive(r, &req); err != nil {
		return nil, err
	}
	tenant := r.caller.Tenant.Name
	f, st, name, err := worked(s, ctx, r, &req.DLQFilter, req.DLQ)
	if err != nil {
		return nil, err
	}
	if st.Kept && !req.DryRun {
		return nil, storeRefusal(store.ErrKept)
	}
	order := &redrive.Order{By: r.caller, To: req.To, DryRun: req.DryRun, Force: req.Force, Most: req.Most, Payload: req.Payload, Own: ownOnly(r)}
	if order.To == "" {
		order.To = adminapi.RedriveConsumer
	}
	out := &adminapi.DLQRedriven{DLQ: name, Letters: []adminapi.Redriven{}, Cursor: req.Cursor, UpTo: req.UpTo}
	if req.Seq > 0 {
		d, _, err := letterFor(s, ctx, r, req.Seq)
		if err != nil {
			return nil, err
		}
		done, err := s.cfg.Letters.Letter(ctx, d, order)
		if err != nil {
			return nil, redriveRefusal(req.Seq, err)
		}
		out.Letters = append(out.Letters, done)
		return out, nil
	}
	// Those that come back while this goes on are not redriven in the same run.
	if out.UpTo == 0 {
		out.UpTo = st.Last
	}
	c := scan{s: s, r: r, tenant: tenant, filter: f, cursor: req.Cursor, upTo: out.UpTo}
	if req.Limit == 0 {
		req.Limit = adminapi.MaxRedrive
	}
	if err := redrivePage(ctx, s, &c, order, req.Limit, out); err != nil {
		return nil, err
	}
	if out.Stopped != "" {
		out.More = true
		return out, nil
	}
	out.Cursor = c.cursor
	out.More, err = c.more(ctx)
	return out, err
}

// redrivePage redrives what the scan finds, up to a letter that cannot be because nothing
// can: out.Cursor is before that one then.
func redrivePage(ctx context.Context, s *Service, c *scan, o *redrive.Order, most int, out *adminapi.DLQRedriven) error {
	for until := time.Now().Add(workFor); len(out.Letters) < most && time.Now().Before(until); {
		letters, _, err := c.next(ctx, most-len(out.Letters))
		if err != nil {
			return err
		}
		if len(letters) == 0 {
			return nil
		}
		for i := range letters {
			// One at least, however slow the store is: else a run would never come on.
			if len(out.Letters) > 0 && time.Now().After(until) {
				c.cursor, c.ended = letters[i].Sequence-1, false
				return nil
			}
			done, err := s.cfg.Letters.Letter(ctx, &letters[i], o)
			switch {
			case err != nil && len(out.Letters) == 0:
				return redriveRefusal(letters[i].Sequence, err)
			case err != nil:
				out.Stopped = redriveRefusal(letters[i].Sequence, err).Error()
				return nil
			}
			out.Letters = append(out.Letters, done)
			if done.Verdict == adminapi.VerdictFull {
				out.Stopped = fmt.Sprintf("dead letter %d: %s", done.Letter, done.Detail)
				return nil
			}
			out.Cursor = letters[i].Sequence
		}
	}
	return nil
}

// redriveRefusal is what a caller learns of an error of the store midway.
func redriveRefusal(letter uint64, err error) error {
	var known *wire.Refusal
	if errors.As(storeRefusal(err), &known) {
		return known
	}
	if errors.Is(err, store.ErrServer) || errors.Is(err, context.DeadlineExceeded) {
		return wire.Refuse(wire.CodeUnavailable, "dlq", fmt.Sprintf("dead letter %d: the store did not answer, or refused; nothing is lost, and to try again is harmless: %v", letter, err))
	}
	return err
}
