package identity

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// Given is what one authority may say in one tenant: patterns of names. Without a
// pattern of a kind it says nothing of that kind.
type Given struct {
	Tenant string
	SPIFFE []string // an ID, or everything below a path: spiffe://domain/path/*
	DNS    []string // a name, or everything below one: *.example.org
}

// spiffeNames and dnsNames choose the patterns of a kind.
func spiffeNames(g *Given) []string { return g.SPIFFE }
func dnsNames(g *Given) []string    { return g.DNS }

// CheckSPIFFEPattern reports what is wrong with a pattern of Given.SPIFFE.
func CheckSPIFFEPattern(pattern string) error {
	id := pattern
	if below, ok := strings.CutSuffix(pattern, "/*"); ok {
		id = below + "/x"
	}
	if _, _, err := wire.ParseSPIFFE(id); err != nil {
		return fmt.Errorf("%q is not a SPIFFE ID, nor spiffe://DOMAIN/PATH/* for everything below a path", pattern)
	}
	return nil
}

// CheckDNSPattern reports what is wrong with a pattern of Given.DNS.
func CheckDNSPattern(pattern string) error {
	name := pattern
	if below, ok := strings.CutPrefix(pattern, "*."); ok {
		name = "x." + below
	}
	if wire.CheckDNSName(name) != nil {
		return fmt.Errorf("%q is not a DNS name in lower case, nor *.NAME for everything below it", pattern)
	}
	return nil
}

// within reports whether name fits one of the patterns. A * is at one end only, next to
// a separator, so that whole segments or labels are compared.
func within(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		if head, ok := strings.CutSuffix(pattern, "*"); ok {
			return len(name) > len(head) && strings.HasPrefix(name, head)
		}
		if tail, ok := strings.CutPrefix(pattern, "*"); ok {
			return len(name) > len(tail) && strings.HasSuffix(name, tail)
		}
		return pattern == name
	})
}

// gives reports whether a may say name in the tenant; in any tenant if it is empty.
func (a *Authority) gives(tenant, name string, kind func(*Given) []string) bool {
	for i := range a.Tenants {
		g := &a.Tenants[i]
		if (tenant == "" || g.Tenant == tenant) && within(kind(g), name) {
			return true
		}
	}
	return false
}

// GivesAll reports whether the authority may say each of the names in the tenant.
func (a *Authority) GivesAll(tenant, spiffe string, dns []string) bool {
	return (spiffe == "" || a.gives(tenant, spiffe, spiffeNames)) &&
		!slices.ContainsFunc(dns, func(d string) bool { return !a.gives(tenant, d, dnsNames) })
}

func (t *Trust) given(tenant, name string, kind func(*Given) []string) bool {
	return slices.ContainsFunc(t.authorities, func(a Authority) bool { return a.gives(tenant, name, kind) })
}

// Word is what an operator has given to whom, without the roots and keys that it is proven
// by: enough to judge a policy by, and not to let anybody in. Nodes tell it each other.
type Word struct {
	Authorities [][]Given    `json:"authorities,omitempty"`
	Issuers     []IssuerWord `json:"issuers,omitempty"`
	NodePrefix  string       `json:"nodePrefix,omitempty"`
}

// IssuerWord is what an issuer may say.
type IssuerWord struct {
	URL        string          `json:"url"`
	Kubernetes bool            `json:"kubernetes,omitempty"`
	Tenants    []GivenSubjects `json:"tenants,omitempty"`
}

// Word returns what was given.
func (t *Trust) Word() Word {
	w := Word{NodePrefix: t.nodePrefix}
	for i := range t.authorities {
		w.Authorities = append(w.Authorities, t.authorities[i].Tenants)
	}
	for i := range t.issuers {
		w.Issuers = append(w.Issuers, IssuerWord{t.issuers[i].URL, t.issuers[i].Kubernetes, t.issuers[i].Tenants})
	}
	return w
}

// Check is Trust.Check for what another node has told.
func (w *Word) Check(set *policy.Set) error {
	c := Config{NodePrefix: w.NodePrefix}
	for _, tenants := range w.Authorities {
		c.Authorities = append(c.Authorities, Authority{Tenants: tenants})
	}
	for _, i := range w.Issuers {
		c.Issuers = append(c.Issuers, Issuer{URL: i.URL, Kubernetes: i.Kubernetes, Tenants: i.Tenants})
	}
	return New(c).Check(set)
}

// faults collects what is wrong with a policy.
type faults struct{ list []error }

func (f *faults) add(at policy.Position, format string, args ...any) {
	f.list = append(f.list, &policy.Fault{At: at, Msg: fmt.Sprintf(format, args...)})
}

func (f *faults) err() error { return errors.Join(f.list...) }
