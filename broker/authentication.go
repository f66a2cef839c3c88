package broker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/broker/identity"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// AuthenticationConfig says whose word the broker takes for who a client is, and about
// whom. The zero value takes nobody's: clients prove nkeys of the policy themselves.
type AuthenticationConfig struct {
	// Methods that are on: nkey, certificate, token. Default: nkey, certificate if Certificates
	// names an authority, and token if Issuers names an issuer.
	Methods []string `yaml:"methods"`
	// Certificates lists the authorities that vouch for client certificates; at most 16.
	Certificates []AuthorityConfig `yaml:"certificates"`
	// Issuers lists who vouches for tokens; at most 16.
	Issuers []IssuerConfig `yaml:"issuers"`
	// Enrolment lets clients have certificates issued. Default: they cannot.
	Enrolment EnrolmentConfig `yaml:"enrolment"`
}

// AuthorityConfig is one authority, and what it may say in which tenant. A name that
// is given to no tenant is refused, in policies and at the door.
type AuthorityConfig struct {
	// CA is a PEM file, several authorities while they change. Read again when it changes.
	CA      string            `yaml:"ca"`
	Tenants []AuthorityTenant `yaml:"tenants"`
}

// AuthorityTenant is what an authority may say in one tenant.
type AuthorityTenant struct {
	Name   string   `yaml:"name"`
	SPIFFE []string `yaml:"spiffe"` // SPIFFE IDs, or spiffe://DOMAIN/PATH/* for what is below
	DNS    []string `yaml:"dns"`    // DNS names, or *.NAME for what is below
}

const maxAuthorities = 16

// on reports whether a method is on.
func (a *AuthenticationConfig) on(method string) bool {
	switch {
	case method == identity.MethodCertificate && len(a.Certificates) == 0, method == identity.MethodToken && len(a.Issuers) == 0:
		return false
	case len(a.Methods) == 0:
		return true
	}
	return slices.Contains(a.Methods, method)
}

func (a *AuthenticationConfig) files() []*string {
	var out []*string
	for i := range a.Certificates {
		out = append(out, &a.Certificates[i].CA)
	}
	for i := range a.Issuers {
		k := &a.Issuers[i].Keys
		out = append(out, &k.File, &k.CA, &k.BearerFile)
	}
	out = append(out, &a.Enrolment.CA)
	return out
}

func (a *AuthenticationConfig) validate(fail func(string, ...any)) {
	for i, m := range a.Methods {
		switch {
		case m != identity.MethodNkey && m != identity.MethodCertificate && m != identity.MethodToken:
			fail("authentication.methods: want nkey, certificate or token, got %q", m)
		case slices.Contains(a.Methods[:i], m):
			fail("authentication.methods: %s is repeated", m)
		case m == identity.MethodCertificate && len(a.Certificates) == 0:
			fail("authentication.methods: certificate needs authorities under authentication.certificates")
		case m == identity.MethodToken && len(a.Issuers) == 0:
			fail("authentication.methods: token needs issuers under authentication.issuers")
		}
	}
	if len(a.Certificates) > maxAuthorities {
		fail("authentication.certificates: at most %d authorities, got %d", maxAuthorities, len(a.Certificates))
	}
	for i := range a.Certificates {
		a.Certificates[i].validate(fmt.Sprintf("authentication.certificates[%d]", i), fail)
	}
	validateIssuers(a.Issuers, fail)
	a.Enrolment.validate(fail)
}

func (c *AuthorityConfig) validate(key string, fail func(string, ...any)) {
	if c.CA == "" {
		fail("%s.ca is required: the PEM file of the authority", key)
	}
	if len(c.Tenants) == 0 {
		fail("%s.tenants is required: an authority speaks only for the names that are given to it", key)
	}
	for _, t := range c.Tenants {
		at := key + ".tenants " + t.Name
		if t.Name == "" {
			fail("%s.tenants: name is required", key)
		}
		if len(t.SPIFFE)+len(t.DNS) == 0 {
			fail("%s: spiffe or dns is required", at)
		}
		for _, p := range t.SPIFFE {
			if err := identity.CheckSPIFFEPattern(p); err != nil {
				fail("%s: spiffe: %w", at, err)
			}
		}
		for _, p := range t.DNS {
			if err := identity.CheckDNSPattern(p); err != nil {
				fail("%s: dns: %w", at, err)
			}
		}
	}
}

// trust is whose word the broker takes, as the files of the configuration have it. It is
// immutable.
type trust struct {
	door      *identity.Trust // with the methods that are on
	given     *identity.Trust // with all that is configured: what policies may name
	enrolment *enrolment      // nil: clients cannot enrol here
	rootsEnd  map[string]time.Time
	sum       []byte // of the files
}

// loadTrust reads the authorities and the keys in files. The error joins all faults.
func loadTrust(cfg *Config, sources issuerKeys) (*trust, error) {
	a := &cfg.Authentication
	t, all, sum := &trust{rootsEnd: map[string]time.Time{}}, identity.Config{Nkeys: a.on(identity.MethodNkey)}, sha256.New()
	if cfg.Cluster != nil {
		all.NodePrefix = ca.NodeURI(cfg.Cluster.Name, "")
	}
	var err error
	t.enrolment, err = a.Enrolment.load()
	faults := []error{err}
	for _, c := range a.Certificates {
		roots, err := ca.LoadRoots(c.CA)
		if err != nil {
			faults = append(faults, fmt.Errorf("broker: authentication.certificates: %w", err))
			continue
		}
		sum.Write(roots.Text)
		t.rootsEnd[c.CA] = roots.Expires()
		t.enrolment.sees(roots, len(all.Authorities))
		authority := identity.Authority{Name: c.CA, Roots: roots.Pool}
		for _, g := range c.Tenants {
			authority.Tenants = append(authority.Tenants, identity.Given{Tenant: g.Name, SPIFFE: g.SPIFFE, DNS: g.DNS})
		}
		all.Authorities = append(all.Authorities, authority)
	}
	for i := range a.Issuers {
		issuer, text, err := a.Issuers[i].load(sources)
		faults = append(faults, err)
		sum.Write(text)
		all.Issuers = append(all.Issuers, issuer)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if err := t.enrolment.speaksFor(all.Authorities); err != nil {
		return nil, err
	}
	sum.Write(t.enrolment.certificate())
	t.sum, t.given = sum.Sum(nil), identity.New(all)
	if !a.on(identity.MethodCertificate) {
		all.Authorities = nil
	}
	if !a.on(identity.MethodToken) {
		all.Issuers = nil
	}
	t.door = identity.New(all)
	return t, nil
}

// loadTrust is loadTrust, and the check that the policy, if it was read, uses no names
// but those that were given to its tenants. In an applied policy they are no fault: see
// material.ungiven.
func (m *material) loadTrust(cfg *Config, sources issuerKeys) (err error) {
	if m.trust, err = loadTrust(cfg, sources); err != nil || m.policy == nil {
		return err
	}
	err = m.trust.check(m.policy)
	if m.applied.holds() {
		m.ungiven = policy.Faults(err)
		return nil
	}
	return err
}

// check reports the names in a policy that were not given to its tenants. The error
// joins *policy.Fault.
func (t *trust) check(set *policy.Set) error { return t.given.Check(set) }

func (m *material) sameTrust(old *material) bool { return bytes.Equal(m.trust.sum, old.trust.sum) }

// authenticator decides by what the broker trusts at the time of the call.
func authenticator(b *Broker) identity.Authenticator {
	return func(ctx context.Context, set *policy.Set, c *identity.Credentials) (identity.Login, *wire.Refusal) {
		return b.material.Load().trust.door.Authenticate(ctx, set, c)
	}
}

// clientTLS is the configuration of the client port. Certificates of clients are asked
// for where there is somebody to vouch for them, and are verified by the authenticator,
// not by crypto/tls: an authority is taken at its word for the names that it was given
// only, a refusal is put on record, and a reload asks again.
func clientTLS(cert *ca.Reloader, a *AuthenticationConfig) *tls.Config {
	cfg := cert.Config()
	if a.on(identity.MethodCertificate) {
		cfg.ClientAuth = tls.RequestClientCert
	}
	return cfg
}

// authorityFiles are the files of a that a reload reads.
func authorityFiles(a *AuthenticationConfig) []string {
	var out []string
	for _, c := range a.Certificates {
		out = append(out, c.CA)
	}
	for _, i := range a.Issuers {
		if i.Keys.File != "" {
			out = append(out, i.Keys.File)
		}
	}
	if dir := a.Enrolment.CA; dir != "" {
		out = append(out, filepath.Join(dir, ca.CACertFile), filepath.Join(dir, ca.CAKeyFile))
	}
	return out
}
