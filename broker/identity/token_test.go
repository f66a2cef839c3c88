package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

const (
	ciIssuer   = "https://ci.example"
	kubeIssuer = "https://kubernetes.default.svc"
	mainBranch = "repo:acme/shop:ref:refs/heads/main"
)

const tokenPolicy = `tenant: shop
principals:
  - {name: deployer, identities: [{oidc: {issuer: "https://ci.example", subject: "repo:acme/shop:ref:refs/heads/main", claims: {environment: production, protected: true}}}]}
  - {name: checkout, identities: [{serviceAccount: shop/checkout}]}
  - {name: plain, identities: [{oidc: {issuer: "https://ci.example", subject: plain}}]}
  - {name: gone, disabled: true, identities: [{oidc: {issuer: "https://ci.example", subject: gone}}]}
---
tenant: mill
principals:
  - {name: miller, identities: [{serviceAccount: mill/miller}]}
  - {name: thief, identities: [{serviceAccount: shop/billing}, {oidc: {issuer: "https://ci.example", subject: "repo:acme/mill"}}]}
`

// tokenWorld has an issuer of a CI system for shop and one cluster for both tenants.
type tokenWorld struct {
	set   *policy.Set
	trust *Trust
	rsa   *rsa.PrivateKey
	ec    *ecdsa.PrivateKey
	ed    ed25519.PrivateKey
}

func newTokenWorld(t testing.TB) *tokenWorld {
	w := &tokenWorld{set: compile(t, tokenPolicy)}
	var err error
	if w.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	if w.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	if _, w.ed, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	keys := StaticKeys{keySet(t, map[string]any{"rsa": w.rsa.Public(), "ec": w.ec.Public(), "ed": w.ed.Public()})}
	base := Issuer{Audiences: []string{"signet", "bus"}, Algorithms: []string{"RS256", "ES256"}, Skew: 30 * time.Second, MaxLifetime: time.Hour, Keys: keys}
	ci, kube := base, base
	ci.URL, ci.Tenants = ciIssuer, []GivenSubjects{{"shop", []string{"repo:acme/shop:*", "plain", "gone"}}}
	kube.URL, kube.Kubernetes = kubeIssuer, true
	kube.Tenants = []GivenSubjects{{"shop", []string{"system:serviceaccount:shop:*"}}, {"mill", []string{"system:serviceaccount:mill:*"}}}
	w.trust = New(Config{Nkeys: true, Issuers: []Issuer{ci, kube}})
	return w
}

func keySet(t testing.TB, keys map[string]any) *KeySet {
	t.Helper()
	set := jose.JSONWebKeySet{}
	for kid, k := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k, KeyID: kid, Use: "sig"})
	}
	doc, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	out, err := ParseKeySet(doc)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// claims are those of a good token of the CI system, changed.
func claims(change map[string]any) map[string]any {
	now := time.Now()
	c := map[string]any{
		"iss": ciIssuer, "sub": mainBranch, "aud": "signet", "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(),
		"environment": []string{"staging", "production"}, "protected": true,
	}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func kubeClaims(change map[string]any) map[string]any {
	c := claims(map[string]any{
		"iss": kubeIssuer, "sub": "system:serviceaccount:shop:checkout", "aud": []string{"bus"}, "environment": nil, "protected": nil,
		"kubernetes.io": map[string]any{"namespace": "shop", "pod": map[string]any{"name": "x"}, "serviceaccount": map[string]any{"name": "checkout", "uid": "1"}},
	})
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// sign makes a token.
func sign(t testing.TB, alg jose.SignatureAlgorithm, key any, kid string, head map[jose.HeaderKey]any, body any) string {
	t.Helper()
	o := (&jose.SignerOptions{ExtraHeaders: head}).WithHeader("kid", kid)
	if kid == "" {
		o = &jose.SignerOptions{ExtraHeaders: head}
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, o)
	if err != nil {
		t.Fatal(err)
	}
	text, ok := body.(string)
	if !ok {
		raw, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		text = string(raw)
	}
	jws, err := s.Sign([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	out, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestToken(t *testing.T) {
	w := newTokenWorld(t)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	good := func(change map[string]any) string { return sign(t, jose.RS256, w.rsa, "rsa", nil, claims(change)) }
	kube := func(change map[string]any) string { return sign(t, jose.RS256, w.rsa, "rsa", nil, kubeClaims(change)) }
	flip := func(s string) string {
		i := strings.LastIndexByte(s, '.') + 5
		c := byte('A')
		if s[i] == c {
			c = 'B'
		}
		return s[:i] + string(c) + s[i+1:]
	}
	part := func(v any) string {
		b, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(b)
	}
	public, err := json.Marshal(jose.JSONWebKey{Key: w.rsa.Public()})
	if err != nil {
		t.Fatal(err)
	}
	unsigned := part(map[string]string{"alg": "none"}) + "." + part(claims(nil)) + "."
	for _, tc := range []struct {
		name, token, want string
	}{
		{"claims in a list and a truth value", good(nil), "shop/deployer"},
		{"typ JWT", sign(t, jose.RS256, w.rsa, "rsa", map[jose.HeaderKey]any{"typ": "JWT"}, claims(nil)), "shop/deployer"},
		{"typ at+jwt", sign(t, jose.RS256, w.rsa, "rsa", map[jose.HeaderKey]any{"typ": "at+jwt"}, claims(nil)), "shop/deployer"},
		{"ES256", sign(t, jose.ES256, w.ec, "ec", nil, claims(nil)), "shop/deployer"},
		{"audience in a list", good(map[string]any{"aud": []string{"x", "bus"}}), "shop/deployer"},
		{"within the skew", good(map[string]any{"exp": now.Add(-10 * time.Second).Unix()}), "shop/deployer"},
		{"times as fractions", good(map[string]any{"exp": float64(now.Unix()) + 60.5}), "shop/deployer"},
		{"service account", kube(nil), "shop/checkout"},
		{"service account without details", kube(map[string]any{"kubernetes.io": nil}), "shop/checkout"},
		{"service account of the other tenant", kube(map[string]any{"sub": "system:serviceaccount:mill:miller", "kubernetes.io": nil}), "mill/miller"},

		{"not signed", unsigned, "tokens without a signature"},
		{"shared secret: the public key", sign(t, jose.HS256, public, "rsa", nil, claims(nil)), "shared secret"},
		{"algorithm that is not on the list of any issuer", sign(t, jose.EdDSA, w.ed, "ed", nil, claims(nil)), "with an algorithm of the issuers"},
		{"algorithm of another kind of key", part(map[string]string{"alg": "ES256", "kid": "rsa"}) + strings.TrimPrefix(good(nil), strings.Split(good(nil), ".")[0]), "no key"},
		{"another key under a known id", sign(t, jose.RS256, other, "rsa", nil, claims(nil)), "its signature is not that of the key"},
		{"unknown key", sign(t, jose.RS256, other, "new", nil, claims(nil)), "no key \"new\""},
		{"no key id among several keys", sign(t, jose.RS256, w.rsa, "", nil, claims(nil)), "no key"},
		{"flipped bit", flip(good(nil)), "its signature is not that of the key"},
		{"claims of another token", func() string {
			a, b := strings.Split(good(nil), "."), strings.Split(kube(nil), ".")
			return a[0] + "." + b[1] + "." + a[2]
		}(), "its signature is not that of the key"},
		{"typ of another kind of token", sign(t, jose.RS256, w.rsa, "rsa", map[jose.HeaderKey]any{"typ": "logout+jwt"}, claims(nil)), "no token for logging in"},
		{"typ that is no text", sign(t, jose.RS256, w.rsa, "rsa", map[jose.HeaderKey]any{"typ": 1}, claims(nil)), "no token for logging in"},
		{"unknown issuer", good(map[string]any{"iss": "https://ci.example/"}), "not one of authentication.issuers"},
		{"issuer of the other", good(map[string]any{"iss": kubeIssuer}), "no principal"},
		{"another audience", good(map[string]any{"aud": "kafka"}), "for the audience"},
		{"part of an audience", good(map[string]any{"aud": "signet "}), "for the audience"},
		{"no audience", good(map[string]any{"aud": nil}), "aud"},
		{"empty list of audiences", good(map[string]any{"aud": []string{}}), "for the audience"},
		{"audience that is no text", good(map[string]any{"aud": 5}), "aud"},
		{"expired", good(map[string]any{"iat": now.Add(-2 * time.Minute).Unix(), "exp": now.Add(-time.Minute).Unix()}), "it expired"},
		{"never expires", good(map[string]any{"exp": nil}), "never expires"},
		{"lives too long", good(map[string]any{"exp": now.Add(2 * time.Hour).Unix()}), "it lives for"},
		{"lives too long, without a beginning", good(map[string]any{"iat": nil, "exp": now.Add(2 * time.Hour).Unix()}), "it lives for"},
		{"not yet", good(map[string]any{"nbf": now.Add(time.Minute).Unix()}), "not good before"},
		{"issued in the future", good(map[string]any{"iat": now.Add(time.Minute).Unix()}), "yet to come"},
		{"time that is no number", good(map[string]any{"exp": "soon"}), "exp"},
		{"time beyond all bounds", good(map[string]any{"exp": 1e300}), "exp"},
		{"no subject", good(map[string]any{"sub": nil}), "sub"},
		{"unknown subject", good(map[string]any{"sub": "repo:acme/shop:other"}), "no principal"},
		{"subject with a blank behind it", good(map[string]any{"sub": mainBranch + " "}), "no principal"},
		{"subject that the tenant was not given", good(map[string]any{"sub": "repo:acme/mill"}), "no principal"},
		{"disabled principal", good(map[string]any{"sub": "gone"}), "disabled"},
		{"claim is missing", good(map[string]any{"environment": nil}), "claim environment"},
		{"claim has another value", good(map[string]any{"environment": []string{"staging"}}), "claim environment"},
		{"truth as a text", good(map[string]any{"protected": "true"}), "claim protected"},
		{"repeated member", sign(t, jose.RS256, w.rsa, "rsa", nil, strings.TrimSuffix(must(json.Marshal(claims(nil))), "}")+`,"sub":"plain"}`), "claims cannot be read"},
		{"no object", sign(t, jose.RS256, w.rsa, "rsa", nil, "[]"), "claims cannot be read"},
		{"service account by another issuer", good(map[string]any{"sub": "system:serviceaccount:shop:checkout"}), "no principal"},
		{"namespace that the tenant was not given", kube(map[string]any{"sub": "system:serviceaccount:shop:billing", "kubernetes.io": nil}), "no principal"},
		{"details that contradict the subject", kube(map[string]any{"sub": "system:serviceaccount:mill:miller"}), "no principal"},
		{"service account with a slash", kube(map[string]any{"sub": "system:serviceaccount:shop:check/out", "kubernetes.io": nil}), "no principal"},
		{"no token at all", "x", "not a signed JWT"},
		{"huge", strings.Repeat("a", maxTokenBytes+1), "over"},
		{"JSON form", func() string {
			s := strings.Split(good(nil), ".")
			return fmt.Sprintf(`{"payload":%q,"protected":%q,"signature":%q}`, s[1], s[0], s[2])
		}(), "compact form"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, c := range []*Credentials{{AuthToken: tc.token}, {JWT: tc.token}} {
				login, refusal := w.trust.Authenticate(t.Context(), w.set, c)
				if strings.HasPrefix(tc.want, "shop/") || strings.HasPrefix(tc.want, "mill/") {
					if refusal != nil {
						t.Fatalf("refused: %v %+v", refusal, refusal.Explain)
					}
					if login.Principal.FullName() != tc.want || login.Method != MethodToken || login.Until.IsZero() {
						t.Fatalf("got %+v", login)
					}
					continue
				}
				if refusal == nil || login.Principal != nil || refusal.Code != wire.CodeAuthFailed {
					t.Fatalf("admitted %+v", login)
				}
				if !strings.Contains(refusal.Explain.Fix, tc.want) {
					t.Errorf("the reason is %q, want %q", refusal.Explain.Fix, tc.want)
				}
				if got, want := string(refusal.Answer("", false)), string(failed("").Answer("", false)); got != want {
					t.Errorf("the answer says more than the code: %s", got)
				}
				if len(tc.token) > 40 && strings.Contains(refusal.Explain.Fix, tc.token[len(tc.token)-20:]) {
					t.Error("the reason holds the token")
				}
			}
		})
	}
}

func must(b []byte, err error) string {
	if err != nil {
		panic(err)
	}
	return string(b)
}

// A token beside another proof: all must hold, and a session ends with the first.
func TestTokenBesideOthers(t *testing.T) {
	w := newTokenWorld(t)
	alice := newUser(t)
	token := sign(t, jose.RS256, w.rsa, "rsa", nil, claims(nil))
	c := &Credentials{Nonce: NewNonce(), AuthToken: token, NkeyPublic: alice.public}
	c.Signature = encode(alice.sign(t, c.Nonce))
	for name, c := range map[string]*Credentials{
		"nkey": c, "signature": {AuthToken: token, Signature: "x"}, "two tokens": {AuthToken: token, JWT: token}, "password": {AuthToken: token, User: "u", Pass: "p"},
	} {
		if login, r := w.trust.Authenticate(t.Context(), w.set, c); r == nil || login.Principal != nil {
			t.Errorf("%s: admitted", name)
		}
	}
}

// A key that is not known is asked for, once, and a token is good if it is there then.
func TestTokenOfANewKey(t *testing.T) {
	w := newTokenWorld(t)
	fresh, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	src := &turning{now: keySet(t, map[string]any{"old": w.rsa.Public()}), next: keySet(t, map[string]any{"new": fresh.Public()})}
	w.trust.issuers[0].Keys = src
	old, new := sign(t, jose.RS256, w.rsa, "old", nil, claims(nil)), sign(t, jose.RS256, fresh, "new", nil, claims(nil))
	for _, token := range []string{old, new} {
		if _, r := w.trust.Authenticate(t.Context(), w.set, &Credentials{AuthToken: token}); r != nil {
			t.Fatalf("%+v", r.Explain)
		}
	}
	if _, r := w.trust.Authenticate(t.Context(), w.set, &Credentials{AuthToken: old}); r == nil {
		t.Error("a key that is withdrawn is still good")
	}
	if src.asked != 2 {
		t.Errorf("asked %d times, want 2", src.asked)
	}
}

type turning struct {
	now, next *KeySet
	asked     int
}

func (s *turning) Keys() *KeySet { return s.now }
func (s *turning) Refresh(context.Context) *KeySet {
	s.asked++
	s.now = s.next
	return s.now
}

func TestParseKeySet(t *testing.T) {
	weak := `{"kty":"RSA","kid":"w","e":"AQAB","n":"` + strings.Repeat("q", 171) + `"}`
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk := func(k any, use string) string {
		return must(json.Marshal(jose.JSONWebKey{Key: k, KeyID: "k", Use: use}))
	}
	secret := `{"kty":"oct","kid":"k","k":"AAAA"}`
	for _, doc := range []string{
		"", "{}", "[]", `{"keys":[]}`, `{"keys":[` + secret + `]}`, `{"keys":[` + weak + `]}`, `{"keys":[` + jwk(ec, "sig") + `]}`,
		`{"keys":[` + jwk(ec.Public(), "enc") + `]}`, `{"keys":[` + strings.TrimSuffix(strings.Repeat(jwk(ec.Public(), "sig")+",", maxKeys+1), ",") + `]}`,
		strings.Repeat(" ", MaxKeySetBytes+1),
	} {
		if s, err := ParseKeySet([]byte(doc)); err == nil {
			t.Errorf("%.80s: accepted, %d keys", doc, s.Len())
		}
	}
	s, err := ParseKeySet([]byte(`{"keys":[` + secret + `,{"kty":"new"},` + jwk(ec.Public(), "sig") + `]}`))
	if err != nil || s.Len() != 1 {
		t.Errorf("a key among others: %d, %v", s.Len(), err)
	}
	var none *KeySet
	if none.Len() != 0 || !none.Lacks(s) || s.Lacks(none) || s.Lacks(s) {
		t.Error("Lacks is wrong")
	}
}

func TestCheckSubjects(t *testing.T) {
	w := newTokenWorld(t)
	faults := policy.Faults(w.trust.Check(w.set))
	if len(faults) != 2 || !strings.Contains(faults[0].Msg, "repo:acme/mill") || !strings.Contains(faults[1].Msg, "shop/billing") {
		t.Errorf("got %v, want the two claims of the thief", faults)
	}
	both := compile(t, `tenant: shop
principals:
  - {name: a, identities: [{serviceAccount: shop/x}]}
  - {name: b, identities: [{oidc: {issuer: "https://kubernetes.default.svc", subject: "system:serviceaccount:shop:x"}}]}
`)
	if err := w.trust.Check(both); err == nil || !strings.Contains(err.Error(), "a name belongs to one principal") {
		t.Errorf("one account under two kinds of names: %v", err)
	}
	c := kubeClaims(map[string]any{"sub": "system:serviceaccount:shop:x", "kubernetes.io": nil})
	if login, r := w.trust.Authenticate(t.Context(), both, &Credentials{AuthToken: sign(t, jose.RS256, w.rsa, "rsa", nil, c)}); r == nil {
		t.Errorf("admitted as %s", login.Principal.FullName())
	}
	second := w.trust.issuers[1]
	second.URL = "https://other.cluster"
	w.trust.issuers = append(w.trust.issuers, second)
	one := compile(t, "tenant: shop\nprincipals: [{name: a, identities: [{serviceAccount: shop/x}]}]\n")
	if err := w.trust.Check(one); err == nil || !strings.Contains(err.Error(), "write oidc") {
		t.Errorf("an account of two clusters: %v", err)
	}
}

// Whatever is presented as a token without a key of the issuer is refused.
func FuzzToken(f *testing.F) {
	w := newTokenWorld(f)
	good := sign(f, jose.RS256, w.rsa, "rsa", nil, claims(nil))
	f.Add(good[:len(good)-1])
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_\n" {
		f.Add(good[:len(good)-1] + string(c))
	}
	f.Add(sign(f, jose.HS256, []byte("secretsecretsecretsecretsecretse"), "rsa", nil, claims(nil)))
	f.Add("e30.e30.")
	f.Fuzz(func(t *testing.T, token string) {
		if token == good {
			return
		}
		if login, r := w.trust.Authenticate(t.Context(), w.set, &Credentials{AuthToken: token}); token != "" && (r == nil || login.Principal != nil) {
			t.Fatalf("admitted %q", token)
		}
	})
}

// No document makes the reader of keys panic, and what it takes are public keys.
func FuzzParseKeySet(f *testing.F) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	for _, k := range []any{ec, ec.Public(), []byte("secret")} {
		f.Add([]byte(`{"keys":[` + must(json.Marshal(jose.JSONWebKey{Key: k, KeyID: "k"})) + `]}`))
	}
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB"}]}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		s, err := ParseKeySet(doc)
		if (err == nil) != (s.Len() > 0) {
			t.Fatalf("%d keys, %v", s.Len(), err)
		}
		if err != nil {
			return
		}
		for _, k := range s.keys {
			if !k.IsPublic() || !verifies(k.Key) {
				t.Errorf("taken: %T", k.Key)
			}
		}
	})
}

// TestTokenTwoClusters: a policy that was applied before a second cluster was configured
// does not say of which cluster its account is: neither of them proves it, but for an identity that
// names its issuer.
func TestTokenTwoClusters(t *testing.T) {
	w := newTokenWorld(t)
	second := w.trust.issuers[1]
	second.URL = "https://second.example"
	c := Config{Issuers: append(slices.Clone(w.trust.issuers), second)}
	token := func(issuer string) string {
		return sign(t, jose.RS256, w.rsa, "rsa", nil, kubeClaims(map[string]any{"iss": issuer}))
	}
	if _, refusal := New(c).Authenticate(t.Context(), w.set, &Credentials{AuthToken: token(kubeIssuer)}); refusal == nil || !strings.Contains(refusal.Explain.Fix, "both speak for the account") {
		t.Errorf("the first cluster: %+v", refusal)
	}
	if _, refusal := New(c).Authenticate(t.Context(), w.set, &Credentials{AuthToken: token(second.URL)}); refusal == nil || !strings.Contains(refusal.Explain.Fix, "both speak for the account") {
		t.Errorf("the second cluster: %+v", refusal)
	}
	c.Issuers[2].Tenants = []GivenSubjects{{"mill", []string{"system:serviceaccount:mill:*"}}}
	if login, refusal := New(c).Authenticate(t.Context(), w.set, &Credentials{AuthToken: token(kubeIssuer)}); refusal != nil || login.Principal.FullName() != "shop/checkout" {
		t.Errorf("the second speaks for another tenant: %+v %+v", login, refusal)
	}
	if _, refusal := New(c).Authenticate(t.Context(), w.set, &Credentials{AuthToken: token(second.URL)}); refusal == nil {
		t.Error("the second proves an account of a tenant that it was not given")
	}
}
