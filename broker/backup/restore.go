package backup

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/backupfile"
	"github.com/signetbus/signet/internal/wire"
)

const (
	spoolPattern = "restore-*.part"
	// diskReserve is what must stay free on the volume beside a restore, so that it
	// does not take the room of what is published meanwhile.
	diskReserve = 64 << 20
)

// receiving is a restore: a file that comes in parts, and what is done with it.
type receiving struct {
	request adminapi.RestoreRequest

	mu     sync.Mutex
	spool  *os.File // nil once it was given up
	offset int64
	phase  string
	report *adminapi.RestoreReport
	err    error         // of what was applied
	done   chan struct{} // closed when phase is done or err is there
}

// Restore begins to receive a backup for the caller's tenant.
func (s *Service) Restore(_ context.Context, caller *policy.Principal, q adminapi.RestoreRequest) (adminapi.BackupOpened, error) {
	most := store.NodeBytes(caller.Tenant)
	most += most/8 + diskReserve
	if q.Bytes <= 0 || q.Bytes > most {
		return adminapi.BackupOpened{}, wire.Refuse(wire.CodeConflict, "backup",
			fmt.Sprintf("the file has %d bytes; with what the policy gives the streams of this tenant it can have 1 to %d", q.Bytes, most))
	}
	return s.open(caller, q.Tenant, func(x *session) error {
		if err := s.room(q.Bytes); err != nil {
			return err
		}
		spool, err := s.spool()
		if err != nil {
			return err
		}
		x.restore = &receiving{request: q, spool: spool, phase: adminapi.RestoreReceiving, done: make(chan struct{})}
		return nil
	})
}

// spool makes a file that is gone when it is closed, however the process ends.
func (s *Service) spool() (*os.File, error) {
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	f, err := os.CreateTemp(s.cfg.Dir, spoolPattern)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	// Where an open file keeps its name, release and the next start remove it.
	_ = os.Remove(f.Name())
	return f, nil
}

// room refuses what would fill the volume.
func (s *Service) room(bytes int64) error {
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	free, ok := diskFree(s.cfg.Dir)
	if ok && free < uint64(bytes)+diskReserve {
		return wire.Refuse(wire.CodeConflict, "backup", fmt.Sprintf("%d bytes are free on the volume of the broker, %d are needed", free, bytes+diskReserve))
	}
	return nil
}

func (r *receiving) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.spool != nil && r.phase == adminapi.RestoreReceiving {
		r.closeLocked()
	}
}

func (r *receiving) closeLocked() {
	_ = r.spool.Close() // nobody will read it
	_ = os.Remove(r.spool.Name())
	r.spool = nil
}

// applying reports whether a restore is at work.
func (r *receiving) applying() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.phase == adminapi.RestoreVerifying || r.phase == adminapi.RestoreApplying
}

// restoring finds the caller's restore.
func (s *Service) restoring(caller *policy.Principal, id string) (*session, error) {
	x, err := s.find(caller, id)
	if err == nil && x.restore == nil {
		err = wire.Refuse(wire.CodeConflict, "backup", "the session is of a backup")
	}
	return x, err
}

// Write takes the next part. One that was taken before is not taken again.
func (s *Service) Write(_ context.Context, caller *policy.Principal, q adminapi.RestoreWriteRequest) (adminapi.RestoreWritten, error) {
	x, err := s.restoring(caller, q.Session)
	if err != nil {
		return adminapi.RestoreWritten{}, err
	}
	r := x.restore
	r.mu.Lock()
	defer r.mu.Unlock()
	end := q.Offset + int64(len(q.Data))
	switch {
	case r.phase != adminapi.RestoreReceiving || r.spool == nil:
		return adminapi.RestoreWritten{}, wire.Refuse(wire.CodeConflict, "backup", "the restore takes no more parts")
	case len(q.Data) == 0 || len(q.Data) > adminapi.MaxChunkBytes || q.Offset < 0:
		return adminapi.RestoreWritten{}, wire.Refuse(wire.CodeRequestMalformed, "backup", fmt.Sprintf("a part has 1 to %d bytes", adminapi.MaxChunkBytes))
	case end <= r.offset: // a repetition
		return adminapi.RestoreWritten{Offset: r.offset}, nil
	case q.Offset != r.offset:
		return adminapi.RestoreWritten{}, wire.Refuse(wire.CodeConflict, "backup", fmt.Sprintf("the next part is at offset %d", r.offset))
	case end > r.request.Bytes:
		return adminapi.RestoreWritten{}, wire.Refuse(wire.CodeConflict, "backup", fmt.Sprintf("more than the %d bytes that were announced", r.request.Bytes))
	}
	if _, err := r.spool.WriteAt(q.Data, q.Offset); err != nil {
		return adminapi.RestoreWritten{}, fmt.Errorf("backup: %w", err)
	}
	r.offset = end
	return adminapi.RestoreWritten{Offset: end}, nil
}

// Apply verifies what was received and restores it. It returns at once; Progress
// says how it goes. A second Apply changes nothing.
func (s *Service) Apply(_ context.Context, caller *policy.Principal, q adminapi.BackupSessionRequest) (adminapi.RestoreProgress, error) {
	x, err := s.restoring(caller, q.Session)
	if err != nil {
		return adminapi.RestoreProgress{}, err
	}
	r := x.restore
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.phase != adminapi.RestoreReceiving {
		return adminapi.RestoreProgress{Phase: r.phase}, nil
	}
	if r.spool == nil {
		return adminapi.RestoreProgress{}, wire.Refuse(wire.CodeConflict, "backup", "the session has ended")
	}
	if r.offset != r.request.Bytes {
		return adminapi.RestoreProgress{}, wire.Refuse(wire.CodeConflict, "backup", fmt.Sprintf("%d of %d bytes have come", r.offset, r.request.Bytes))
	}
	r.phase = adminapi.RestoreVerifying
	tenant := caller.Tenant
	s.work.Add(1)
	go func() {
		defer s.work.Done()
		s.apply(x, tenant)
	}()
	return adminapi.RestoreProgress{Phase: r.phase}, nil
}

// apply is the goroutine of a restore.
func (s *Service) apply(x *session, t *policy.Tenant) {
	r := x.restore
	start := time.Now()
	verb := "restore"
	if r.request.DryRun {
		verb = "restore-check"
	}
	s.cfg.Event(verb+"-started", x.tenant, x.owner, "session "+x.id)
	report, err := s.verifyAndRestore(x, t)
	r.mu.Lock()
	r.closeLocked()
	r.report, r.err, r.phase = report, err, adminapi.RestoreDone
	close(r.done)
	r.mu.Unlock()
	if err != nil {
		s.cfg.Log.Warn().Err(err).Str("tenant", x.tenant).Str("principal", x.owner).Msg("backup not restored")
		s.cfg.Event(verb+"-failed", x.tenant, x.owner, err.Error())
		return
	}
	s.cfg.Event(verb+"-done", x.tenant, x.owner, fmt.Sprintf("backup %s of %s, signed by %s: %d events proven, %d messages by the manifest alone, in %s",
		report.ID, report.Created.Format(time.RFC3339), report.Key, report.Proven, report.Unproven, time.Since(start).Round(time.Millisecond)))
}

func (s *Service) verifyAndRestore(x *session, t *policy.Tenant) (*adminapi.RestoreReport, error) {
	r := x.restore
	q := r.request
	trust := backupfile.Trust{Root: s.cfg.Root, Ring: s.cfg.Keys().Ring, MaxBytes: func(stream string) (int64, error) {
		if n, ok := store.DeclaredBytes(t, stream); ok {
			return n, nil
		}
		if slices.Contains(q.Skip, stream) {
			return -1, nil
		}
		return 0, fmt.Errorf("%w: %s: declare it, or leave it out of the restore", store.ErrNotDeclared, stream)
	}}
	if q.TrustRoot != "" {
		trust.Root = q.TrustRoot
	}
	// The session's end cuts the reads, and with them the verification.
	proof, err := backupfile.Verify(&cancelled{x.ctx, io.NewSectionReader(r.spool, 0, q.Bytes)}, trust)
	if err != nil {
		return nil, err
	}
	if proof.Head.Tenant != t.Name {
		return nil, fmt.Errorf("%w: it is of the tenant %.60q, this one is %s: events cannot change their tenant", backupfile.ErrForeign, proof.Head.Tenant, t.Name)
	}
	report, streams, bytes := plan(x, proof)
	if err := s.cfg.Store.CheckRestore(x.ctx, t, streams); err != nil {
		return nil, err
	}
	if err := s.room(bytes); err != nil {
		return nil, err
	}
	if q.DryRun {
		return report, nil
	}
	r.mu.Lock()
	r.phase = adminapi.RestoreApplying
	r.mu.Unlock()
	if err := s.cfg.Store.Restore(x.ctx, t, proof.Head.ID, streams); err != nil {
		return nil, err
	}
	// Whoever asked may be gone by now.
	after, cancel := context.WithTimeout(s.life, time.Minute)
	defer cancel()
	s.cfg.Restored(after)
	return report, nil
}

// plan says what will be restored, and how many bytes of messages that is.
func plan(x *session, proof *backupfile.Proof) (report *adminapi.RestoreReport, streams []store.Restoring, bytes int64) {
	r := x.restore
	report = &adminapi.RestoreReport{
		DryRun: r.request.DryRun, ID: proof.Head.ID, Tenant: proof.Head.Tenant, Node: proof.Head.Node, Created: proof.Head.Created,
		Policy: proof.Head.Policy, Key: proof.Key, Proven: proof.Proven, Unproven: proof.Unproven, Streams: []adminapi.RestoredStream{},
	}
	for i := range proof.Manifest.Streams {
		m := &proof.Manifest.Streams[i]
		row := adminapi.RestoredStream{
			Name: m.Name, Kind: string(backupfile.KindOf(m.Name)), Messages: m.Messages, Bytes: m.Bytes,
			FirstSeq: m.FirstSeq, LastSeq: m.EndSeq, Consumers: m.Consumers, Skipped: slices.Contains(r.request.Skip, m.Name),
		}
		report.Streams = append(report.Streams, row)
		if row.Skipped {
			continue
		}
		bytes += int64(m.Bytes)
		streams = append(streams, store.Restoring{
			Name: m.Name, FirstSeq: m.FirstSeq, EndSeq: m.EndSeq, Messages: m.Messages,
			Archive: func() (io.Reader, error) {
				archive, err := proof.Archive(r.spool, m.Name)
				return &cancelled{x.ctx, archive}, err
			},
		})
	}
	return report, streams, bytes
}

// cancelled is a reader that ends with its context.
type cancelled struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (c *cancelled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// Progress says how far a restore is, and waits for its end as long as it was asked
// to. A restore that failed is answered with why.
func (s *Service) Progress(ctx context.Context, caller *policy.Principal, q adminapi.RestoreProgressRequest) (adminapi.RestoreProgress, error) {
	x, err := s.restoring(caller, q.Session)
	if err != nil {
		return adminapi.RestoreProgress{}, err
	}
	r := x.restore
	wait := time.NewTimer(time.Duration(max(0, min(q.WaitMs, adminapi.MaxWaitMs))) * time.Millisecond)
	defer wait.Stop()
	select {
	case <-r.done:
	case <-wait.C:
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	x.idle.Reset(s.cfg.Idle)
	if r.err != nil {
		return adminapi.RestoreProgress{}, refusal(r.err)
	}
	return adminapi.RestoreProgress{Phase: r.phase, Report: r.report}, nil
}
