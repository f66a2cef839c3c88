package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/adminapi"
)

// partAttempts is how often a part is asked for, or sent, before it is given up.
const partAttempts = 5

// closeTimeout bounds the end of a session, which is sent also after the caller's
// context has ended.
const closeTimeout = 5 * time.Second

// Backup writes a backup of the caller's tenant to w and returns how many bytes that
// are. It comes in parts, as fast as w takes them; each request has the timeout of
// the client. tenant must be the caller's own, or empty. What was written is no
// backup unless Backup succeeded: verify it with `signet cluster backup verify`.
//
// Errors: client.ErrDenied without the grant of the area backup, client.ErrConflict
// while another backup or restore of the tenant is under way, and those of w.
func (a *API) Backup(ctx context.Context, tenant string, w io.Writer) (n int64, err error) {
	opened, err := call[adminapi.BackupOpened](ctx, a, adminapi.SubjectBackupOpen, adminapi.BackupOpenRequest{Tenant: tenant})
	if err != nil {
		return 0, err
	}
	defer a.closeSession(ctx, opened.Session)
	for {
		part, err := again[adminapi.BackupPart](ctx, a, adminapi.SubjectBackupRead, adminapi.BackupReadRequest{Session: opened.Session, Offset: n})
		if err != nil {
			return n, err
		}
		if part.Offset != n || len(part.Data) == 0 && !part.EOF {
			return n, errors.New("admin: the parts of the backup do not fit together")
		}
		m, err := w.Write(part.Data)
		n += int64(m)
		if err != nil || part.EOF {
			return n, err
		}
	}
}

// Restore sends a backup of q.Bytes bytes, has it verified and restored into the
// caller's tenant, and returns what was done. Nothing is restored unless everything
// verifies and the streams are new; with q.DryRun nothing is restored at all.
//
// Errors: client.ErrDenied without the grant, client.ErrBadSignature for a backup
// that does not verify, client.ErrConflict for streams that are not empty or not
// declared or while another backup or restore is under way, and those of r.
func (a *API) Restore(ctx context.Context, r io.Reader, q RestoreRequest) (*RestoreReport, error) {
	opened, err := call[adminapi.BackupOpened](ctx, a, adminapi.SubjectBackupRestore, q)
	if err != nil {
		return nil, err
	}
	defer a.closeSession(ctx, opened.Session)
	buf := make([]byte, adminapi.MaxChunkBytes)
	for offset := int64(0); offset < q.Bytes; {
		n, err := io.ReadFull(r, buf[:min(int64(len(buf)), q.Bytes-offset)])
		if err != nil {
			return nil, fmt.Errorf("admin: read the backup at %d: %w", offset+int64(n), err)
		}
		written, err := again[adminapi.RestoreWritten](ctx, a, adminapi.SubjectBackupWrite,
			adminapi.RestoreWriteRequest{Session: opened.Session, Offset: offset, Data: buf[:n]})
		if err != nil {
			return nil, err
		}
		if offset += int64(n); written.Offset != offset {
			return nil, errors.New("admin: the broker lost a part of the backup")
		}
	}
	if _, err := again[adminapi.RestoreProgress](ctx, a, adminapi.SubjectBackupApply, adminapi.BackupSessionRequest{Session: opened.Session}); err != nil {
		return nil, err
	}
	for {
		p, err := again[adminapi.RestoreProgress](ctx, a, adminapi.SubjectBackupProgress,
			adminapi.RestoreProgressRequest{Session: opened.Session, WaitMs: time.Second.Milliseconds()})
		if err != nil {
			return nil, err
		}
		if p.Phase == adminapi.RestoreDone && p.Report != nil {
			return p.Report, nil
		}
	}
}

// again repeats a request that may be repeated while the broker cannot be reached:
// the session knows what it has given and taken.
func again[T any](ctx context.Context, a *API, subject string, request any) (*T, error) {
	for attempt := 1; ; attempt++ {
		result, err := call[T](ctx, a, subject, request)
		if err == nil || attempt == partAttempts || !client.Retryable(err) || ctx.Err() != nil {
			return result, err
		}
		select {
		case <-time.After(time.Duration(attempt) * 200 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// closeSession ends a session at once; without it, it would end a while later.
func (a *API) closeSession(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_, _ = call[struct{}](ctx, a, adminapi.SubjectBackupClose, adminapi.BackupSessionRequest{Session: id})
}
