package broker_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

const enrolPolicy = `tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 16MiB}
principals:
  - {name: checkout, identities: [{nkey: '{{nkey "checkout"}}'}, {spiffe: spiffe://shop.example/checkout}, {dns: checkout.shop.example}], publish: [orders.>]}
  - {name: billing, identities: [{nkey: '{{nkey "billing"}}'}, {spiffe: spiffe://shop.example/billing}], publish: [orders.>]}
`

// newEnrolling is a broker that issues with the authority of its own certificate.
func newEnrolling(t *testing.T, change ...func(*brokertest.Options)) *brokertest.Broker {
	t.Helper()
	return newBroker(t, append([]func(*brokertest.Options){func(o *brokertest.Options) {
		o.Policy = enrolPolicy
		o.Dir = t.TempDir()
		o.Change = func(c *broker.Config) {
			quickDrain(c)
			dir := filepath.Join(o.Dir, "ca")
			c.Authentication.Certificates = []broker.AuthorityConfig{{
				CA:      filepath.Join(dir, ca.CACertFile),
				Tenants: []broker.AuthorityTenant{{Name: "shop", SPIFFE: []string{"spiffe://shop.example/*"}, DNS: []string{"*.shop.example"}}},
			}}
			c.Authentication.Enrolment = broker.EnrolmentConfig{CA: dir, Lifetime: time.Hour}
		}
	}}, change...)...)
}

// certify sends a certificate request for names, and returns the refusal or the certificate.
func certify(t *testing.T, p *peer, names ...string) (*wire.Problem, *x509.Certificate) {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	req := &x509.CertificateRequest{}
	for _, n := range names {
		if strings.Contains(n, "://") {
			req.URIs = append(req.URIs, must(url.Parse(n))(t))
		} else {
			req.DNSNames = append(req.DNSNames, n)
		}
	}
	der := must(x509.CreateCertificateRequest(rand.Reader, req, key))(t)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	problem, m := p.ask(t, adminapi.SubjectKeysCertify, adminapi.CertifyRequest{Request: string(text)})
	if problem != nil {
		return problem, nil
	}
	var out struct {
		Result *adminapi.Certified `json:"result"`
		adminapi.Certified
	}
	check(t, json.Unmarshal(m.Data, &out))
	if out.Result != nil {
		out.Certified = *out.Result
	}
	block, _ := pem.Decode([]byte(out.Chain))
	if block == nil {
		t.Fatalf("no certificate in %s", m.Data)
	}
	return nil, must(x509.ParseCertificate(block.Bytes))(t)
}

// TestEnrolment: whoever is logged in gets certificates for the names of its principal
// and for no others, whatever it asks for.
func TestEnrolment(t *testing.T) {
	b := newEnrolling(t)
	p := connect(t, b, "checkout")
	for _, names := range [][]string{{"spiffe://shop.example/checkout"}, {"checkout.shop.example"}} {
		problem, cert := certify(t, p, names...)
		if problem != nil || time.Until(cert.NotAfter) > time.Hour || cert.IsCA {
			t.Fatalf("%v: %+v %+v", names, problem, cert)
		}
	}
	for name, c := range map[string]struct {
		names []string
		code  wire.Code
	}{
		"another's":       {[]string{"spiffe://shop.example/billing"}, wire.CodeNameDenied},
		"nobody's":        {[]string{"spiffe://shop.example/nobody"}, wire.CodeNameDenied},
		"another domain":  {[]string{"spiffe://mill.example/checkout"}, wire.CodeNameDenied},
		"one and another": {[]string{"checkout.shop.example", "billing.shop.example"}, wire.CodeNameDenied},
		"a node's":        {[]string{"spiffe://test/node/n1"}, wire.CodeRequestMalformed},
		"none":            {nil, wire.CodeRequestMalformed},
		"two kinds":       {[]string{"spiffe://shop.example/checkout", "checkout.shop.example"}, wire.CodeRequestMalformed},
		"the broker's":    {[]string{"localhost"}, wire.CodeRequestMalformed},
	} {
		if problem, cert := certify(t, p, c.names...); problem == nil || problem.Code != c.code {
			t.Errorf("%s: got %+v, %v; want %d", name, problem, cert, c.code)
		}
	}
	if problem, _ := p.ask(t, adminapi.SubjectKeysCertify, `{"request":"x"}`); problem == nil || problem.Code != wire.CodeRequestMalformed {
		t.Errorf("no request: %+v", problem)
	}
	cfg := must(broker.LoadConfig(b.State.Config, nil))(t)
	cfg.Authentication.Enrolment.CA = filepath.Dir(b.State.CA)
	if err := brokerCheck(t, cfg); err == nil || !strings.Contains(err.Error(), "would be refused") {
		t.Errorf("an authority that nobody trusts issues: %v", err)
	}
}

// TestSDKEnrols: with an nkey the SDK gets itself a certificate, with which it comes in
// alone later; another one is refused its name.
func TestSDKEnrols(t *testing.T) {
	b := newEnrolling(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "c.key")
	enrol := client.WithEnrolment(cert, key, "spiffe://shop.example/checkout")
	_ = b.Client("checkout", enrol)
	eventually(t, "there is a certificate", func() bool {
		_, err := tls.LoadX509KeyPair(cert, key)
		return err == nil
	})
	if info := must(os.Stat(key))(t); info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v", info.Mode())
	}
	base := []client.Option{client.WithTLSRoots(b.State.CA), client.WithRoot(b.State.Root)}
	for name, opts := range map[string][]client.Option{"shown": {client.WithClientCertificate(cert, key)}, "enrolled": {enrol}} {
		c, err := client.Connect(within(t), b.URL(), append(opts, base...)...)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := c.Publish(within(t), "orders.a", client.NewEvent("order", []byte("1"))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		c.Close()
	}
	told := make(chan error, 100)
	other := t.TempDir()
	_ = b.Client("billing", client.WithEnrolment(filepath.Join(other, "c.pem"), filepath.Join(other, "c.key"), "spiffe://shop.example/checkout"),
		client.WithErrorHandler(func(err error) {
			select {
			case told <- err:
			default:
			}
		}))
	select {
	case err := <-told:
		if !strings.Contains(err.Error(), "no certificate was issued") || !strings.Contains(fmt.Sprintf("%+v", err), "name") {
			t.Errorf("told %v", err)
		}
	case <-within(t).Done():
		t.Fatal("nobody was told that a name was refused")
	}
}

// rotations is how often TestRotationUnderLoad changes leaf and authority.
const rotations = 3

// TestRotationUnderLoad: leaf and authority of everything change, again and again, while
// clients publish; not one publish fails, and each client ends with a certificate of the
// last authority, nobody having touched it.
func TestRotationUnderLoad(t *testing.T) {
	b := newEnrolling(t)
	dir := filepath.Dir(b.State.CA)
	clientDir := t.TempDir()
	cert, key := filepath.Join(clientDir, "c.pem"), filepath.Join(clientDir, "c.key")
	var published, failed atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	byFirst := func(file string) bool {
		all, err := ca.Authorities(dir)
		if err != nil {
			return false
		}
		leaf, err := ca.ReadCertificate(file)
		return err == nil && leaf.CheckSignatureFrom(all[0]) == nil
	}
	enrol := client.WithEnrolment(cert, key, "spiffe://shop.example/checkout")
	first := b.Client("checkout", enrol)
	eventually(t, "the client has a certificate", func() bool { return byFirst(cert) })
	first.Close()
	// From here on its session stands on the certificate, too, and ends with the authority.
	var cuts atomic.Int64
	enrolled := b.Client("checkout", enrol, client.WithReconnectWait(20*time.Millisecond), client.WithTimeout(patience),
		client.WithStateHandler(func(on bool, _ error) {
			if !on {
				cuts.Add(1)
			}
		}))
	plain := b.Client("billing", client.WithReconnectWait(20*time.Millisecond), client.WithTimeout(patience))
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			c := enrolled
			if i%2 == 0 {
				c = plain
			}
			if _, err := c.Publish(t.Context(), "orders.a", client.NewEvent("order", fmt.Append(nil, i))); err != nil {
				failed.Add(1)
				t.Errorf("publish %d: %v", i, err)
				return
			}
			published.Add(1)
		}
	}()
	for i := range rotations {
		before := published.Load()
		check(t, ca.Prepare(dir))
		check(t, b.Reload(within(t)))
		check(t, ca.Switch(dir))
		check(t, b.Reload(within(t)))
		broker.RenewOwn(within(t), b.Broker, time.Now())
		eventually(t, "server and client have certificates of the new authority", func() bool { return byFirst(b.State.Cert) && byFirst(cert) })
		// A connection that is made now, and the one that must not be: by the authority that goes.
		check(t, b.Reload(within(t)))
		nc := must(nats.Connect(b.URL(), nats.Secure(b.TLS()), must(nats.NkeyOptionFromSeed(b.Cred("billing")))(t), nats.NoReconnect()))(t)
		nc.Close()
		check(t, ca.Retire(dir))
		check(t, b.Reload(within(t)))
		eventually(t, "the session of the old authority ends, and publishing goes on", func() bool {
			return failed.Load() > 0 || cuts.Load() > int64(i) && enrolled.Connected() && published.Load() > before+10
		})
		if failed.Load() > 0 {
			t.Fatalf("rotation %d", i)
		}
	}
	close(stop)
	<-done
	t.Logf("%d rotations of leaf and authority, %d publishes, %d failed", rotations, published.Load(), failed.Load())
}

// TestExpiryIsWarnedOf: once a day, and not before it is near.
func TestExpiryIsWarnedOf(t *testing.T) {
	var log logBuffer
	b := newEnrolling(t, logTo(&log))
	leaf := must(ca.ReadCertificate(b.State.Cert))(t)
	warnings := func(at ...time.Time) int {
		before := strings.Count(log.String(), "ends soon")
		broker.WarnExpiry(b.Broker, at...)
		return strings.Count(log.String(), "ends soon") - before
	}
	near := leaf.NotAfter.Add(-24 * time.Hour)
	if n := warnings(time.Now(), near, near.Add(time.Hour), near.Add(25*time.Hour)); n != 2 {
		t.Errorf("%d warnings, want one a day:\n%s", n, log.String())
	}
}
