package admin

import (
	"context"

	"github.com/signetbus/signet/internal/adminapi"
)

func (s *Service) keysRing(_ context.Context, r *request) (any, error) {
	if err := r.decode(&struct{}{}); err != nil {
		return nil, err
	}
	ring, doc := s.cfg.Keyring()
	return adminapi.KeyRing{Document: doc, Version: ring.Version(), Expires: ring.Expires(), Caller: r.caller.FullName()}, nil
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
