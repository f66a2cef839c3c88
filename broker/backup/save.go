package backup

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/backupfile"
	"github.com/signetbus/signet/internal/wire"
)

// prefixInternal begins the names of streams of the broker itself, which are made
// anew and not restored.
const prefixInternal = "SIGNET_"

// saving is a backup that is being read.
type saving struct {
	parts chan []byte // of MaxChunkBytes, the last one shorter; closed at the end
	err   error       // why it ended early; written before parts is closed

	mu     sync.Mutex
	asking bool   // a request waits for the next part
	offset int64  // of the next part
	last   []byte // the part before, for a request that is repeated
	eof    bool
}

// Open begins a backup of the caller's tenant. It is made as it is read.
func (s *Service) Open(_ context.Context, caller *policy.Principal, q adminapi.BackupOpenRequest) (adminapi.BackupOpened, error) {
	return s.open(caller, q.Tenant, func(x *session) error {
		x.save = &saving{parts: make(chan []byte)}
		s.work.Add(1)
		go func() {
			defer s.work.Done()
			s.produce(x)
		}()
		return nil
	})
}

// produce makes the file of a session.
func (s *Service) produce(x *session) {
	start := time.Now()
	s.cfg.Event("backup-started", x.tenant, x.owner, "session "+x.id)
	out := &chunker{ctx: x.ctx, parts: x.save.parts}
	m, err := s.save(x, out)
	if err == nil {
		err = out.flush()
	}
	x.save.err = err
	close(x.save.parts)
	if err != nil {
		s.cfg.Log.Warn().Err(err).Str("tenant", x.tenant).Str("principal", x.owner).Msg("backup not made")
		s.cfg.Event("backup-failed", x.tenant, x.owner, "session "+x.id+": "+err.Error())
		return
	}
	var messages uint64
	for i := range m.Streams {
		messages += m.Streams[i].Messages
	}
	s.cfg.Event("backup-made", x.tenant, x.owner, fmt.Sprintf("backup %s: %d streams, %d messages, in %s", m.ID, len(m.Streams), messages, time.Since(start).Round(time.Millisecond)))
}

func (s *Service) save(x *session, out io.Writer) (*backupfile.Manifest, error) {
	keys := s.cfg.Keys()
	streams, err := s.cfg.Store.StreamNames(x.ctx, x.tenant)
	if err != nil {
		return nil, err
	}
	w, err := backupfile.NewWriter(out, backupfile.Head{
		ID: x.id, Tenant: x.tenant, Node: s.cfg.Node, Created: time.Now(), Policy: s.cfg.Policy().Digest(),
		Root: s.cfg.Root, Keyring: keys.Document,
	})
	if err != nil {
		return nil, err
	}
	for _, name := range streams {
		if strings.HasPrefix(name, prefixInternal) {
			continue
		}
		if err := s.saveStream(x, w, name); err != nil {
			return nil, err
		}
	}
	return w.Finish(keys.Signer)
}

func (s *Service) saveStream(x *session, w *backupfile.Writer, name string) error {
	snap, err := s.cfg.Store.OpenSnapshot(x.ctx, x.tenant, name)
	if err != nil {
		return err
	}
	defer snap.Close()
	head := backupfile.StreamHead{Name: name, Config: snap.Config}
	return w.Stream(head, func(archive io.Writer) error { return snap.CopyTo(x.ctx, archive) })
}

// chunker gathers what is written into parts and hands them to who asks.
type chunker struct {
	ctx   context.Context
	parts chan<- []byte
	buf   []byte
}

// Write implements io.Writer.
func (c *chunker) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		if c.buf == nil {
			c.buf = make([]byte, 0, adminapi.MaxChunkBytes)
		}
		n := min(len(rest), cap(c.buf)-len(c.buf))
		c.buf = append(c.buf, rest[:n]...)
		rest = rest[n:]
		if len(c.buf) == cap(c.buf) {
			if err := c.flush(); err != nil {
				return 0, err
			}
		}
	}
	return len(p), nil
}

func (c *chunker) flush() error {
	if len(c.buf) == 0 {
		return nil
	}
	select {
	case c.parts <- c.buf:
		c.buf = nil
		return nil
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
}

// Read returns the part at an offset: the next one, or once more the one before.
func (s *Service) Read(ctx context.Context, caller *policy.Principal, q adminapi.BackupReadRequest) (adminapi.BackupPart, error) {
	x, err := s.find(caller, q.Session)
	if err != nil {
		return adminapi.BackupPart{}, err
	}
	if x.save == nil {
		return adminapi.BackupPart{}, wire.Refuse(wire.CodeConflict, "backup", "the session is of a restore")
	}
	part, err := x.save.read(ctx, x.ctx, q.Offset)
	x.idle.Reset(s.cfg.Idle) // it may have waited for long
	return part, err
}

func (v *saving) read(ctx, life context.Context, offset int64) (adminapi.BackupPart, error) {
	part, repeated, err := v.begin(offset)
	if err != nil || repeated {
		return part, err
	}
	var data []byte
	more := true
	select {
	case data, more = <-v.parts:
	case <-ctx.Done():
		err = wire.Refuse(wire.CodeUnavailable, "backup", "the next part was not ready in time: ask again")
	case <-life.Done():
		err = wire.Refuse(wire.CodeUnavailable, "backup", "the session has ended")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asking = false
	switch {
	case err != nil:
		return adminapi.BackupPart{}, err
	case !more && v.err != nil:
		return adminapi.BackupPart{}, refusal(v.err)
	}
	v.last, v.eof = data, !more
	v.offset += int64(len(data))
	return adminapi.BackupPart{Offset: offset, Data: data, EOF: v.eof}, nil
}

// begin answers a repeated request, or lets one request wait for the next part.
func (v *saving) begin(offset int64) (part adminapi.BackupPart, repeated bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.asking:
		return part, false, wire.Refuse(wire.CodeUnavailable, "backup", "another request of the session is waiting")
	case v.offset > 0 && offset == v.offset-int64(len(v.last)) && (len(v.last) > 0 || v.eof):
		return adminapi.BackupPart{Offset: offset, Data: v.last, EOF: v.eof}, true, nil
	case offset != v.offset:
		return part, false, wire.Refuse(wire.CodeConflict, "backup", fmt.Sprintf("the next part is at offset %d", v.offset))
	}
	v.asking = true
	return part, false, nil
}
