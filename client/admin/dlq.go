package admin

import (
	"context"

	"github.com/signetbus/signet/internal/adminapi"
)

// Targets of a redrive.
const (
	RedriveConsumer = adminapi.RedriveConsumer // the consumer that failed, alone: the default
	RedriveAll      = adminapi.RedriveAll      // everybody who reads the subject
)

// Verdicts on one dead letter; all but VerdictRedriven leave it where it is.
const (
	VerdictWould       = adminapi.VerdictWould
	VerdictRedriven    = adminapi.VerdictRedriven
	VerdictRefused     = adminapi.VerdictRefused
	VerdictGone        = adminapi.VerdictGone
	VerdictExpired     = adminapi.VerdictExpired
	VerdictQuarantined = adminapi.VerdictQuarantined
	VerdictUncertain   = adminapi.VerdictUncertain
	VerdictFull        = adminapi.VerdictFull
	VerdictUnsupported = adminapi.VerdictUnsupported
)

// DLQStats counts dead letters. One call looks at a part of them: with More, the next one
// is that after Cursor.
func (a *API) DLQStats(ctx context.Context, q DLQStatsQuery) (*DLQStats, error) {
	return call[DLQStats](ctx, a, adminapi.SubjectDLQStats, q)
}

// Purge takes a page of dead letters away for ever. With More, call it again with the DLQ,
// Cursor and UpTo of the result.
//
// Errors: client.ErrMalformed without Confirm or DryRun, or for a filter that is none;
// client.ErrConflict where the dead letters are not those of q.DLQ, or were made by a
// release that lets nothing be taken away.
func (a *API) Purge(ctx context.Context, q PurgeRequest) (*Purged, error) {
	return call[Purged](ctx, a, adminapi.SubjectDLQPurge, q)
}

// Redrive redrives a page of dead letters, or says what would become of them (DryRun). With
// More, call it again with the DLQ, Cursor and UpTo of the result. A letter that was not
// redriven stays where it is; to call again is harmless, also when the answer was lost.
//
// Errors: client.ErrNotFound for a q.Seq that is not there; client.ErrMalformed for a
// filter that is none; client.ErrConflict where the dead letters are not those of q.DLQ, or
// were made by a release that lets nothing be taken away.
func (a *API) Redrive(ctx context.Context, q RedriveRequest) (*RedrivePage, error) {
	return call[RedrivePage](ctx, a, adminapi.SubjectDLQRedrive, q)
}
