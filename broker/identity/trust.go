package identity

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// Config is what the operator trusts.
type Config struct {
	// Nkeys lets in who proves an nkey of the policy.
	Nkeys bool
	// Authorities vouch for names in client certificates; none: no certificate is taken.
	Authorities []Authority
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
	nodePrefix  string
	clock       func() time.Time
}

// New returns the Trust of a configuration whose patterns were checked
// (CheckPattern).
func New(c Config) *Trust {
	return &Trust{nkeys: c.Nkeys, authorities: c.Authorities, nodePrefix: c.NodePrefix, clock: c.Now}
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
	case token:
		return nil, failed("a JWT or token was presented, and authentication.issuers names no issuer: present an nkey and its signature alone, or configure one")
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
// principal. The error joins *policy.Fault.
func (t *Trust) Check(set *policy.Set) error {
	var f faults
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
			for _, v := range p.Identities.DNS {
				if !t.given(tenant.Name, v.Name, dnsNames) {
					f.add(v.At, "identity dns %s: no authority under authentication.certificates speaks for it in tenant %s; the operator gives it there", v.Name, tenant.Name)
				}
			}
		}
	}
	return f.err()
}
