package broker

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/broker/identity"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

// EnrolmentConfig lets whoever is logged in have certificates issued for the names of
// its principal, and the broker renew its own.
type EnrolmentConfig struct {
	// CA is the folder of the authority (signet ca init), with its key. It must be one of
	// authentication.certificates, and issues what that one may say. Read again when it
	// changes. Default: none.
	CA string `yaml:"ca"`
	// Lifetime of the certificates of clients; default ca.DefaultClientTTL, 5m to
	// ca.MaxClientTTL.
	Lifetime time.Duration `yaml:"lifetime"`
}

// minEnrolment leaves a client time to renew.
const minEnrolment = 5 * time.Minute

func (c *EnrolmentConfig) validate(fail func(string, ...any)) {
	if c.CA == "" && c.Lifetime != 0 {
		fail("authentication.enrolment: lifetime without ca")
	}
	if c.Lifetime != 0 && (c.Lifetime < minEnrolment || c.Lifetime > ca.MaxClientTTL) {
		fail("authentication.enrolment.lifetime: want %s to %s, got %s", minEnrolment, ca.MaxClientTTL, c.Lifetime)
	}
}

// enrolment is the authority that issues here. It is immutable; nil: there is none.
type enrolment struct {
	authority *ca.Authority
	lifetime  time.Duration
	file      string // of the authorities
	trusted   []int  // which of authentication.certificates it is one of
	speaks    []identity.Authority
}

func (c *EnrolmentConfig) load() (*enrolment, error) {
	if c.CA == "" {
		return nil, nil //nolint:nilnil // none is no fault
	}
	authority, err := ca.Load(c.CA)
	if err != nil {
		return nil, fmt.Errorf("broker: authentication.enrolment: %w", err)
	}
	return &enrolment{authority: authority, lifetime: c.Lifetime, file: c.CA}, nil
}

// sees notes whether the authorities number i have that of e among them.
func (e *enrolment) sees(roots *ca.Roots, i int) {
	if e != nil && roots.Has(e.authority) {
		e.trusted = append(e.trusted, i)
	}
}

// speaksFor keeps what the authority may say.
func (e *enrolment) speaksFor(all []identity.Authority) error {
	if e == nil {
		return nil
	}
	for _, i := range e.trusted {
		e.speaks = append(e.speaks, all[i])
	}
	if len(e.speaks) == 0 {
		return fmt.Errorf("broker: authentication.enrolment: no file of authentication.certificates has the authority of %s: what it issued would be refused", e.file)
	}
	return nil
}

// certificate is that of the authority, for the comparison of two reloads.
func (e *enrolment) certificate() []byte {
	if e == nil {
		return nil
	}
	return e.authority.CertPEM()
}

// certifier returns what serves keys.certify; nil where the configuration has no authority.
func certifier(b *Broker) func(*policy.Principal, []byte) (adminapi.Certified, error) {
	if b.cfg.Authentication.Enrolment.CA == "" {
		return nil
	}
	return func(p *policy.Principal, request []byte) (adminapi.Certified, error) { return certify(b, p, request) }
}

// certify signs a request of p for names that the policy has under its identities and
// that the authority may say in its tenant: what the gate would take from it.
func certify(b *Broker, p *policy.Principal, request []byte) (adminapi.Certified, error) {
	e := b.material.Load().trust.enrolment
	req, names, err := ca.ReadRequest(request)
	if err != nil {
		return adminapi.Certified{}, wire.Refuse(wire.CodeRequestMalformed, "enrolment", err.Error())
	}
	may := func(a identity.Authority) bool { return a.GivesAll(p.Tenant.Name, names.SPIFFE, names.DNS) }
	if !owns(p, names) || !slices.ContainsFunc(e.speaks, may) {
		return adminapi.Certified{}, wire.Refuse(wire.CodeNameDenied, "enrolment", "")
	}
	chain, until, err := e.authority.Sign(req, names, e.lifetime)
	if err != nil {
		return adminapi.Certified{}, err
	}
	b.trail.Event("certificate-issued", p.Tenant.Name, p.FullName(), "",
		fmt.Sprintf("%s until %s", strings.TrimSpace(names.SPIFFE+" "+strings.Join(names.DNS, " ")), until.UTC().Format(time.RFC3339)))
	return adminapi.Certified{Chain: string(chain), NotAfter: until}, nil
}

// owns reports whether all names are under identities of p.
func owns(p *policy.Principal, names ca.Names) bool {
	has := func(list []policy.Identity, name string) bool {
		return slices.ContainsFunc(list, func(i policy.Identity) bool { return i.Name == name })
	}
	return (names.SPIFFE == "" || has(p.Identities.SPIFFE, names.SPIFFE)) &&
		!slices.ContainsFunc(names.DNS, func(d string) bool { return !has(p.Identities.DNS, d) })
}
