package admin

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/audit"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

func (s *Service) policyCheck(_ context.Context, r *request) (any, error) {
	var req adminapi.PolicyCheckRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	var sources []policy.Source
	total := 0
	for _, f := range req.Files {
		total += len(f.Text)
		sources = append(sources, policy.Source{Name: f.Name, Data: []byte(f.Text)})
	}
	if total > adminapi.MaxBundleBytes || len(sources) == 0 {
		return nil, wire.Refuse(wire.CodeRequestMalformed, "admin", fmt.Sprintf("send one file or more, at most %d bytes", adminapi.MaxBundleBytes))
	}
	bundle, err := policy.ParseAll(sources)
	var set *policy.Set
	if err == nil {
		set, err = policy.Compile(bundle)
	}
	if err != nil {
		return adminapi.PolicyCheck{Faults: faults(err)}, nil
	}
	out := adminapi.PolicyCheck{OK: true, Digest: set.Digest(), Tenants: len(set.Tenants())}
	for _, t := range set.Tenants() {
		out.Principals += len(t.Principals())
	}
	return out, nil
}

// faults flattens a joined error.
func faults(err error) []adminapi.PolicyFault {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []adminapi.PolicyFault
		for _, e := range joined.Unwrap() {
			out = append(out, faults(e)...)
		}
		return out
	}
	var f *policy.Fault
	if errors.As(err, &f) {
		return []adminapi.PolicyFault{{File: f.At.File, Line: f.At.Line, Column: f.At.Column, Message: f.Msg}}
	}
	return []adminapi.PolicyFault{{Message: err.Error()}}
}

// verbConnect asks whether somebody could log in as a principal.
const verbConnect = "connect"

func (s *Service) policyCanI(_ context.Context, r *request) (any, error) {
	var req adminapi.CanIRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	p := r.caller
	if req.Principal != "" {
		name, err := r.ofTenant(req.Principal)
		if err != nil {
			return nil, err
		}
		if p = r.set.Principal(r.caller.Tenant.Name, name); p == nil {
			return nil, wire.Refuse(wire.CodeNotFound, "admin", "no such principal in this tenant")
		}
	}
	e, violations := acl.Explanation{}, []wire.Violation(nil)
	switch {
	case len(req.Event) == 0:
		e = acl.Explain(p, req.Verb, req.Subject)
		if req.Verb == verbConnect && e.Allowed && s.cfg.LetsIn != nil && !s.cfg.LetsIn(p) {
			e.Allowed, e.Rule, e.At, e.Fix = false, "authentication", p.At, "the configuration of this node gives its identities to nobody, or their method is off: docs/spec/authentication.md"
		}
	case req.Verb != policy.VerbPublish || s.cfg.Judge == nil:
		return nil, wire.Refuse(wire.CodeRequestMalformed, "admin", "an event can be asked about with the verb publish only")
	default:
		e, violations = s.cfg.Judge(p, req.Subject, req.Event)
	}
	out := adminapi.CanI{
		Violations: violations,
		Allowed:    e.Allowed, Principal: e.Principal, Verb: e.Verb, Subject: e.Subject, Rule: e.Rule,
		File: filepath.Base(e.At.File), Line: e.At.Line, Nearest: e.Nearest, Fix: e.Fix, Limits: e.Limits, Text: e.String(),
	}
	return out, nil
}

func (s *Service) policyExplain(ctx context.Context, r *request) (any, error) {
	var req adminapi.ExplainRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	if req.Ref == "" || len(req.Ref) > adminapi.MaxExplainRefSize {
		return nil, wire.Refuse(wire.CodeRequestMalformed, "admin", "ref is missing or too long")
	}
	e, ok := s.cfg.Trail.Lookup(req.Ref)
	if !ok || e.Origin.Tenant != r.caller.Tenant.Name {
		if s.cfg.Nodes != nil && !r.forwarded {
			return s.explainElsewhere(ctx, r)
		}
		return nil, wire.Refuse(wire.CodeNotFound, "admin", "no refusal with this ref is kept")
	}
	out := s.refusal(&e)
	out.Policy = r.set.Digest()
	out.Explain = e.Explain
	p := r.set.PrincipalByFullName(e.Principal)
	if p == nil || out.Explain != nil {
		return out, nil
	}
	if verb, what := grantOf(&e); verb != "" {
		out.Explain = acl.Explain(p, verb, what).Wire()
	} else if at := placeOf(p, &e); at.Line > 0 {
		out.Explain = acl.Explanation{At: at}.Wire()
	}
	return out, nil
}

// placeOf is where the rule stands that has refused: a limit, the quota, the stream, or what
// holds for the subject. The zero value for what no rule of the policy says.
func placeOf(p *policy.Principal, e *audit.Entry) policy.Position {
	for i := range p.Limits {
		if p.Limits[i].Rule == e.Rule {
			return p.Limits[i].At
		}
	}
	if q := p.Tenant.Quota.Rate; q != nil && q.Rule == e.Rule {
		return q.At
	}
	if name, ok := strings.CutPrefix(e.Rule, "stream "); ok {
		if st := p.Tenant.Stream(name); st != nil {
			return st.At
		}
	}
	b := p.Tenant.Binding(e.Subject)
	switch {
	case b == nil:
	case e.Rule == b.Rule, strings.HasPrefix(e.Rule, "schema "), e.Code.Entry().Class == wire.ClassSchemaViolation, e.Code == wire.CodeSignatureRequired:
		return b.At
	}
	return policy.Position{}
}

// grantOf is the grant that a refusal was about, empty where the record does not say it.
func grantOf(e *audit.Entry) (verb, what string) {
	if verb = verbOf(e.Code); verb != "" && (e.Code != wire.CodeFilterDenied || !strings.HasPrefix(e.Subject, "$")) {
		return verb, e.Subject
	}
	// The detail of these is the word and the name, as admission writes it.
	word, name, ok := strings.Cut(e.Detail, " ")
	switch {
	case !ok || strings.Contains(name, " ") || strings.Contains(name, "?"): // cut or escaped: no longer the name
	case e.Code == wire.CodeHeaderDenied && word == "header":
		return policy.VerbHeader, name
	case e.Code == wire.CodeSourceDenied && word == "source":
		return policy.VerbSource, name
	case e.Code == wire.CodeTypeDenied && word == "type":
		return policy.VerbType, name
	case e.Code == wire.CodeAdminDenied && word == "area":
		return policy.VerbAdmin, name
	}
	return "", ""
}

// verbOf is the grant that a refusal was about, empty where a subject alone does
// not say it.
func verbOf(c wire.Code) string {
	switch c {
	case wire.CodePublishDenied, wire.CodeSubjectUnknown:
		return policy.VerbPublish
	case wire.CodeSubscribeDenied, wire.CodeFilterDenied:
		return policy.VerbSubscribe
	case wire.CodeCallDenied:
		return policy.VerbCall
	case wire.CodeServeDenied:
		return policy.VerbServe
	case wire.CodeDiscoverDenied:
		return policy.VerbDiscover
	}
	return ""
}
