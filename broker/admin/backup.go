package admin

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

// Backups makes and restores backups: *backup.Service.
type Backups interface {
	Open(ctx context.Context, caller *policy.Principal, q adminapi.BackupOpenRequest) (adminapi.BackupOpened, error)
	Read(ctx context.Context, caller *policy.Principal, q adminapi.BackupReadRequest) (adminapi.BackupPart, error)
	Restore(ctx context.Context, caller *policy.Principal, q adminapi.RestoreRequest) (adminapi.BackupOpened, error)
	Write(ctx context.Context, caller *policy.Principal, q adminapi.RestoreWriteRequest) (adminapi.RestoreWritten, error)
	Apply(ctx context.Context, caller *policy.Principal, q adminapi.BackupSessionRequest) (adminapi.RestoreProgress, error)
	Progress(ctx context.Context, caller *policy.Principal, q adminapi.RestoreProgressRequest) (adminapi.RestoreProgress, error)
	Close(ctx context.Context, caller *policy.Principal, q adminapi.BackupSessionRequest) error
}

// backup adapts one method of Backups to a handler.
func backup[Q, A any](call func(Backups, context.Context, *policy.Principal, Q) (A, error)) handler {
	return func(s *Service, ctx context.Context, r *request) (any, error) {
		if s.cfg.Backups == nil {
			return nil, wire.Refuse(wire.CodeNotFound, "admin", "no such request")
		}
		var q Q
		if err := r.decode(&q); err != nil {
			return nil, err
		}
		if node := s.sessionElsewhere(r); node != "" {
			var out A
			err := s.forward(ctx, node, r.call, &out)
			return out, err
		}
		return call(s.cfg.Backups, ctx, r.caller, q)
	}
}

// sessionElsewhere is the other node that has the session of a request; empty if this
// one is to answer. A client that lost its node goes on at another one.
func (s *Service) sessionElsewhere(r *request) string {
	if s.cfg.Nodes == nil || r.forwarded {
		return ""
	}
	var q struct {
		Session string `json:"session"`
	}
	if json.Unmarshal(r.Body, &q) != nil {
		return "" // a request without a session: an empty body
	}
	if node := adminapi.SessionNode(q.Session); slices.Contains(s.cfg.Nodes.Others(), node) {
		return node
	}
	return ""
}

// closeBackup gives Close the form of the others.
func closeBackup(b Backups, ctx context.Context, caller *policy.Principal, q adminapi.BackupSessionRequest) (struct{}, error) {
	return struct{}{}, b.Close(ctx, caller, q)
}
