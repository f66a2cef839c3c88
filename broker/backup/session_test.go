package backup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

// tenants is a policy with a keeper in each of six tenants.
func tenants(t *testing.T) *policy.Set {
	t.Helper()
	text := ""
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		text += "---\ntenant: " + name + "\nstreams: [{name: ORDERS, subjects: [orders.>], maxBytes: 1MiB}]\ndeadLetter: {maxBytes: 1MiB}\nprincipals: [{name: keeper, admin: [backup]}]\n"
	}
	bundle, err := policy.Parse("test.yaml", []byte(text[4:]))
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.Compile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// service has a store without a server: enough for sessions that receive.
func service(t *testing.T, dir string, set *policy.Set, idle time.Duration) *Service {
	t.Helper()
	st, err := store.Open(t.Context(), store.Config{Internal: func(string) (*nats.Conn, error) { return nil, store.ErrNoAccount }})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{
		Dir: dir, Node: "test", Root: "O", Policy: func() *policy.Set { return set }, Keys: func() Keys { return Keys{} }, Store: st,
		Event: func(string, string, string, string) {}, Restored: func(context.Context) {}, Log: zerolog.Nop(), Idle: idle,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return s
}

func keeper(set *policy.Set, tenant string) *policy.Principal { return set.Principal(tenant, "keeper") }

func isCode(err error, code wire.Code) bool {
	var r *wire.Refusal
	return errors.As(err, &r) && r.Code == code
}

// A session that nobody uses ends, and makes room for another.
func TestIdleSessionEnds(t *testing.T) {
	set := tenants(t)
	s := service(t, t.TempDir(), set, 20*time.Millisecond)
	opened, err := s.Restore(t.Context(), keeper(set, "a"), adminapi.RestoreRequest{Bytes: 10})
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	x := s.sessions[opened.Session]
	s.mu.Unlock()
	if x != nil { // else it has ended already
		select {
		case <-x.ctx.Done():
		case <-time.After(time.Minute):
			t.Fatal("the session lives on")
		}
	}
	if _, err := s.Write(t.Context(), keeper(set, "a"), adminapi.RestoreWriteRequest{Session: opened.Session, Data: []byte("x")}); !isCode(err, wire.CodeNotFound) {
		t.Errorf("a part for a session that has ended: %v", err)
	}
	if _, err := s.Restore(t.Context(), keeper(set, "a"), adminapi.RestoreRequest{Bytes: 10}); err != nil {
		t.Errorf("the next session: %v", err)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	set := tenants(t)
	s := service(t, t.TempDir(), set, time.Hour)
	for i, tenant := range []string{"a", "b", "c", "d", "e"} {
		_, err := s.Restore(t.Context(), keeper(set, tenant), adminapi.RestoreRequest{Bytes: 10})
		if i < MaxSessions && err != nil || i >= MaxSessions && !isCode(err, wire.CodeUnavailable) {
			t.Errorf("session %d: %v", i+1, err)
		}
	}
	if _, err := s.Open(t.Context(), keeper(set, "a"), adminapi.BackupOpenRequest{}); !isCode(err, wire.CodeConflict) {
		t.Errorf("a second session of a tenant: %v", err)
	}
}

func TestPartsOfARestore(t *testing.T) {
	set := tenants(t)
	s := service(t, t.TempDir(), set, time.Hour)
	k := keeper(set, "a")
	for _, n := range []int64{-1, 0, 1 << 40} {
		if _, err := s.Restore(t.Context(), k, adminapi.RestoreRequest{Bytes: n}); !isCode(err, wire.CodeConflict) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	opened, err := s.Restore(t.Context(), k, adminapi.RestoreRequest{Bytes: 6})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		offset int64
		data   string
		next   int64
		code   wire.Code
	}{
		{"first", 0, "abc", 3, 0},
		{"again", 0, "abc", 3, 0},
		{"a hole", 4, "e", 0, wire.CodeConflict},
		{"half again", 2, "cd", 0, wire.CodeConflict},
		{"nothing", 3, "", 0, wire.CodeRequestMalformed},
		{"before the file", -1, "x", 0, wire.CodeRequestMalformed},
		{"too much", 3, "defg", 0, wire.CodeConflict},
		{"too large", 3, string(make([]byte, adminapi.MaxChunkBytes+1)), 0, wire.CodeRequestMalformed},
	} {
		w, err := s.Write(t.Context(), k, adminapi.RestoreWriteRequest{Session: opened.Session, Offset: tc.offset, Data: []byte(tc.data)})
		if tc.code == 0 && (err != nil || w.Offset != tc.next) || tc.code != 0 && !isCode(err, tc.code) {
			t.Errorf("%s: %+v, %v", tc.name, w, err)
		}
	}
	if _, err := s.Apply(t.Context(), k, adminapi.BackupSessionRequest{Session: opened.Session}); !isCode(err, wire.CodeConflict) {
		t.Errorf("applied before all of it came: %v", err)
	}
	if _, err := s.Write(t.Context(), k, adminapi.RestoreWriteRequest{Session: opened.Session, Offset: 3, Data: []byte("def")}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(t.Context(), k, adminapi.BackupSessionRequest{Session: opened.Session}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Progress(t.Context(), k, adminapi.RestoreProgressRequest{Session: opened.Session, WaitMs: 10_000}); !isCode(err, wire.CodeBackupRefused) {
		t.Errorf("six bytes were restored: %v", err)
	}
}

// What a process left behind, where files keep their names, goes at the next start.
func TestLeftoversGo(t *testing.T) {
	dir := t.TempDir()
	left, other := filepath.Join(dir, "restore-1.part"), filepath.Join(dir, "other")
	for _, f := range []string{left, other} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	service(t, dir, tenants(t), time.Hour)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", left, err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
}
