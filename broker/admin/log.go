package admin

import (
	"context"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

// Logs answers about the logs of a tenant. Errors are refusals.
type Logs interface {
	List(ctx context.Context, tenant string, q struct{}) (adminapi.LogList, error)
	Checkpoint(ctx context.Context, tenant string, q adminapi.LogStreamRequest) (adminapi.LogCheckpoint, error)
	Verify(ctx context.Context, tenant string, q adminapi.LogVerifyRequest) (adminapi.LogVerified, error)
	Consistency(ctx context.Context, tenant string, q adminapi.LogConsistencyRequest) (adminapi.LogConsistency, error)
	Find(ctx context.Context, tenant string, q adminapi.LogFindRequest) (adminapi.LogFound, error)
	Prove(ctx context.Context, tenant string, q adminapi.LogProveRequest) (adminapi.LogProof, error)
	Part(ctx context.Context, tenant string, q adminapi.LogPartRequest) (adminapi.LogPart, error)
	Restart(ctx context.Context, tenant string, q adminapi.LogStreamRequest) (struct{}, error)
}

// areaStreams is what changes to the streams themselves take.
const areaStreams = "streams"

// restartLog begins a new log. Whoever may read a log may not also end it: that takes the
// area streams, too.
func restartLog(s *Service, ctx context.Context, r *request) (any, error) {
	restart := func(l Logs, ctx context.Context, tenant string, q adminapi.LogStreamRequest) (struct{}, error) {
		if !acl.Admin(r.caller, areaStreams).Allowed {
			return struct{}{}, wire.Refuse(wire.CodeAdminDenied, "default-deny/admin", "a new log needs the area streams beside log")
		}
		out, err := l.Restart(ctx, tenant, q)
		if err == nil {
			s.cfg.Trail.Event("log-restart", tenant, r.Principal, "", q.Stream)
		}
		return out, err
	}
	return logs(restart)(s, ctx, r)
}

// logs adapts one method of Logs to a handler.
func logs[Q, A any](call func(Logs, context.Context, string, Q) (A, error)) handler {
	return func(s *Service, ctx context.Context, r *request) (any, error) {
		if s.cfg.Logs == nil {
			return nil, wire.Refuse(wire.CodeNotFound, "admin", "no such request")
		}
		var q Q
		if err := r.decode(&q); err != nil {
			return nil, err
		}
		return call(s.cfg.Logs, ctx, r.caller.Tenant.Name, q)
	}
}
