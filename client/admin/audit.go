package admin

import (
	"context"
	"time"

	"github.com/signetbus/signet/internal/adminapi"
)

// The results and queries of the audit trail.
type (
	// AuditQuery selects records: System, Principal, Kind, Outcome, Since, Until, After,
	// Newest, Limit.
	AuditQuery = adminapi.AuditLsRequest
	// AuditList is a page: Records (docs/spec/audit.md), Cursor, More.
	AuditList = adminapi.AuditList
	// AuditBatches are messages of the trail as they are stored: Tenant, Batches.
	AuditBatches = adminapi.AuditBatches
	// AuditBatch is one of them: Seq, Data.
	AuditBatch = adminapi.AuditBatch
	// AuditSeals are signed heads: Tenant, Seal, Nodes, Silent.
	AuditSeals = adminapi.AuditSeals
	// AuditHeads are heads that a log covers: Tenant, Logged, Recent,
	// Checkpoint, Consistency, Finding, Unlogged.
	AuditHeads = adminapi.AuditHeads
)

// Audit returns the records of the caller's tenant that q selects, oldest first. When
// there are none it waits up to wait (at most MaxWait) for one; to go on, call it again
// with After set to the Cursor of the answer. q.WaitMs is ignored.
func (a *API) Audit(ctx context.Context, q AuditQuery, wait time.Duration) (*AuditList, error) {
	ctx, wait, cancel := waiting(ctx, wait)
	defer cancel()
	q.WaitMs = wait.Milliseconds()
	return call[AuditList](ctx, a, adminapi.SubjectAuditLs, q)
}

// AuditBatches returns the next messages of the trail after a sequence, as they are
// stored; none at its end. system asks for the broker's own trail.
func (a *API) AuditBatches(ctx context.Context, system bool, after uint64) (*AuditBatches, error) {
	return call[AuditBatches](ctx, a, adminapi.SubjectAuditRead, adminapi.AuditReadRequest{System: system, After: after})
}

// AuditSeals returns signed heads of the trail: what to keep elsewhere, and what to
// verify the trail against.
func (a *API) AuditSeals(ctx context.Context, system bool) (*AuditSeals, error) {
	return call[AuditSeals](ctx, a, adminapi.SubjectAuditSeal, adminapi.AuditSealRequest{System: system})
}

// LoggedHeads returns the newest head of each chain of the trail that the nodes have
// published, with the proof that the log of the heads has it. It needs the grant of the area
// audit, with system also of the area cluster.
func LoggedHeads(ctx context.Context, a *API, system bool) (*AuditHeads, error) {
	return LoggedHeadsSince(ctx, a, system, "")
}

// LoggedHeadsSince is LoggedHeads with the proof that the log of the heads begins with a
// signed checkpoint that was kept elsewhere. An empty one asks for no proof.
func LoggedHeadsSince(ctx context.Context, a *API, system bool, checkpoint string) (*AuditHeads, error) {
	return call[AuditHeads](ctx, a, adminapi.SubjectAuditHeads, adminapi.AuditHeadsRequest{System: system, Since: checkpoint})
}
