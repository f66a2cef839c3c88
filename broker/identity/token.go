package identity

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// Issuer signs tokens (OIDC ID tokens, tokens of Kubernetes service accounts) that say
// who a client is.
type Issuer struct {
	URL         string // the iss of its tokens, byte for byte
	Audiences   []string
	Algorithms  []string // of Algorithms
	Kubernetes  bool     // its subjects are those of service accounts
	Skew        time.Duration
	MaxLifetime time.Duration
	Keys        KeySource
	Tenants     []GivenSubjects
}

// GivenSubjects is what an issuer may say in one tenant: subjects, or prefixes of them
// with a * at the end.
type GivenSubjects struct {
	Tenant   string
	Subjects []string
}

const (
	// maxTokenBytes bounds a token before anything of it is read.
	maxTokenBytes = 12 << 10
	// refreshWait bounds how long a login waits for keys that its token names.
	refreshWait = time.Second
	// accountPrefix starts the subjects of Kubernetes service accounts.
	accountPrefix = "system:serviceaccount:"
)

// tokenTypes are the values of the typ header that a token for logging in may have.
// Other kinds of tokens of the same issuer and key, such as for a logout, have theirs.
var tokenTypes = []string{"", "jwt", "at+jwt", "application/at+jwt"}

// CheckSubjectPattern reports what is wrong with a pattern of GivenSubjects.
func CheckSubjectPattern(pattern string) error {
	body := strings.TrimSuffix(pattern, "*")
	if pattern == "" || len(pattern) > 255 || strings.Contains(body, "*") || strings.ContainsFunc(body, func(r rune) bool { return r < ' ' || r >= 0x7f }) {
		return fmt.Errorf("%q is not a subject, nor the start of subjects with a * at the end", pattern)
	}
	return nil
}

// gives reports whether the issuer may say subject in the tenant.
func (i *Issuer) gives(tenant, subject string) bool {
	return slices.ContainsFunc(i.Tenants, func(g GivenSubjects) bool {
		return g.Tenant == tenant && slices.ContainsFunc(g.Subjects, func(pattern string) bool {
			if head, ok := strings.CutSuffix(pattern, "*"); ok {
				return strings.HasPrefix(subject, head)
			}
			return pattern == subject
		})
	})
}

// token checks a bearer token: form, issuer, algorithm, signature, audience and times,
// and that the issuer may say so in the tenant of the principal that has the subject.
func (t *Trust) token(ctx context.Context, set *policy.Set, c *Credentials) (Login, *wire.Refusal) {
	raw := c.AuthToken + c.JWT // one of them is empty
	issuer, claims, err := t.verified(ctx, raw)
	if err == nil {
		err = issuer.current(claims, t.now())
	}
	if err != nil {
		return Login{}, failed("the token: " + err.Error())
	}
	// Only now is the policy asked: whoever has no token of an issuer learns nothing.
	p, name, refusal := issuer.principal(set, claims)
	if refusal == nil {
		refusal = t.oneCluster(p, issuer, claims)
	}
	if refusal != nil {
		return Login{}, refusal
	}
	return Login{Principal: p, Method: MethodToken, Name: name, Until: claims.Expires.Add(issuer.Skew)}, nil
}

// verified returns the claims of a token whose signature holds.
func (t *Trust) verified(ctx context.Context, raw string) (*Issuer, *tokenClaims, error) {
	if len(raw) > maxTokenBytes {
		return nil, nil, fmt.Errorf("it is over %d bytes", maxTokenBytes)
	}
	jws, err := jose.ParseSignedCompact(raw, t.algorithms)
	if err != nil || len(jws.Signatures) != 1 || !canonical(raw) {
		return nil, nil, errors.New("it is not a signed JWT in compact form with an algorithm of the issuers: tokens without a signature or with a shared secret are never taken")
	}
	head := &jws.Signatures[0].Protected
	typ, stated := head.ExtraHeaders[jose.HeaderType]
	kind, text := typ.(string)
	if _, critical := head.ExtraHeaders["crit"]; critical || stated && !text || !slices.Contains(tokenTypes, strings.ToLower(kind)) {
		return nil, nil, fmt.Errorf("its header asks for what is not known here (crit), or says that it is no token for logging in (typ %.40q)", kind)
	}
	// What follows is from before the signature was checked: it only chooses whose keys
	// to check it with.
	from, err := issuerOf(jws.UnsafePayloadWithoutVerification())
	if err != nil {
		return nil, nil, err
	}
	at := slices.IndexFunc(t.issuers, func(i Issuer) bool { return i.URL == from })
	if at < 0 {
		return nil, nil, fmt.Errorf("its issuer %.100q is not one of authentication.issuers", from)
	}
	issuer := &t.issuers[at]
	if !slices.Contains(issuer.Algorithms, head.Algorithm) {
		return nil, nil, fmt.Errorf("its algorithm %s is not one of those of the issuer %s", head.Algorithm, issuer.URL)
	}
	payload, err := issuer.verify(ctx, jws, head)
	if err != nil {
		return nil, nil, err
	}
	claims, err := parseClaims(payload)
	if err == nil && claims.Issuer != issuer.URL {
		err = errors.New("it names two issuers")
	}
	return issuer, claims, err
}

// canonical reports whether the parts of a token are written in their one spelling: the
// library passes over bits that do not count.
func canonical(raw string) bool {
	for part := range strings.SplitSeq(raw, ".") {
		if _, err := base64.RawURLEncoding.Strict().DecodeString(part); err != nil || strings.ContainsAny(part, "\r\n") {
			return false
		}
	}
	return true
}

// verify returns the payload of a token that a key of the issuer has signed. A key that
// is not known is asked for, within the bounds of the source.
func (i *Issuer) verify(ctx context.Context, jws *jose.JSONWebSignature, head *jose.Header) ([]byte, error) {
	keys := i.Keys.Keys()
	list := keys.candidates(head.KeyID, head.Algorithm)
	if len(list) == 0 {
		wait, cancel := context.WithTimeout(ctx, refreshWait)
		defer cancel()
		keys = i.Keys.Refresh(wait)
		list = keys.candidates(head.KeyID, head.Algorithm)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("the issuer %s has no key %.100q for %s among the %d that are known", i.URL, head.KeyID, head.Algorithm, keys.Len())
	}
	for k := range list {
		if payload, err := jws.Verify(&list[k]); err == nil {
			return payload, nil
		}
	}
	return nil, fmt.Errorf("its signature is not that of the key %.100q of the issuer %s", head.KeyID, i.URL)
}

// current checks what the issuer says about where and when the token is good.
func (i *Issuer) current(c *tokenClaims, now time.Time) error {
	switch {
	case !slices.ContainsFunc(c.Audience, func(a string) bool { return slices.Contains(i.Audiences, a) }):
		return fmt.Errorf("it is for the audience %.200q, not for %q", c.Audience, i.Audiences)
	case c.Expires.IsZero():
		return errors.New("it never expires (no exp): such tokens are not taken")
	case !now.Before(c.Expires.Add(i.Skew)):
		return fmt.Errorf("it expired at %s", c.Expires.UTC().Format(time.RFC3339))
	case c.NotBefore.After(now.Add(i.Skew)):
		return fmt.Errorf("it is not good before %s", c.NotBefore.UTC().Format(time.RFC3339))
	case c.IssuedAt.After(now.Add(i.Skew)):
		return fmt.Errorf("it was issued at %s, which is yet to come: set the clocks", c.IssuedAt.UTC().Format(time.RFC3339))
	}
	from := now
	if !c.IssuedAt.IsZero() {
		from = c.IssuedAt
	}
	if life := c.Expires.Sub(from); life > i.MaxLifetime+i.Skew {
		return fmt.Errorf("it lives for %s, at most %s is taken (maxLifetime)", life.Round(time.Second), i.MaxLifetime)
	}
	return nil
}

// principal returns the one principal that the issuer's subject belongs to.
func (i *Issuer) principal(set *policy.Set, c *tokenClaims) (*policy.Principal, string, *wire.Refusal) {
	var found []*policy.Principal
	if p := set.ByOIDC(i.URL, c.Subject); p != nil && i.gives(p.Tenant.Name, c.Subject) {
		found = append(found, p)
	}
	account := ""
	if i.Kubernetes {
		account = serviceAccount(c)
		for _, g := range i.Tenants {
			if p := set.ByServiceAccount(g.Tenant, account); p != nil && i.gives(g.Tenant, c.Subject) && !slices.Contains(found, p) {
				found = append(found, p)
			}
		}
	}
	switch {
	case len(found) > 1:
		return nil, "", failed(fmt.Sprintf("the subject %q of %s is both %s and %s: a name belongs to one principal", c.Subject, i.URL, found[0].FullName(), found[1].FullName()))
	case len(found) == 0:
		return nil, "", failed(fmt.Sprintf("no principal of a tenant of the issuer %s has the subject %q: add it under identities of a principal, and have the operator give it to the tenant", i.URL, c.Subject))
	case set.ByServiceAccount(found[0].Tenant.Name, account) == found[0] && account != "":
	default:
		if missing := lacking(found[0], i.URL, c); missing != "" {
			return nil, "", failed(fmt.Sprintf("the token of %q lacks what the identity of %s asks for: %s", c.Subject, found[0].FullName(), missing))
		}
	}
	p, refusal := admissible(found[0], "subject", c.Subject)
	return p, c.Subject, refusal
}

// oneCluster refuses a service account that several clusters speak for, where no identity of
// p says which of them is meant: Check refuses such a policy, and one that was applied
// before the second cluster was configured is in force all the same.
func (t *Trust) oneCluster(p *policy.Principal, issuer *Issuer, c *tokenClaims) *wire.Refusal {
	if !issuer.Kubernetes || slices.ContainsFunc(p.Identities.OIDC, func(d policy.OIDCIdentity) bool {
		return d.Issuer == issuer.URL && d.Subject == c.Subject
	}) {
		return nil
	}
	for k := range t.issuers {
		if o := &t.issuers[k]; o.URL != issuer.URL && o.Kubernetes && o.gives(p.Tenant.Name, c.Subject) {
			return failed(fmt.Sprintf("the issuers %s and %s both speak for the account %q in tenant %s: write oidc with the one that is meant under identities of %s",
				issuer.URL, o.URL, c.Subject, p.Tenant.Name, p.FullName()))
		}
	}
	return nil
}

// lacking returns a claim that the token does not have, of the identities of p that name
// its subject; empty if one of them asks for no more than there is.
func lacking(p *policy.Principal, issuer string, c *tokenClaims) string {
	missing := "an identity"
	for _, d := range p.Identities.OIDC {
		if d.Issuer != issuer || d.Subject != c.Subject {
			continue
		}
		at := slices.IndexFunc(d.Claims, func(want policy.Claim) bool { return !c.has(want) })
		if at < 0 {
			return ""
		}
		missing = "claim " + d.Claims[at].Name
	}
	return missing
}

// serviceAccount returns namespace/name of the subject, empty if it is of another form
// or the token contradicts itself.
func serviceAccount(c *tokenClaims) string {
	rest, ok := strings.CutPrefix(c.Subject, accountPrefix)
	namespace, name, both := strings.Cut(rest, ":")
	if !ok || !both || namespace == "" || name == "" || strings.Contains(name, ":") || strings.Contains(rest, "/") || !c.agrees(namespace, name) {
		return ""
	}
	return namespace + "/" + name
}
