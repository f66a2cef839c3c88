package admin

import (
	"context"
	"errors"
	"fmt"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/adminapi"
)

// What the area log answers.
type (
	LogStatus     = adminapi.LogStatus
	LogCheckpoint = adminapi.LogCheckpoint
	LogVerified   = adminapi.LogVerified
	LogFinding    = adminapi.LogFinding
)

// Logs returns the logs of the caller's tenant.
func (a *API) Logs(ctx context.Context) ([]LogStatus, error) {
	list, err := call[adminapi.LogList](ctx, a, adminapi.SubjectLogLs, nil)
	if err != nil {
		return nil, err
	}
	return list.Logs, nil
}

// LogCheckpoint returns the last checkpoint of a stream's log. Verify its signature:
// signing/tlog.
//
// Errors: client.ErrNotFound for a stream without a log.
func (a *API) LogCheckpoint(ctx context.Context, stream string) (*LogCheckpoint, error) {
	return call[LogCheckpoint](ctx, a, adminapi.SubjectLogCheckpoint, adminapi.LogStreamRequest{Stream: stream})
}

// LogVerify has a part of a stream compared with its log, from the sequence from on; ask
// again from Next until it is End. checkpoint may be empty: the last one.
//
// Errors: client.ErrConflict where the log itself is not whole.
func (a *API) LogVerify(ctx context.Context, stream, checkpoint string, from uint64) (*LogVerified, error) {
	return call[LogVerified](ctx, a, adminapi.SubjectLogVerify, adminapi.LogVerifyRequest{Stream: stream, Checkpoint: checkpoint, From: from})
}

// LogConsistency returns the hashes that prove that newer only appends to older.
func (a *API) LogConsistency(ctx context.Context, older, newer string) ([][]byte, error) {
	r, err := call[adminapi.LogConsistency](ctx, a, adminapi.SubjectLogConsistency, adminapi.LogConsistencyRequest{Old: older, New: newer})
	if err != nil {
		return nil, err
	}
	return r.Hashes, nil
}

// LogFind returns the sequence of the event with an id.
//
// Errors: client.ErrNotFound.
func (a *API) LogFind(ctx context.Context, stream, id string) (uint64, error) {
	for from := uint64(1); ; {
		r, err := call[adminapi.LogFound](ctx, a, adminapi.SubjectLogFind, adminapi.LogFindRequest{Stream: stream, ID: id, From: from})
		switch {
		case err != nil:
			return 0, err
		case r.Sequence > 0:
			return r.Sequence, nil
		case r.Next <= from:
			return 0, fmt.Errorf("admin: %w: no event with the id %q in %s", client.ErrNotFound, id, stream)
		}
		from = r.Next
	}
}

// LogProve returns the proof of the sequences first to last. Verify it: signing/tlog.
func (a *API) LogProve(ctx context.Context, stream string, first, last uint64) ([]byte, error) {
	made, err := call[adminapi.LogProof](ctx, a, adminapi.SubjectLogProve, adminapi.LogProveRequest{Stream: stream, First: first, Last: last})
	if err != nil {
		return nil, err
	}
	var doc []byte
	for len(doc) < made.Bytes {
		part, err := call[adminapi.LogPart](ctx, a, adminapi.SubjectLogPart, adminapi.LogPartRequest{ID: made.ID, Offset: len(doc)})
		if err != nil {
			return nil, err
		}
		if part.Offset != len(doc) || len(part.Data) == 0 || len(part.Data) > made.Bytes-len(doc) {
			return nil, errors.New("admin: the parts of the proof do not fit together")
		}
		doc = append(doc, part.Data...)
	}
	return doc, nil
}

// LogRestart begins a new log of a stream, when the old one stands still and somebody has
// looked at why.
func (a *API) LogRestart(ctx context.Context, stream string) error {
	_, err := call[struct{}](ctx, a, adminapi.SubjectLogRestart, adminapi.LogStreamRequest{Stream: stream})
	return err
}
