package identity

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// Config is what the operator trusts.
type Config struct {
	// Nkeys lets in who proves an nkey of the policy.
	Nkeys bool
	// Authorities vouch for names in client certificates; none: no certificate is taken.
	Authorities []Authority
	// Issuers vouch for subjects in tokens; none: no token is taken.
	Issuers []Issuer
	// NodePrefix starts the SPIFFE IDs of the nodes of the cluster, which are never
	// clients; empty without a cluster.
	NodePrefix string
	// Now is the clock; nil: the real one.
	Now func() time.Time
}

// Trust is what the operator trusts. It is immutable and safe for concurrent use.
type Trust struct {
	nkeys       bool
	authorities []Authority
	issuers     []Issuer
	algorithms  []jose.SignatureAlgorithm // of all issuers
	nodePrefix  string
	clock       func() time.Time
}

// New returns the Trust of a configuration whose patterns were checked
// (CheckPattern).
func New(c Config) *Trust {
	t := &Trust{nkeys: c.Nkeys, authorities: c.Authorities, issuers: c.Issuers, nodePrefix: c.NodePrefix, clock: c.Now}
	for _, i := range c.Issuers {
		t.algorithms = append(t.algorithms, joseAlgorithms(i.Algorithms)...)
	}
	return t
}

func (t *Trust) now() time.Time {
	if t.clock == nil {
		return time.Now()
	}
	return t.clock()
}

// Authenticate is an Authenticator. It checks every proof that was presented, in the
// order certificate, nkey, token, and refuses if one does not hold or if they are not
// of one principal.
func (t *Trust) Authenticate(ctx context.Context, set *policy.Set, c *Credentials) (Login, *wire.Refusal) {
	checks, refusal := t.proofs(c)
	if refusal != nil {
		return Login{}, refusal
	}
	if set == nil {
		return Login{}, failed("no policy is loaded")
	}
	var login Login
	for i, check := range checks {
		one, refusal := check(ctx, set, c)
		switch {
		case refusal != nil:
			return Login{}, refusal
		case i == 0:
			login = one
		case one.Principal != login.Principal:
			return Login{}, failed(fmt.Sprintf("the %s is that of %s and the %s that of %s: present proofs of one principal",
				login.Method, login.Principal.FullName(), one.Method, one.Principal.FullName()))
		case !one.Until.IsZero() && (login.Until.IsZero() || one.Until.Before(login.Until)):
			login.Until = one.Until
		}
	}
	return login, nil
}

type proof func(context.Context, *policy.Set, *Credentials) (Login, *wire.Refusal)

// proofs returns the checks of what was presented, at least one.
func (t *Trust) proofs(c *Credentials) ([]proof, *wire.Refusal) {
	var checks []proof
	nkey, token := c.NkeyPublic != "" || c.Signature != "", c.JWT != "" || c.AuthToken != ""
	switch {
	case c.User != "" || c.Pass != "":
		return nil, failed("a user or password was presented: there are none here, present an nkey, a client certificate or a token")
	case nkey && token, c.JWT != "" && c.AuthToken != "":
		return nil, failed("CONNECT has several credentials: present one of nkey, jwt and auth_token")
	}
	if c.TLS != nil {
		if len(t.authorities) == 0 {
			return nil, failed("a client certificate was presented, and authentication.certificates names no authority: present none, or configure one")
		}
		checks = append(checks, func(_ context.Context, set *policy.Set, c *Credentials) (Login, *wire.Refusal) {
			return t.certificate(set, c)
		})
	}
	switch {
	case nkey && !t.nkeys:
		return nil, failed("an nkey was presented, and authentication.methods does not name nkey: present a certificate or a token")
	case nkey:
		checks = append(checks, func(_ context.Context, set *policy.Set, c *Credentials) (Login, *wire.Refusal) { return t.nkey(set, c) })
	case token && len(t.issuers) == 0:
		return nil, failed("a JWT or token was presented, and authentication.issuers names no issuer: present an nkey and its signature alone, or configure one")
	case token:
		checks = append(checks, t.token)
	}
	if len(checks) == 0 {
		return nil, required()
	}
	return checks, nil
}

// admissible turns the principal that the policy has for a name, if any, into a
// verdict.
func admissible(p *policy.Principal, kind, name string) (*policy.Principal, *wire.Refusal) {
	switch {
	case p == nil:
		return nil, failed(fmt.Sprintf("no principal has this %s (%s): add it under identities of a principal", kind, name))
	case p.Disabled:
		return nil, failed("the principal " + p.FullName() + " is disabled in the policy")
	}
	return p, nil
}

// Check reports every name in set that the operator has not given to the tenant of its
// principal, and subjects that two principals have under different kinds of names. The
// error joins *policy.Fault.
func (t *Trust) Check(set *policy.Set) error {
	var f faults
	subjects := make(map[[2]string]*policy.Principal)
	for _, tenant := range set.Tenants() {
		for _, p := range tenant.Principals() {
			for _, v := range p.Identities.SPIFFE {
				switch {
				case t.nodePrefix != "" && strings.HasPrefix(v.Name, t.nodePrefix):
					f.add(v.At, "identity spiffe %s: %s* are the nodes of the cluster, which are no clients", v.Name, t.nodePrefix)
				case !t.given(tenant.Name, v.Name, spiffeNames):
					f.add(v.At, "identity spiffe %s: no authority under authentication.certificates speaks for it in tenant %s; the operator gives it there", v.Name, tenant.Name)
				}
			}
			t.checkSubjects(p, subjects, &f)
			for _, v := range p.Identities.DNS {
				if !t.given(tenant.Name, v.Name, dnsNames) {
					f.add(v.At, "identity dns %s: no authority under authentication.certificates speaks for it in tenant %s; the operator gives it there", v.Name, tenant.Name)
				}
			}
		}
	}
	return f.err()
}

// Lets reports whether an nkey or a name of p, one at least, could let somebody in as p.
func (t *Trust) Lets(p *policy.Principal) bool {
	tenant := p.Tenant.Name
	named := func(list []policy.Identity, kind func(*Given) []string) bool {
		return slices.ContainsFunc(list, func(v policy.Identity) bool { return t.given(tenant, v.Name, kind) })
	}
	speakers := func(subject string, of func(*Issuer) bool) (n int) {
		for i := range t.issuers {
			if of(&t.issuers[i]) && t.issuers[i].gives(tenant, subject) {
				n++
			}
		}
		return n
	}
	return t.nkeys && len(p.Nkeys) > 0 || named(p.Identities.SPIFFE, spiffeNames) || named(p.Identities.DNS, dnsNames) ||
		slices.ContainsFunc(p.Identities.OIDC, func(v policy.OIDCIdentity) bool {
			return speakers(v.Subject, func(i *Issuer) bool { return i.URL == v.Issuer }) > 0
		}) ||
		slices.ContainsFunc(p.Identities.ServiceAccounts, func(v policy.Identity) bool {
			return speakers(accountPrefix+strings.Replace(v.Name, "/", ":", 1), func(i *Issuer) bool { return i.Kubernetes }) == 1
		})
}

// checkSubjects is Check for the subjects of issuers. taken is whose they are, by issuer
// and subject.
func (t *Trust) checkSubjects(p *policy.Principal, taken map[[2]string]*policy.Principal, f *faults) {
	take := func(issuer, subject string, at policy.Position) {
		key := [2]string{issuer, subject}
		if q := taken[key]; q != nil && q != p {
			f.add(at, "subject %s of %s is one of %s already (%s): a name belongs to one principal", subject, issuer, q.FullName(), q.At)
		}
		taken[key] = p
	}
	for _, v := range p.Identities.OIDC {
		if !slices.ContainsFunc(t.issuers, func(i Issuer) bool { return i.URL == v.Issuer && i.gives(p.Tenant.Name, v.Subject) }) {
			f.add(v.At, "identity oidc %s of %s: no issuer under authentication.issuers speaks for it in tenant %s; the operator gives it there", v.Subject, v.Issuer, p.Tenant.Name)
			continue
		}
		take(v.Issuer, v.Subject, v.At)
	}
	for _, v := range p.Identities.ServiceAccounts {
		subject := accountPrefix + strings.Replace(v.Name, "/", ":", 1)
		var clusters []string
		for _, i := range t.issuers {
			if i.Kubernetes && i.gives(p.Tenant.Name, subject) {
				clusters = append(clusters, i.URL)
			}
		}
		switch len(clusters) {
		case 0:
			f.add(v.At, "identity serviceAccount %s: no issuer with kubernetes: true under authentication.issuers speaks for it in tenant %s; the operator gives it there", v.Name, p.Tenant.Name)
		case 1:
			take(clusters[0], subject, v.At)
		default:
			f.add(v.At, "identity serviceAccount %s: the issuers %s all speak for it in tenant %s; write oidc with the one that is meant", v.Name, strings.Join(clusters, ", "), p.Tenant.Name)
		}
	}
}
