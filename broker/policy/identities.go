package policy

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/signetbus/signet/internal/wire"
)

// Identities are the names of a principal that others vouch for; its nkeys, which it
// proves by itself, are apart. A name belongs to one principal. Whether the operator
// lets the tenant use a name at all is not the policy's to say: see broker/identity.
type Identities struct {
	SPIFFE          []Identity // spiffe://domain/path
	DNS             []Identity // names in certificates
	ServiceAccounts []Identity // namespace/name of Kubernetes
	OIDC            []OIDCIdentity
}

// Identity is one name and where it stands.
type Identity struct {
	Name string
	At   Position
}

// OIDCIdentity is the subject of an issuer whose tokens bear all of Claims.
type OIDCIdentity struct {
	Issuer  string // https URL, byte for byte the iss of the tokens
	Subject string
	Claims  []Claim // sorted by name
	At      Position
}

// Claim is what a token must bear: a string or a list of strings that has Text, or,
// where Bool is set, that truth value.
type Claim struct {
	Name, Text string
	Bool       *bool
}

// maxClaims bounds the claims of one identity.
const maxClaims = 16

// any reports whether there is a name.
func (d *Identities) any() bool {
	return len(d.SPIFFE)+len(d.DNS)+len(d.ServiceAccounts)+len(d.OIDC) > 0
}

// CanConnect reports whether the principal has an identity at all.
func (p *Principal) CanConnect() bool { return len(p.Nkeys) > 0 || p.Identities.any() }

// identityKey is where Set finds the principal of a name. Tenant is of service
// accounts only: their names mean something within a cluster, and tenants may be given
// different ones.
type identityKey struct{ kind, tenant, name string }

const (
	kindSPIFFE  = "spiffe"
	kindDNS     = "dns"
	kindAccount = "serviceAccount"
	kindOIDC    = "oidc"
)

// each calls visit with every name of a principal of the tenant.
func (d *Identities) each(tenant string, visit func(identityKey, Position)) {
	for _, v := range d.SPIFFE {
		visit(identityKey{kind: kindSPIFFE, name: v.Name}, v.At)
	}
	for _, v := range d.DNS {
		visit(identityKey{kind: kindDNS, name: v.Name}, v.At)
	}
	for _, v := range d.ServiceAccounts {
		visit(identityKey{kindAccount, tenant, v.Name}, v.At)
	}
	for _, v := range d.OIDC {
		visit(oidcKey(v.Issuer, v.Subject), v.At)
	}
}

// oidcKey: an issuer holds no blank.
func oidcKey(issuer, subject string) identityKey {
	return identityKey{kind: kindOIDC, name: issuer + " " + subject}
}

// BySPIFFE returns the principal with that SPIFFE ID, or nil. It may be disabled; so may
// those of the functions below.
func (s *Set) BySPIFFE(id string) *Principal { return s.byIdentityOf(kindSPIFFE, "", id) }

// ByDNS returns the principal with that DNS name, or nil.
func (s *Set) ByDNS(name string) *Principal { return s.byIdentityOf(kindDNS, "", name) }

// ByServiceAccount returns the principal of the tenant with that Kubernetes service
// account, "namespace/name", or nil.
func (s *Set) ByServiceAccount(tenant, account string) *Principal {
	return s.byIdentityOf(kindAccount, tenant, account)
}

// ByOIDC returns the principal with that subject of that issuer, or nil. What the
// identity asks of the other claims is for the caller to check.
func (s *Set) ByOIDC(issuer, subject string) *Principal {
	return s.byIdentity[oidcKey(issuer, subject)]
}

func (s *Set) byIdentityOf(kind, tenant, name string) *Principal {
	return s.byIdentity[identityKey{kind, tenant, name}]
}

// takenNames faults names that two principals claim, or one twice. Of one subject a
// principal may have several OIDC identities, with different claims.
type takenNames struct {
	faults *faults
	owner  map[identityKey]taken
}

type taken struct {
	principal string
	at        Position
	claims    [][]Claim
}

func newTakenNames(f *faults) *takenNames {
	return &takenNames{faults: f, owner: make(map[identityKey]taken)}
}

func (n *takenNames) add(tenant string, p *principalDecl) {
	full := tenant + "/" + p.name
	i := 0
	p.identities.each(tenant, func(k identityKey, at Position) {
		var claims []Claim
		if k.kind == kindOIDC {
			claims = p.identities.OIDC[i].Claims
			i++
		}
		t, known := n.owner[k]
		switch {
		case !known:
			n.owner[k] = taken{full, at, [][]Claim{claims}}
		case t.principal == full && k.kind == kindOIDC && !slices.ContainsFunc(t.claims, func(c []Claim) bool { return sameClaims(c, claims) }):
			t.claims = append(t.claims, claims)
			n.owner[k] = t
		default:
			n.faults.add(at, "identity %s %q is declared twice, first at %s", k.kind, k.name, t.at)
		}
	})
}

func sameClaims(a, b []Claim) bool {
	return slices.EqualFunc(a, b, func(a, b Claim) bool {
		return a.Name == b.Name && a.Text == b.Text && (a.Bool == nil) == (b.Bool == nil) && (a.Bool == nil || *a.Bool == *b.Bool)
	})
}

func (r *docReader) identity(n ast.Node, p *principalDecl) {
	names := func(to *[]Identity, check func(string) (string, error)) func(ast.Node) {
		return func(n ast.Node) {
			if s := parsed(&r.reader, n, "identity", check); s != "" {
				*to = append(*to, Identity{s, r.at(n)})
			}
		}
	}
	d := &p.identities
	seen := r.object(n, "identity", fields{
		"nkey": func(n ast.Node) {
			if s := parsed(&r.reader, n, "identity", checkNkey); s != "" {
				p.nkeys = append(p.nkeys, word{s, r.at(n)})
			}
		},
		"spiffe":         names(&d.SPIFFE, checkSPIFFE),
		"dns":            names(&d.DNS, checkDNS),
		"serviceAccount": names(&d.ServiceAccounts, checkServiceAccount),
		"oidc":           func(n ast.Node) { r.oidc(n, d) },
	})
	if seen != nil && len(seen) != 1 {
		r.fault(n, "identity: one kind per list entry is wanted")
	}
}

func (r *docReader) oidc(n ast.Node, d *Identities) {
	id := OIDCIdentity{At: r.at(n)}
	seen := r.object(n, "oidc", fields{
		"issuer":  func(n ast.Node) { id.Issuer = parsed(&r.reader, n, "issuer", checkIssuer) },
		"subject": func(n ast.Node) { id.Subject = parsed(&r.reader, n, "subject", checkTokenText) },
		"claims":  func(n ast.Node) { id.Claims = r.claims(n) },
	})
	r.need(n, "oidc", seen, "issuer", "subject")
	if id.Issuer != "" && id.Subject != "" {
		d.OIDC = append(d.OIDC, id)
	}
}

func (r *docReader) claims(n ast.Node) []Claim {
	list := make(map[string]Claim)
	r.named(n, "claims", func(name string, key, n ast.Node) {
		c := Claim{Name: name}
		switch err := checkClaim(name); {
		case err != nil:
			r.fault(key, "%v", err)
		case list[name].Name != "":
			r.fault(key, "claims: %q is repeated", name)
		}
		if b, ok := n.(*ast.BoolNode); ok {
			c.Bool = &b.Value
		} else {
			c.Text = parsed(&r.reader, n, "claim "+name, checkTokenText)
		}
		list[name] = c
	})
	if len(list) > maxClaims {
		r.fault(n, "claims: at most %d are wanted", maxClaims)
	}
	return slices.SortedFunc(maps.Values(list), func(a, b Claim) int { return strings.Compare(a.Name, b.Name) })
}

var (
	accountName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
	claimName   = regexp.MustCompile(`^[A-Za-z0-9_.:/-]{1,128}$`)
)

func checkSPIFFE(s string) (string, error) {
	if _, _, err := wire.ParseSPIFFE(s); err != nil {
		return "", fmt.Errorf("%q: %s", s, strings.TrimPrefix(err.Error(), "wire: "))
	}
	return s, nil
}

func checkDNS(s string) (string, error) {
	if err := wire.CheckDNSName(s); err != nil {
		return "", fmt.Errorf("%q: %s", s, strings.TrimPrefix(err.Error(), "wire: "))
	}
	return s, nil
}

func checkServiceAccount(s string) (string, error) {
	if !accountName.MatchString(s) {
		return "", fmt.Errorf("%q is not a service account: namespace/name is wanted", s)
	}
	return s, nil
}

func checkIssuer(s string) (string, error) { return s, CheckIssuer(s) }

// CheckIssuer reports whether s can be the issuer of tokens: an https URL of at most 255
// characters, the host in lower case, without user, query and fragment.
func CheckIssuer(s string) error {
	u, err := url.Parse(s)
	if err != nil || len(s) > 255 || u.Scheme != "https" || u.Host == "" || u.Host != strings.ToLower(u.Host) ||
		u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(s, "#") || u.String() != s {
		return fmt.Errorf("%q is not an issuer: an https URL without user, query and fragment is wanted, as in the iss of its tokens", s)
	}
	return nil
}

// checkTokenText is for what tokens say: printable ASCII, no blank at either end.
func checkTokenText(s string) (string, error) {
	if s == "" || len(s) > 255 || strings.TrimSpace(s) != s || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f }) {
		return "", errors.New("1 to 255 printable ASCII characters are wanted, no blank at either end")
	}
	return s, nil
}

func checkClaim(name string) error {
	switch name {
	case "iss", "sub", "aud", "exp", "nbf", "iat", "jti":
		return fmt.Errorf("claim %q cannot be asked for: the broker checks it itself", name)
	}
	if !claimName.MatchString(name) {
		return fmt.Errorf("%q is not the name of a claim (%s)", name, strings.Trim(claimName.String(), "^$"))
	}
	return nil
}
