package admin

import (
	"context"
	"fmt"

	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

func (s *Service) keysRing(_ context.Context, r *request) (any, error) {
	var q adminapi.KeysRingRequest
	if err := r.decode(&q); err != nil {
		return nil, err
	}
	if awaitRing(s, r, &q) {
		return nil, errWaits
	}
	return ringAnswer(s, &r.call), nil
}

func keysPut(s *Service, ctx context.Context, r *request) (any, error) {
	var q adminapi.KeysPutRequest
	if err := r.decode(&q); err != nil {
		return nil, err
	}
	if s.cfg.PutKeys == nil {
		return nil, wire.Refuse(wire.CodeUnavailable, "keyring", "this broker takes its keyring from a file only")
	}
	put, err := s.cfg.PutKeys(ctx, q.Document, q.CutOff)
	if err != nil {
		return nil, err
	}
	s.cfg.Trail.Event("keyring-put", r.Tenant, r.Principal, "", fmt.Sprintf("version %d", put.Version))
	return put, nil
}

func keysCertify(s *Service, _ context.Context, r *request) (any, error) {
	var q adminapi.CertifyRequest
	if err := r.decode(&q); err != nil {
		return nil, err
	}
	if s.cfg.Certify == nil {
		return nil, wire.Refuse(wire.CodeUnavailable, "enrolment", "this node has no authority that issues to clients (authentication.enrolment)")
	}
	return s.cfg.Certify(r.caller, []byte(q.Request))
}

func (s *Service) keysLs(_ context.Context, r *request) (any, error) {
	if err := r.decode(&struct{}{}); err != nil {
		return nil, err
	}
	ring, _ := s.cfg.Keyring()
	out := adminapi.KeyList{Version: ring.Version(), Issued: ring.Issued(), Expires: ring.Expires()}
	for _, k := range ring.Keys() {
		out.Keys = append(out.Keys, adminapi.Key{
			ID: k.ID, Alg: k.Alg, Role: k.Role, Principal: k.Principal, Sources: k.Sources, Subjects: k.Subjects,
			NotBefore: k.NotBefore, NotAfter: k.NotAfter, RevokedAt: k.RevokedAt,
		})
	}
	return out, nil
}

func (s *Service) status(ctx context.Context, r *request) (any, error) {
	if err := r.decode(&struct{}{}); err != nil {
		return nil, err
	}
	return s.cfg.Status(ctx, r.caller.Tenant.Name)
}
