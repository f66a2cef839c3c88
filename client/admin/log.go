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

// LogAPI asks about the logs of the caller's tenant. It needs the grant of the area log.
type LogAPI struct{ a *API }

// Log returns the calls of the area log.
func (a *API) Log() *LogAPI { return &LogAPI{a} }

// List returns the logs of the caller's tenant.
func (l *LogAPI) List(ctx context.Context) ([]LogStatus, error) {
	list, err := call[adminapi.LogList](ctx, l.a, adminapi.SubjectLogLs, nil)
	if err != nil {
		return nil, err
	}
	return list.Logs, nil
}

// Checkpoint returns the last checkpoint of a stream's log. Verify its signature:
// signing/tlog.
//
// Errors: client.ErrNotFound for a stream without a log.
func (l *LogAPI) Checkpoint(ctx context.Context, stream string) (*LogCheckpoint, error) {
	return call[LogCheckpoint](ctx, l.a, adminapi.SubjectLogCheckpoint, adminapi.LogStreamRequest{Stream: stream})
}

// Verify has a part of a stream compared with its log, from the sequence from on; ask
// again from Next until it is End. checkpoint may be empty: the last one.
//
// Errors: client.ErrConflict where the log itself is not whole.
func (l *LogAPI) Verify(ctx context.Context, stream, checkpoint string, from uint64) (*LogVerified, error) {
	return call[LogVerified](ctx, l.a, adminapi.SubjectLogVerify, adminapi.LogVerifyRequest{Stream: stream, Checkpoint: checkpoint, From: from})
}

// Consistency returns the hashes that prove that newer only appends to older.
func (l *LogAPI) Consistency(ctx context.Context, older, newer string) ([][]byte, error) {
	r, err := call[adminapi.LogConsistency](ctx, l.a, adminapi.SubjectLogConsistency, adminapi.LogConsistencyRequest{Old: older, New: newer})
	if err != nil {
		return nil, err
	}
	return r.Hashes, nil
}

// Find returns the sequence of the event with an id.
//
// Errors: client.ErrNotFound.
func (l *LogAPI) Find(ctx context.Context, stream, id string) (uint64, error) {
	for from := uint64(1); ; {
		r, err := call[adminapi.LogFound](ctx, l.a, adminapi.SubjectLogFind, adminapi.LogFindRequest{Stream: stream, ID: id, From: from})
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

// Prove returns the proof of the sequences first to last. Verify it: signing/tlog.
func (l *LogAPI) Prove(ctx context.Context, stream string, first, last uint64) ([]byte, error) {
	made, err := call[adminapi.LogProof](ctx, l.a, adminapi.SubjectLogProve, adminapi.LogProveRequest{Stream: stream, First: first, Last: last})
	if err != nil {
		return nil, err
	}
	var doc []byte
	for len(doc) < made.Bytes {
		part, err := call[adminapi.LogPart](ctx, l.a, adminapi.SubjectLogPart, adminapi.LogPartRequest{ID: made.ID, Offset: len(doc)})
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

// Restart begins a new log of a stream, when the old one stands still and somebody has
// looked at why. It needs the grant of the area streams, too.
func (l *LogAPI) Restart(ctx context.Context, stream string) error {
	_, err := call[struct{}](ctx, l.a, adminapi.SubjectLogRestart, adminapi.LogStreamRequest{Stream: stream})
	return err
}
