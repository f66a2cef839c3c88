package identity

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/testca"
	"github.com/signetbus/signet/internal/wire"
)

const namesPolicy = `tenant: shop
principals:
  - {name: checkout, identities: [{spiffe: spiffe://shop.example/checkout}, {dns: checkout.shop.example}]}
  - {name: billing, identities: [{spiffe: spiffe://shop.example/billing}, {dns: billing.shop.example}]}
  - {name: gone, disabled: true, identities: [{spiffe: spiffe://shop.example/gone}]}
---
tenant: mill
principals:
  - {name: miller, identities: [{spiffe: spiffe://mill.example/miller}]}
  - {name: thief, identities: [{spiffe: spiffe://shop.example/thief}]}
`

// certWorld has an authority for each tenant and one that nobody trusts.
type certWorld struct {
	set                  *policy.Set
	shop, mill, stranger *testca.CA
	trust                *Trust
	soon                 time.Time
	intermediate         *testca.CA
}

func newCertWorld(t *testing.T) *certWorld {
	w := &certWorld{
		set: compile(t, namesPolicy), shop: testca.New(t, "shop"), mill: testca.New(t, "mill"), stranger: testca.New(t, "shop"),
		soon: time.Now().Add(20 * time.Minute).Truncate(time.Second),
	}
	w.intermediate = w.shop.Below("intermediate", w.soon)
	w.trust = New(Config{
		NodePrefix: "spiffe://shop.example/node/",
		Authorities: []Authority{
			{Name: "shop.pem", Roots: w.shop.Pool(), Tenants: []Given{{Tenant: "shop", SPIFFE: []string{"spiffe://shop.example/*"}, DNS: []string{"*.shop.example"}}}},
			{Name: "mill.pem", Roots: w.mill.Pool(), Tenants: []Given{{Tenant: "mill", SPIFFE: []string{"spiffe://mill.example/miller"}}}},
		},
	})
	return w
}

func encode(sig []byte) string { return base64.RawURLEncoding.EncodeToString(sig) }

// presented is what crypto/tls has of a client that sent cert.
func presented(t testing.TB, cert tls.Certificate) *Credentials {
	t.Helper()
	state := &tls.ConnectionState{}
	for _, der := range cert.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		state.PeerCertificates = append(state.PeerCertificates, c)
	}
	return &Credentials{TLS: state, Nonce: NewNonce()}
}

const checkoutID = "spiffe://shop.example/checkout"

func TestCertificate(t *testing.T) {
	w := newCertWorld(t)
	t.Setenv("GODEBUG", "rsa1024min=0") // else Go itself makes no such key
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	id := func(s ...string) testca.Leaf { return testca.Leaf{URIs: s} }
	with := func(change func(*testca.Leaf)) testca.Leaf {
		l := id(checkoutID)
		change(&l)
		return l
	}
	for _, tc := range []struct {
		name string
		by   *testca.CA
		leaf testca.Leaf
		want string // principal; else the reason
	}{
		{"SPIFFE ID", w.shop, id(checkoutID), "shop/checkout"},
		{"SPIFFE ID of the other tenant", w.mill, id("spiffe://mill.example/miller"), "mill/miller"},
		{"SPIFFE ID beside DNS names", w.shop, testca.Leaf{URIs: []string{checkoutID}, DNS: []string{"billing.shop.example", "*.x"}}, "shop/checkout"},
		{"through an intermediate", w.intermediate, id(checkoutID), "shop/checkout"},
		{"DNS name", w.shop, testca.Leaf{DNS: []string{"checkout.shop.example"}}, "shop/checkout"},
		{"several DNS names of one principal", w.shop, testca.Leaf{DNS: []string{"unknown.shop.example", "checkout.shop.example"}}, "shop/checkout"},

		{"DNS names of two principals", w.shop, testca.Leaf{DNS: []string{"checkout.shop.example", "billing.shop.example"}}, "one certificate is for one principal"},
		{"common name only", w.shop, testca.Leaf{CommonName: "checkout.shop.example"}, "the common name does not count"},
		{"two SPIFFE IDs", w.shop, id(checkoutID, "spiffe://shop.example/billing"), "2 URI names"},
		{"the same SPIFFE ID twice", w.shop, id(checkoutID, checkoutID), "2 URI names"},
		{"SPIFFE ID and another URI", w.shop, id(checkoutID, "https://shop.example"), "2 URI names"},
		{"URI that is no SPIFFE ID beside a DNS name", w.shop, testca.Leaf{URIs: []string{"https://x/"}, DNS: []string{"checkout.shop.example"}}, "not a SPIFFE ID"},
		{"upper case scheme", w.shop, id("SPIFFE://shop.example/checkout"), "not a SPIFFE ID"},
		{"upper case domain", w.shop, id("spiffe://Shop.example/checkout"), "not a SPIFFE ID"},
		{"escaped", w.shop, id("spiffe://shop.example/check%6Fut"), "not a SPIFFE ID"},
		{"wildcard", w.shop, testca.Leaf{DNS: []string{"*.shop.example"}}, "no wildcard"},
		{"wildcard beside a name", w.shop, testca.Leaf{DNS: []string{"checkout.shop.example", "*.shop.example"}}, "no wildcard"},
		{"upper case DNS name", w.shop, testca.Leaf{DNS: []string{"Checkout.shop.example"}}, "not a DNS name"},
		{"no name", w.shop, testca.Leaf{}, "0 DNS names"},
		{"unknown SPIFFE ID", w.shop, id("spiffe://shop.example/nobody"), "no principal has this SPIFFE ID"},
		{"disabled principal", w.shop, id("spiffe://shop.example/gone"), "disabled"},

		{"authority that nobody trusts, of the same name", w.stranger, id(checkoutID), "does not verify"},
		{"authority of another tenant", w.mill, id(checkoutID), "does not verify"},
		{"name outside what the authority may say", w.mill, id("spiffe://mill.example/other"), "no authority"},
		{"name of one tenant in the policy of another", w.shop, id("spiffe://shop.example/thief"), "does not give it that name in tenant mill"},
		{"trust domain of nobody", w.shop, id("spiffe://evil.example/checkout"), "no authority"},
		{"expired", w.shop, with(func(l *testca.Leaf) { l.NotAfter = time.Now().Add(-time.Minute) }), "expired"},
		{"for servers", w.shop, with(func(l *testca.Leaf) { l.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), "clientAuth"},
		{"for nothing in particular", w.shop, with(func(l *testca.Leaf) { l.NoUsage = true }), "clientAuth"},
		{"key that may not sign", w.shop, with(func(l *testca.Leaf) { l.KeyUsage = x509.KeyUsageKeyEncipherment }), "digitalSignature"},
		{"an authority itself", w.shop, with(func(l *testca.Leaf) { l.IsCA = true }), "certificate authority"},
		{"node of the cluster", w.shop, id("spiffe://shop.example/node/n1"), "node of the cluster"},
		{"weak key", w.shop, with(func(l *testca.Leaf) { l.Key = weak }), "1024 bits"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			login, refusal := w.trust.Authenticate(t.Context(), w.set, presented(t, tc.by.Issue(tc.leaf)))
			if strings.HasPrefix(tc.want, "shop/") || strings.HasPrefix(tc.want, "mill/") {
				if refusal != nil || login.Principal.FullName() != tc.want || login.Method != MethodCertificate || login.Until.IsZero() {
					t.Fatalf("got %+v, %v", login, refusal)
				}
				return
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
		})
	}
}

// The session ends with the certificate that ends first, be it that of an authority on
// the way.
func TestCertificateEnds(t *testing.T) {
	w := newCertWorld(t)
	end := time.Now().Add(5 * time.Minute).Truncate(time.Second)
	for name, tc := range map[string]struct {
		cert tls.Certificate
		want time.Time
	}{
		"leaf":         {w.intermediate.Issue(testca.Leaf{URIs: []string{checkoutID}, NotAfter: end}), end},
		"intermediate": {w.intermediate.Issue(testca.Leaf{URIs: []string{checkoutID}}), w.soon},
	} {
		login, refusal := w.trust.Authenticate(t.Context(), w.set, presented(t, tc.cert))
		if refusal != nil || !login.Until.Equal(tc.want) {
			t.Errorf("%s: until %v, %v; want %v", name, login.Until, refusal, tc.want)
		}
	}
}

// Every proof that is presented must hold, and all must be of one principal: nothing
// falls through to what is beside it.
func TestProofsTogether(t *testing.T) {
	w := newCertWorld(t)
	alice, bob := newUser(t), newUser(t)
	set := compile(t, strings.NewReplacer("{name: checkout, identities: [", "{name: checkout, identities: [{nkey: "+alice.public+"}, ",
		"{name: billing, identities: [", "{name: billing, identities: [{nkey: "+bob.public+"}, ").Replace(namesPolicy))
	w.trust.nkeys = true
	good, bad := w.shop.Issue(testca.Leaf{URIs: []string{checkoutID}}), w.stranger.Issue(testca.Leaf{URIs: []string{checkoutID}})
	nkey := func(c *Credentials, u user) *Credentials {
		c.NkeyPublic, c.Signature = u.public, encode(u.sign(t, c.Nonce))
		return c
	}
	if login, r := w.trust.Authenticate(t.Context(), set, nkey(presented(t, good), alice)); r != nil || login.Principal.Name != "checkout" || login.Until.IsZero() {
		t.Errorf("two proofs of one principal: %+v, %v", login, r)
	}
	wrongKey := nkey(presented(t, good), alice)
	wrongKey.Signature = encode(bob.sign(t, wrongKey.Nonce))
	for name, c := range map[string]*Credentials{
		"certificate that does not verify, good nkey": nkey(presented(t, bad), alice),
		"good certificate, bad nkey":                  wrongKey,
		"proofs of two principals":                    nkey(presented(t, good), bob),
		"no certificate in the handshake":             nkey(&Credentials{TLS: &tls.ConnectionState{}, Nonce: NewNonce()}, alice),
		"password beside a certificate":               func() *Credentials { c := presented(t, good); c.Pass = "x"; return c }(),
		"token beside a certificate":                  func() *Credentials { c := presented(t, good); c.AuthToken = "x"; return c }(),
	} {
		if login, r := w.trust.Authenticate(t.Context(), set, c); r == nil || login.Principal != nil {
			t.Errorf("%s: admitted as %v", name, login.Principal)
		}
	}
	only := &Trust{authorities: w.trust.authorities}
	if _, r := only.Authenticate(t.Context(), set, nkey(&Credentials{Nonce: NewNonce()}, alice)); r == nil {
		t.Error("an nkey was taken where the method is off")
	}
	if _, r := Nkey(t.Context(), set, nkey(presented(t, good), alice)); r == nil {
		t.Error("a certificate was passed over where the method is off")
	}
}

// A policy may not use a name that the operator did not give to its tenant.
func TestCheck(t *testing.T) {
	w := newCertWorld(t)
	err := w.trust.Check(compile(t, namesPolicy))
	if err == nil || !strings.Contains(err.Error(), "spiffe://shop.example/thief") || len(policy.Faults(err)) != 1 {
		t.Errorf("got %v, want a fault of the thief alone", err)
	}
	for name, claim := range map[string]string{
		"domain of nobody":           "spiffe: spiffe://evil.example/x",
		"node":                       "spiffe: spiffe://shop.example/node/n1",
		"the whole of a longer name": "spiffe: spiffe://mill.example/miller",
		"DNS name beside the suffix": "dns: evilshop.example",
		"the suffix itself":          "dns: shop.example",
	} {
		if w.trust.Check(compile(t, "tenant: shop\nprincipals: [{name: p, identities: [{"+claim+"}]}]\n")) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := w.trust.Check(compile(t, "tenant: shop\nprincipals: [{name: p, identities: [{spiffe: spiffe://shop.example/a/b}, {dns: a.b.shop.example}]}]\n")); err != nil {
		t.Error(err)
	}
}

func TestPatterns(t *testing.T) {
	for _, p := range []string{"spiffe://a/*", "spiffe://a/b/*", "spiffe://a/b"} {
		if err := CheckSPIFFEPattern(p); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	for _, p := range []string{"", "*", "spiffe://*", "spiffe://a", "spiffe://a/b*", "spiffe://a*/b", "spiffe://a/*/b", "spiffe://a//*", "/*"} {
		if CheckSPIFFEPattern(p) == nil {
			t.Errorf("%q: accepted", p)
		}
	}
	for _, p := range []string{"a.b", "*.a.b", "*.local"} {
		if err := CheckDNSPattern(p); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	for _, p := range []string{"", "*", "*.", "a.*", "*a.b", "A.b", "*.*.a"} {
		if CheckDNSPattern(p) == nil {
			t.Errorf("%q: accepted", p)
		}
	}
}

// No bytes in a certificate make the reader of names panic, and what it takes for a name
// crypto/x509 takes for one too.
func FuzzAltNames(f *testing.F) {
	ca := testca.New(f, "x")
	for _, l := range []testca.Leaf{{URIs: []string{checkoutID}}, {DNS: []string{"a.b", "c.d"}}, {URIs: []string{"a", "b"}, DNS: []string{"c"}}} {
		f.Add(ca.Issue(l).Certificate[0])
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		uris, dns, err := altNames(cert)
		if err == nil && (len(uris) != len(cert.URIs) || len(dns) != len(cert.DNSNames)) {
			t.Errorf("got %q and %q, crypto/x509 has %v and %q", uris, dns, cert.URIs, cert.DNSNames)
		}
		_, _ = leafNames(cert)
	})
}
