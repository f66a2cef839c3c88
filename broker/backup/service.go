package backup

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/backupfile"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// MaxSessions is how many sessions there are at once, of all tenants together. A
// tenant has at most one.
const MaxSessions = 4

// Config configures a Service. All members but Idle are required.
type Config struct {
	Dir    string             // folder of the files that are being received; made if it is missing
	Node   string             // name of this broker
	Root   string             // root key that restores trust unless they name another
	Policy func() *policy.Set // in force
	Keys   func() Keys        // in force
	Store  *store.Store
	// Event tells the audit trail what was done.
	Event func(name, tenant, principal, detail string)
	// Restored is called after streams of a tenant were restored.
	Restored func(ctx context.Context)
	Log      zerolog.Logger
	// Idle is how long a session lives without a request; 0 means adminapi.SessionIdle.
	Idle time.Duration
}

// Keys are the keys in force.
type Keys struct {
	Ring     *keyring.Ring
	Document []byte // the signed keyring
	Signer   *signing.Signer
}

// Service makes and restores backups.
type Service struct {
	cfg  Config
	life context.Context // ends with Shutdown; the only context kept, for the workers
	stop context.CancelFunc
	work sync.WaitGroup

	mu       sync.Mutex
	sessions map[string]*session // by the name that clients know; nil after Shutdown
}

// session is one backup that is read, or one restore that is written.
type session struct {
	id, tenant, owner string
	ctx               context.Context // ends with the session
	cancel            context.CancelFunc
	idle              *time.Timer
	save              *saving
	restore           *receiving
}

// New returns a Service and removes what an earlier run left in cfg.Dir.
func New(cfg Config) (*Service, error) {
	if cfg.Dir == "" || cfg.Node == "" || cfg.Root == "" || cfg.Policy == nil || cfg.Keys == nil || cfg.Store == nil || cfg.Event == nil || cfg.Restored == nil {
		return nil, errors.New("backup: dir, node, root, policy, keys, store, event and restored are required")
	}
	if cfg.Idle <= 0 {
		cfg.Idle = adminapi.SessionIdle
	}
	left, err := filepath.Glob(filepath.Join(cfg.Dir, spoolPattern))
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	for _, file := range left {
		if err := os.Remove(file); err != nil {
			return nil, fmt.Errorf("backup: %w", err)
		}
	}
	s := &Service{cfg: cfg, sessions: map[string]*session{}}
	s.life, s.stop = context.WithCancel(context.Background())
	return s, nil
}

// Shutdown ends all sessions and returns when their goroutines are gone, or with the
// error of ctx. A restore that is under way is undone.
func (s *Service) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	all := s.sessions
	s.sessions = nil
	s.mu.Unlock()
	s.stop()
	for _, x := range all {
		x.end()
	}
	done := make(chan struct{})
	go func() {
		s.work.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// open makes a session. prepare fills it before it can be found.
func (s *Service) open(caller *policy.Principal, tenant string, prepare func(*session) error) (adminapi.BackupOpened, error) {
	own := caller.Tenant.Name
	if tenant != "" && tenant != own {
		return adminapi.BackupOpened{}, wire.Refuse(wire.CodeAdminDenied, "default-deny/admin",
			fmt.Sprintf("tenant %s: the credential is of the tenant %s, and a backup is made and restored by a credential of its own tenant", tenant, own))
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // crypto/rand.Read never fails
	x := &session{id: hex.EncodeToString(id[:]), tenant: own, owner: caller.FullName()}
	x.ctx, x.cancel = context.WithCancel(s.life)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.roomLocked(own); err != nil {
		x.cancel()
		return adminapi.BackupOpened{}, err
	}
	if err := prepare(x); err != nil {
		x.cancel()
		return adminapi.BackupOpened{}, err
	}
	x.idle = time.AfterFunc(s.cfg.Idle, func() { s.drop(x) })
	name := adminapi.SessionName(x.id, s.cfg.Node)
	s.sessions[name] = x
	return adminapi.BackupOpened{Session: name, Tenant: own}, nil
}

func (s *Service) roomLocked(tenant string) error {
	if s.sessions == nil {
		return wire.Refuse(wire.CodeDraining, "backup", "")
	}
	for _, x := range s.sessions {
		if x.tenant == tenant {
			return wire.Refuse(wire.CodeConflict, "backup",
				fmt.Sprintf("%s is making or restoring a backup of this tenant; a session that nobody uses ends after %s", x.owner, s.cfg.Idle))
		}
	}
	if len(s.sessions) >= MaxSessions {
		return wire.Refuse(wire.CodeUnavailable, "backup", fmt.Sprintf("%d backups and restores are under way", len(s.sessions)))
	}
	return nil
}

// find returns the caller's session and gives it new time.
func (s *Service) find(caller *policy.Principal, id string) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.sessions[id]
	if x == nil || x.owner != caller.FullName() {
		return nil, wire.Refuse(wire.CodeNotFound, "backup", "no such session; one that nobody uses ends after "+s.cfg.Idle.String())
	}
	x.idle.Reset(s.cfg.Idle)
	return x, nil
}

// drop ends a session, unless it is applying a restore: that goes on, and its result
// is kept until somebody has had the time to ask for it.
func (s *Service) drop(x *session) {
	if x.restore != nil && x.restore.applying() {
		x.idle.Reset(s.cfg.Idle)
		return
	}
	s.mu.Lock()
	delete(s.sessions, adminapi.SessionName(x.id, s.cfg.Node))
	s.mu.Unlock()
	x.end()
}

func (x *session) end() {
	x.idle.Stop()
	x.cancel()
	if x.restore != nil {
		x.restore.release()
	}
}

// Close ends a session. A backup that was not read to its end, and a restore that is
// not done, leave nothing.
func (s *Service) Close(_ context.Context, caller *policy.Principal, q adminapi.BackupSessionRequest) error {
	x, err := s.find(caller, q.Session)
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.sessions, adminapi.SessionName(x.id, s.cfg.Node))
	s.mu.Unlock()
	x.end()
	return nil
}

// refusal words errors for the caller.
func refusal(err error) error {
	var known *wire.Refusal
	var code wire.Code
	switch {
	case errors.As(err, &known):
		return known
	case is(err, backupfile.ErrFormat, backupfile.ErrVersion, backupfile.ErrForeign, backupfile.ErrChanged, backupfile.ErrNotProven, backupfile.ErrTooLarge):
		code = wire.CodeBackupRefused
	case is(err, keyring.ErrRootKey):
		code = wire.CodeRequestMalformed
	case is(err, store.ErrNotEmpty, store.ErrNotDeclared, store.ErrNotRestored):
		code = wire.CodeConflict
	case is(err, store.ErrSnapshot, store.ErrServer, store.ErrClosed, context.Canceled, context.DeadlineExceeded):
		code = wire.CodeUnavailable
	default:
		return err
	}
	return wire.Refuse(code, "backup", err.Error())
}

func is(err error, any ...error) bool {
	for _, target := range any {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
