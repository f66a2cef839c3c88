package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/audit"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/internal/wire"
)

// Recording is the audit trail as the admin API uses it.
type Recording struct {
	Journal *audit.Journal
	Minute  *audit.Minute
	Records *audit.Records
	// Heads returns the heads of a tenant's trail that a log covers, and the proof that the
	// log begins with a checkpoint, if one is given; nil: there is no log.
	Heads func(ctx context.Context, tenant, since string) (adminapi.AuditHeads, error)
	// Unaudited lets changes through that cannot be put on record.
	Unaudited bool
}

// keepWithin bounds the wait for the record of a change: the caller waits too.
const keepWithin = 3 * time.Second

// reads are the calls that change nothing and hand nothing out that is not the
// administrator's daily view: equal ones are gathered for a minute. What is missing
// here is taken for a change, which must be on record before it is tried.
var reads = map[string]bool{
	adminapi.SubjectAuditLs: true, adminapi.SubjectAuditRead: true, adminapi.SubjectAuditSeal: true, adminapi.SubjectAuditHeads: true,
	adminapi.SubjectBackupRead: true, adminapi.SubjectBackupWrite: true, adminapi.SubjectBackupProgress: true,
	adminapi.SubjectClusterStatus: true,
	adminapi.SubjectDLQLs:         true, adminapi.SubjectDLQShow: true, adminapi.SubjectDLQStats: true,
	adminapi.SubjectKeysLs:     true,
	adminapi.SubjectPolicyCanI: true, adminapi.SubjectPolicyCheck: true, adminapi.SubjectPolicyExplain: true,
	adminapi.SubjectRefusalsLs:      true,
	adminapi.SubjectSchedulesLs:     true,
	adminapi.SubjectStatusConsumers: true, adminapi.SubjectStatusGet: true,
}

// begun puts a change on record before it is tried, and refuses it where that cannot
// be.
func (rec *Recording) begun(ctx context.Context, c *call) error {
	if rec == nil || c.forwarded || reads[c.Subject] || c.Subject == adminapi.SubjectKeysRing {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, keepWithin)
	defer cancel()
	err := rec.Journal.Keep(ctx, entryOf(c, auditlog.OutcomeBegun))
	if err == nil || rec.Unaudited {
		return nil
	}
	why := err.Error()
	if errors.Is(err, context.DeadlineExceeded) {
		// The first record of a tenant on this node waits for what the stream has of it.
		why = fmt.Sprintf("not within %s: the stream AUDIT has no leader now, or the disk is slow; try again", keepWithin)
	}
	return wire.Refuse(wire.CodeUnavailable, "audit", "a change must be on record before it is tried: "+why)
}

// ended puts the outcome of a call on record.
func (rec *Recording) ended(c *call, err error) {
	if rec == nil || c.forwarded || c.Subject == adminapi.SubjectKeysRing && (err == nil || errors.Is(err, errWaits)) {
		return
	}
	e := entryOf(c, auditlog.OutcomeOK)
	if err != nil {
		r := wire.AsRefusal(err)
		e.Outcome, e.Code, e.Rule = auditlog.OutcomeFailed, r.Code, r.Rule
		if class := r.Code.Class(); class == wire.ClassPermissionDenied || class == wire.ClassUnauthenticated {
			e.Outcome = auditlog.OutcomeRefused
		}
		e.Detail = strings.TrimSpace(e.Detail + " " + r.Detail)
	}
	if e.Outcome == auditlog.OutcomeRefused || gathered(c) {
		rec.Minute.Count(e)
		return
	}
	rec.Journal.Note(e)
}

// gathered says whether equal calls of a minute are one record. dlq.show hands out a
// payload, so it is not.
func gathered(c *call) bool { return reads[c.Subject] && c.Subject != adminapi.SubjectDLQShow }

func entryOf(c *call, outcome auditlog.Outcome) auditlog.Entry {
	e := auditlog.Entry{
		Tenant: c.Tenant, Kind: auditlog.KindAdmin, Outcome: outcome, Who: c.Principal,
		Subject: strings.TrimPrefix(c.Subject, wire.PrefixAdmin),
	}
	if !gathered(c) {
		e.Detail = arguments(c.Body)
	}
	return e
}

// named are the members of requests that go on record: names and numbers, never
// contents; of a document its digest.
var named = []string{"name", "spec", "node", "lost", "to", "tenant", "principal", "stream", "consumer", "seq", "ref", "session", "dryRun", "confirm", "bytes", "id", "version", "trustRoot", "skip", "system", "reason", "subject", "cursor", "upTo", "limit", "force", "cutOff"}

// arguments says what a call was about.
func arguments(body []byte) string {
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return ""
	}
	var out []string
	for _, name := range named {
		if v, ok := members[name]; ok && len(v) <= 128 {
			out = append(out, name+"="+string(v))
		}
	}
	// A keyring or a policy that was brought. The record of a keyring that came into force has
	// the same digest, and not who brought it: that is the trail of a tenant.
	var doc []byte
	if v, ok := members["document"]; ok && json.Unmarshal(v, &doc) == nil && len(doc) > 0 {
		sum := sha256.Sum256(doc)
		out = append(out, "document="+hex.EncodeToString(sum[:]))
	}
	return strings.Join(out, " ")
}

// auditVerbs are the handlers of the area audit.
type auditVerbs struct{ *Service }

// audited makes a handler of one of them.
func audited(verb func(auditVerbs, context.Context, *request) (any, error)) handler {
	return func(s *Service, ctx context.Context, r *request) (any, error) { return verb(auditVerbs{s}, ctx, r) }
}

// trailOf is the tenant whose trail a caller asks for.
func (s auditVerbs) trailOf(r *request, system bool) (string, error) {
	if s.cfg.Recording == nil {
		return "", wire.Refuse(wire.CodeNotFound, "admin", "this broker keeps no audit trail")
	}
	if !system {
		return r.caller.Tenant.Name, nil
	}
	if !acl.Admin(r.caller, adminapi.AreaCluster).Allowed {
		return "", wire.Refuse(wire.CodeAdminDenied, "default-deny/admin", "the broker's own trail needs the area cluster beside audit")
	}
	return auditlog.SystemTenant, nil
}

func (s auditVerbs) ls(ctx context.Context, r *request) (any, error) {
	var req adminapi.AuditLsRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	tenant, err := s.trailOf(r, req.System)
	if err != nil {
		return nil, err
	}
	records := s.cfg.Recording.Records
	out := adminapi.AuditList{Records: []json.RawMessage{}}
	if req.Newest {
		out.Cursor, err = records.Newest(ctx, tenant)
		return out, unavailable(err)
	}
	q := audit.Query{
		Tenant: tenant, Who: req.Principal, Kind: auditlog.Kind(req.Kind), Outcome: auditlog.Outcome(req.Outcome),
		Since: req.Since, Until: req.Until, After: req.After, Limit: limit(req.Limit),
	}
	if q.Who != "" && !req.System {
		if q.Who, err = r.ofTenant(q.Who); err != nil {
			return nil, err
		}
		q.Who = tenant + "/" + q.Who
	}
	page, err := records.List(ctx, q)
	if err == nil && len(page.Records) == 0 && !page.More && req.WaitMs > 0 {
		poll, cancel := context.WithTimeout(ctx, time.Duration(min(req.WaitMs, adminapi.MaxWaitMs))*time.Millisecond)
		defer cancel()
		q.After, q.Since = page.Cursor, req.Since
		page, err = records.Follow(poll, q)
	}
	if err != nil {
		return nil, unavailable(err)
	}
	for i := range page.Records {
		line, err := page.Records[i].Encode()
		if err != nil {
			return nil, err
		}
		out.Records = append(out.Records, line)
	}
	out.Cursor, out.More = page.Cursor, page.More
	return out, nil
}

func (s auditVerbs) read(ctx context.Context, r *request) (any, error) {
	var req adminapi.AuditReadRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	tenant, err := s.trailOf(r, req.System)
	if err != nil {
		return nil, err
	}
	list, err := s.cfg.Recording.Records.Batches(ctx, tenant, req.After)
	if err != nil {
		return nil, unavailable(err)
	}
	out := adminapi.AuditBatches{Tenant: tenant, Batches: []adminapi.AuditBatch{}}
	for i := range list {
		out.Batches = append(out.Batches, adminapi.AuditBatch{Seq: list[i].Seq, Data: list[i].Data})
	}
	return out, nil
}

// seal asks every node how far it is: only a node itself knows of records that
// were cut off at the end of its chain.
func (s auditVerbs) seal(ctx context.Context, r *request) (any, error) {
	var req adminapi.AuditSealRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	tenant, err := s.trailOf(r, req.System)
	if err != nil {
		return nil, err
	}
	seal, err := s.cfg.Recording.Records.Seal(ctx, tenant, !r.forwarded)
	if err != nil {
		return nil, unavailable(err)
	}
	out := adminapi.AuditSeals{Tenant: tenant, Seal: string(seal)}
	if s.cfg.Nodes == nil || r.forwarded {
		return out, nil
	}
	out.Silent = askOthers(s.Service, ctx, r, func(theirs *adminapi.AuditSeals) { out.Nodes = append(out.Nodes, theirs.Seal) })
	return out, nil
}

// heads hands out what the log of the heads has of the caller's trail, and nothing of the
// trails of other tenants.
func (s auditVerbs) heads(ctx context.Context, r *request) (any, error) {
	var req adminapi.AuditHeadsRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	tenant, err := s.trailOf(r, req.System)
	if err != nil {
		return nil, err
	}
	if s.cfg.Recording.Heads == nil {
		return adminapi.AuditHeads{Tenant: tenant, Unlogged: "this broker keeps no log of the heads"}, nil
	}
	out, err := s.cfg.Recording.Heads(ctx, tenant, req.Since)
	return out, unavailable(err)
}

// unavailable is what a caller learns of an error of the stream.
func unavailable(err error) error {
	if err == nil {
		return nil
	}
	return wire.Refuse(wire.CodeUnavailable, "audit", fmt.Sprintf("the trail cannot be read: %v", err))
}
