package broker_test

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/testca"
)

// meshPolicy has principals that come in by certificate, and one by nkey and certificate.
const meshPolicy = `tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 16MiB}
principals:
  - {name: checkout, identities: [{spiffe: spiffe://shop.example/checkout}], publish: [orders.>]}
  - {name: billing, identities: [{dns: billing.shop.example}], publish: [orders.>]}
  - {name: both, identities: [{nkey: '{{nkey "both"}}'}, {spiffe: spiffe://shop.example/both}], publish: [orders.>]}
  - {name: root, identities: [{nkey: '{{nkey "root"}}'}], admin: [policy, refusals, status]}
---
tenant: mill
streams:
  - {name: FLOUR, subjects: [flour.>], maxBytes: 16MiB}
principals:
  - {name: miller, identities: [{spiffe: spiffe://mill.example/miller}], publish: [flour.>]}
`

// mesh is a broker that trusts an authority for each tenant.
type mesh struct {
	*brokertest.Broker
	shop, mill *testca.CA
	shopFile   string
}

func newMesh(t *testing.T, change ...func(*brokertest.Options)) *mesh {
	t.Helper()
	m := &mesh{shop: testca.New(t, "shop"), mill: testca.New(t, "mill")}
	dir := t.TempDir()
	m.shopFile = filepath.Join(dir, "shop.pem")
	millFile := filepath.Join(dir, "mill.pem")
	check(t, errors.Join(os.WriteFile(m.shopFile, m.shop.PEM(), 0o600), os.WriteFile(millFile, m.mill.PEM(), 0o600)))
	m.Broker = newBroker(t, append([]func(*brokertest.Options){func(o *brokertest.Options) {
		o.Policy = meshPolicy
		o.Change = func(c *broker.Config) {
			quickDrain(c)
			c.Authentication.Certificates = []broker.AuthorityConfig{
				{CA: m.shopFile, Tenants: []broker.AuthorityTenant{{Name: "shop", SPIFFE: []string{"spiffe://shop.example/*"}, DNS: []string{"*.shop.example"}}}},
				{CA: millFile, Tenants: []broker.AuthorityTenant{{Name: "mill", SPIFFE: []string{"spiffe://mill.example/*"}}}},
			}
		}
	}}, change...)...)
	return m
}

// present connects unmodified nats.go with a client certificate.
func (m *mesh) present(t testing.TB, cert tls.Certificate, opts ...nats.Option) (*nats.Conn, error) {
	t.Helper()
	cfg := m.TLS()
	cfg.Certificates = []tls.Certificate{cert}
	nc, err := nats.Connect(m.URL(), append([]nats.Option{nats.Secure(cfg), nats.NoReconnect(), nats.Timeout(patience)}, opts...)...)
	if err == nil {
		t.Cleanup(nc.Close)
	}
	return nc, err
}

func uri(s string) testca.Leaf { return testca.Leaf{URIs: []string{s}} }

// TestClientCertificate: a workload comes in with the certificate of its authority
// alone, as the principal that has its name, and may do what that one may.
func TestClientCertificate(t *testing.T) {
	m := newMesh(t)
	for name, c := range map[string]struct {
		cert    tls.Certificate
		subject string
		denied  string
	}{
		"SPIFFE":             {m.shop.Issue(uri("spiffe://shop.example/checkout")), "orders.a", "flour.a"},
		"DNS":                {m.shop.Issue(testca.Leaf{DNS: []string{"billing.shop.example"}}), "orders.b", "flour.a"},
		"the other tenant":   {m.mill.Issue(uri("spiffe://mill.example/miller")), "flour.a", "orders.a"},
		"by an intermediate": {m.shop.Below("i", time.Now().Add(time.Hour)).Issue(uri("spiffe://shop.example/checkout")), "orders.c", "flour.a"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &peer{}
			p.Conn = must(m.present(t, c.cert, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
				p.mu.Lock()
				p.errs = append(p.errs, err)
				p.mu.Unlock()
			})))(t)
			p.publish(t, c.subject, "x")
			if problem, _ := p.ask(t, c.denied, "x"); problem == nil || problem.Status != 403 {
				t.Errorf("%s: got %+v, want a refusal", c.denied, problem)
			}
		})
	}
	// The same principal without a certificate, and with both proofs.
	check(t, m.NATS("both").FlushTimeout(patience))
	seed := must(nats.NkeyOptionFromSeed(m.Cred("both")))(t)
	check(t, must(m.present(t, m.shop.Issue(uri("spiffe://shop.example/both")), seed))(t).FlushTimeout(patience))
}

// TestClientCertificateRefused: what does not hold is refused with the words that
// every failure has, whatever good proof stands beside it; the reason is on record.
func TestClientCertificateRefused(t *testing.T) {
	var log logBuffer
	m := newMesh(t, logTo(&log))
	stranger := testca.New(t, "shop")
	nkey := func(principal string) nats.Option { return must(nats.NkeyOptionFromSeed(m.Cred(principal)))(t) }
	for name, c := range map[string]struct {
		cert tls.Certificate
		opts []nats.Option
		why  string
	}{
		"another authority":                    {stranger.Issue(uri("spiffe://shop.example/checkout")), nil, "does not verify"},
		"another authority beside a good nkey": {stranger.Issue(uri("spiffe://shop.example/both")), []nats.Option{nkey("both")}, "does not verify"},
		"no name beside a good nkey":           {m.shop.Issue(testca.Leaf{CommonName: "both"}), []nats.Option{nkey("both")}, "the common name does not count"},
		"another's nkey":                       {m.shop.Issue(uri("spiffe://shop.example/both")), []nats.Option{nkey("root")}, "proofs of one principal"},
		"authority of another tenant":          {m.mill.Issue(uri("spiffe://shop.example/checkout")), nil, "does not verify"},
		"expired":                              {m.shop.Issue(testca.Leaf{URIs: []string{"spiffe://shop.example/checkout"}, NotAfter: time.Now().Add(-time.Second)}), nil, "expired"},
		"unknown name":                         {m.shop.Issue(uri("spiffe://shop.example/nobody")), nil, "no principal has this SPIFFE ID"},
		"two names":                            {m.shop.Issue(testca.Leaf{URIs: []string{"spiffe://shop.example/checkout", "spiffe://shop.example/both"}}), nil, "exactly one"},
		"password":                             {m.shop.Issue(uri("spiffe://shop.example/checkout")), []nats.Option{nats.UserInfo("checkout", "x")}, "user or password"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := m.present(t, c.cert, c.opts...); !errors.Is(err, nats.ErrAuthorization) {
				t.Fatalf("got %v, want the answer of every failure", err)
			}
			// One line a second stands for equal refusals, so try again until it is this one.
			eventually(t, "the reason is in the log: "+c.why, func() bool {
				if _, err := m.present(t, c.cert, c.opts...); err == nil {
					t.Fatal("connected")
				}
				return strings.Contains(log.String(), c.why)
			})
		})
	}
	if _, err := nats.Connect(m.URL(), nats.Secure(m.TLS()), nats.NoReconnect()); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("nothing presented: %v", err)
	}
}

// TestCertificateEndsTheSession: a connection ends with its certificate, is told so, and
// a library with a renewed one is back by itself.
func TestCertificateEndsTheSession(t *testing.T) {
	m := newMesh(t)
	end := time.Now().Add(4 * time.Second).Truncate(time.Second)
	short := m.shop.Issue(testca.Leaf{URIs: []string{"spiffe://shop.example/checkout"}, NotAfter: end})
	long := m.shop.Issue(uri("spiffe://shop.example/checkout"))
	cut := make(chan time.Time, 1)
	_ = must(m.present(t, short, nats.ClosedHandler(func(*nats.Conn) { cut <- time.Now() })))(t)
	renewed := m.TLS()
	first := true
	renewed.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if first {
			first = false
			return &short, nil
		}
		return &long, nil
	}
	back := make(chan struct{}, 1)
	nc := must(nats.Connect(m.URL(), nats.Secure(renewed), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(0, 0),
		nats.ReconnectHandler(func(*nats.Conn) { back <- struct{}{} })))(t)
	t.Cleanup(nc.Close)
	select {
	case at := <-cut:
		if at.Before(end) {
			t.Errorf("cut %v before the end", end.Sub(at))
		}
	case <-within(t).Done():
		t.Fatal("the connection goes on without a certificate")
	}
	select {
	case <-back:
	case <-within(t).Done():
		t.Fatalf("not back with a renewed certificate: %v", nc.LastError())
	}
}

// TestAuthorityRemoved: while authorities change both are taken, and with the old one go
// the connections that it vouched for, at once; the others stay.
func TestAuthorityRemoved(t *testing.T) {
	m := newMesh(t)
	next := testca.New(t, "next")
	id := uri("spiffe://shop.example/checkout")
	cut := make(chan struct{})
	old := must(m.present(t, m.shop.Issue(id), nats.ClosedHandler(func(*nats.Conn) { close(cut) })))(t)
	if _, err := m.present(t, next.Issue(id)); err == nil {
		t.Fatal("an authority was taken before it was named")
	}
	write := func(pem ...[]byte) {
		check(t, os.WriteFile(m.shopFile, slices.Concat(pem...), 0o600))
		check(t, m.Reload(within(t)))
	}
	write(m.shop.PEM(), next.PEM())
	fresh := must(m.present(t, next.Issue(id)))(t)
	miller := must(m.present(t, m.mill.Issue(uri("spiffe://mill.example/miller"))))(t)
	check(t, old.FlushTimeout(patience))
	write(next.PEM())
	select {
	case <-cut:
	case <-within(t).Done():
		t.Fatal("the connection outlives its authority")
	}
	if _, err := m.present(t, m.shop.Issue(id)); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("the old authority: %v", err)
	}
	for name, nc := range map[string]*nats.Conn{"of the new authority": fresh, "of another tenant": miller} {
		if err := nc.FlushTimeout(patience); err != nil {
			t.Errorf("the connection %s: %v", name, err)
		}
	}
	// A file that cannot be used changes nothing.
	for name, text := range map[string][]byte{"empty": nil, "no certificates": []byte("x"), "no authority": leafPEM(m.shop.Issue(id))} {
		check(t, os.WriteFile(m.shopFile, text, 0o600))
		if err := m.Reload(within(t)); !errors.Is(err, ca.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	check(t, errors.Join(os.WriteFile(m.shopFile, next.PEM(), 0o600), os.Chmod(m.shopFile, 0o666)))
	if err := m.Reload(within(t)); !errors.Is(err, ca.ErrWritable) {
		t.Errorf("writable by all: %v", err)
	}
	check(t, fresh.FlushTimeout(patience))
}

func leafPEM(c tls.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
}

// TestPolicyClaimsAName: a tenant's policy cannot take a name that the operator did not
// give to the tenant, at the start and at a reload.
func TestPolicyClaimsAName(t *testing.T) {
	m := newMesh(t)
	before := m.Policy().Digest()
	for _, claim := range []string{"spiffe://shop.example/theirs", "spiffe://elsewhere.example/x"} {
		replacePolicy(t, m.Broker, edit(t, meshPolicy, "spiffe: spiffe://mill.example/miller", "spiffe: "+claim))
		err := m.Reload(within(t))
		if fs := policy.Faults(err); len(fs) != 1 || !strings.Contains(fs[0].Msg, claim) || fs[0].At.Line == 0 {
			t.Errorf("%s: %v", claim, err)
		}
	}
	if m.Policy().Digest() != before {
		t.Error("the policy changed")
	}
	cfg := must(broker.LoadConfig(m.State.Config, nil))(t)
	if err := must(broker.New(cfg, "test", zerolog.Nop()))(t).Check(within(t)); err == nil || !strings.Contains(err.Error(), "no authority") {
		t.Errorf("a start without the authorities: %v", err)
	}
}

// brokerCheck is signet serve --check.
func brokerCheck(t *testing.T, cfg broker.Config) error {
	t.Helper()
	return must(broker.New(cfg, "test", zerolog.Nop()))(t).Check(within(t))
}
