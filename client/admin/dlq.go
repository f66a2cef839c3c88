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

// DLQ works the dead letters, beside API.DLQList and API.DLQShow.
type DLQ struct{ a *API }

// DLQOf returns the part of the API that is about working dead letters.
func DLQOf(a *API) DLQ { return DLQ{a} }

// Stats counts dead letters. One call looks at a part of them: with More, the next one
// is that after Cursor.
func (d DLQ) Stats(ctx context.Context, q DLQStatsQuery) (*DLQStats, error) {
	return call[DLQStats](ctx, d.a, adminapi.SubjectDLQStats, q)
}

// Purge takes a page of dead letters away for ever. With More, call it again with the DLQ,
// Cursor and UpTo of the result.
//
// Errors: client.ErrMalformed without Confirm or DryRun, or for a filter that is none;
// client.ErrConflict where the dead letters are not those of q.DLQ, or were made by a
// release that lets nothing be taken away.
func (d DLQ) Purge(ctx context.Context, q PurgeRequest) (*Purged, error) {
	return call[Purged](ctx, d.a, adminapi.SubjectDLQPurge, q)
}

// Redrive redrives a page of dead letters, or says what would become of them (DryRun). With
// More, call it again with the DLQ, Cursor and UpTo of the result. A letter that was not
// redriven stays where it is; to call again is harmless, also when the answer was lost.
//
// Errors: client.ErrNotFound for a q.Seq that is not there; client.ErrMalformed for a
// filter that is none; client.ErrConflict where the dead letters are not those of q.DLQ, or
// were made by a release that lets nothing be taken away.
func (d DLQ) Redrive(ctx context.Context, q RedriveRequest) (*RedrivePage, error) {
	return call[RedrivePage](ctx, d.a, adminapi.SubjectDLQRedrive, q)
}
