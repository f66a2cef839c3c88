package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const someID = "spiffe://shop.example/ns/a.b/checkout"

func TestIssueClient(t *testing.T) {
	dir := t.TempDir()
	a := newAuthority(t, dir)
	certFile, keyFile := filepath.Join(dir, "c.pem"), filepath.Join(dir, "c.key")
	for _, names := range []Names{{SPIFFE: someID}, {DNS: []string{"a.shop.example", "b.shop.example"}}} {
		if err := a.IssueClient(certFile, keyFile, names, time.Hour); err != nil {
			t.Fatal(err)
		}
		c, err := ReadCertificate(certFile)
		if err != nil {
			t.Fatal(err)
		}
		if names.SPIFFE != "" && (len(c.URIs) != 1 || c.URIs[0].String() != names.SPIFFE) || len(c.DNSNames) != len(names.DNS) {
			t.Errorf("names %v %v, want %+v", c.URIs, c.DNSNames, names)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(a.CertPEM())
		if _, err := c.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Error(err)
		}
		if _, err := c.Verify(x509.VerifyOptions{Roots: roots}); err == nil {
			t.Error("a client certificate is good for servers")
		}
		if d := time.Until(c.NotAfter); d > time.Hour || d < 50*time.Minute || Kind(c) != KindClient {
			t.Errorf("lives for %s, is a %s", d, Kind(c))
		}
	}
	for _, names := range []Names{{}, {SPIFFE: "spiffe://x"}, {SPIFFE: "spiffe://prod/node/n1"}, {SPIFFE: someID, DNS: []string{"a.b"}}, {DNS: []string{"*.a.b"}}, {DNS: make([]string, 17)}} {
		if err := a.IssueClient(certFile, keyFile, names, 0); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", names, err)
		}
	}
	for _, ttl := range []time.Duration{-1, MaxClientTTL + 1} {
		if err := a.IssueClient(certFile, keyFile, Names{SPIFFE: someID}, ttl); !errors.Is(err, ErrInvalid) {
			t.Errorf("lifetime %s: %v", ttl, err)
		}
	}
}

func request(t *testing.T, change func(*x509.CertificateRequest)) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	u, _ := url.Parse(someID)
	req := &x509.CertificateRequest{URIs: []*url.URL{u}}
	if change != nil {
		change(req)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, req, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// A request gets the names that it was read with and the rest from us, whatever else
// it asks for.
func TestSignRequest(t *testing.T) {
	a := newAuthority(t, t.TempDir())
	req, names, err := ReadRequest(request(t, nil))
	if err != nil || names.SPIFFE != someID {
		t.Fatalf("%+v, %v", names, err)
	}
	chain, end, err := a.Sign(req, names, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(chain)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil || len(rest) == 0 || !c.NotAfter.Equal(end) || c.IsCA || !c.PublicKey.(*ecdsa.PublicKey).Equal(req.PublicKey) || len(c.ExtKeyUsage) != 1 {
		t.Errorf("%v, %v, %+v", end, err, c)
	}
	good := request(t, nil)
	broken := []byte(strings.Replace(string(good), "\n", "\nA", 1))
	forged := func() []byte {
		block, _ := pem.Decode(good)
		der := append([]byte(nil), block.Bytes...)
		der[len(der)-1] ^= 1
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	}()
	other := func(s string) []byte {
		return request(t, func(r *x509.CertificateRequest) { r.URIs[0], _ = url.Parse(s) })
	}
	for name, text := range map[string][]byte{
		"nothing": nil, "not PEM": []byte("x"), "broken": broken, "another's key": forged, "two blocks": append(good, good...),
		"huge": append(good, make([]byte, maxRequest)...), "a certificate": a.CertPEM(),
		"no name":      request(t, func(r *x509.CertificateRequest) { r.URIs = nil; r.Subject.CommonName = someID }),
		"two names":    request(t, func(r *x509.CertificateRequest) { r.URIs = append(r.URIs, r.URIs[0]) }),
		"both kinds":   request(t, func(r *x509.CertificateRequest) { r.DNSNames = []string{"a.b"} }),
		"an address":   request(t, func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{{127, 0, 0, 1}} }),
		"e-mail":       request(t, func(r *x509.CertificateRequest) { r.EmailAddresses = []string{"a@b.c"} }),
		"no SPIFFE ID": other("https://shop.example/x"), "no path": other("spiffe://shop.example"),
		"wildcard": request(t, func(r *x509.CertificateRequest) { r.URIs, r.DNSNames = nil, []string{"*.a.b"} }),
	} {
		if _, _, err := ReadRequest(text); !errors.Is(err, ErrRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRenew(t *testing.T) {
	a, certFile, keyFile := issue(t, "bus.example.org", "10.1.2.3")
	before, err := ReadCertificate(certFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Renew(certFile, keyFile, 0); err != nil {
		t.Fatal(err)
	}
	after, err := ReadCertificate(certFile)
	if err != nil {
		t.Fatal(err)
	}
	life := func(c *x509.Certificate) time.Duration { return c.NotAfter.Sub(c.NotBefore) }
	if after.SerialNumber.Cmp(before.SerialNumber) == 0 || after.PublicKey.(*ecdsa.PublicKey).Equal(before.PublicKey) ||
		strings.Join(after.DNSNames, " ") != strings.Join(before.DNSNames, " ") || len(after.IPAddresses) != len(before.IPAddresses) ||
		Kind(after) != KindServer || life(after)-life(before) > time.Second || life(before)-life(after) > time.Second {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	if _, err := ServerTLS(certFile, keyFile); err != nil {
		t.Error(err)
	}
	if err := a.Renew(filepath.Join(filepath.Dir(certFile), CACertFile), keyFile, 0); !errors.Is(err, ErrInvalid) {
		t.Errorf("an authority: %v", err)
	}
}

// At each step of a change of authority, whoever trusts the list of that step or of the
// one before accepts every certificate that is in use.
func TestTurn(t *testing.T) {
	dir := t.TempDir()
	a := newAuthority(t, dir)
	certFile, keyFile := filepath.Join(dir, "c.pem"), filepath.Join(dir, "c.key")
	leaf := func() *x509.Certificate {
		t.Helper()
		now, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := now.IssueClient(certFile, keyFile, Names{SPIFFE: someID}, 0); err != nil {
			t.Fatal(err)
		}
		c, err := ReadCertificate(certFile)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	list := func() *Roots {
		t.Helper()
		r, err := LoadRoots(filepath.Join(dir, CACertFile))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	good := func(c *x509.Certificate, r *Roots) bool {
		_, err := c.Verify(x509.VerifyOptions{Roots: r.Pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		return err == nil
	}
	for _, step := range []func(string) error{Switch, Retire} {
		if err := step(dir); !errors.Is(err, ErrStep) {
			t.Errorf("too early: %v", err)
		}
	}
	old, first := leaf(), list()
	if err := Prepare(dir); err != nil {
		t.Fatal(err)
	}
	prepared := list()
	if still := leaf(); !good(still, first) || !good(still, prepared) || !prepared.Has(a) || prepared.Count() != 2 {
		t.Error("after prepare the old authority must issue, and both be trusted")
	}
	for _, step := range []func(string) error{Prepare, Retire} {
		if err := step(dir); !errors.Is(err, ErrStep) {
			t.Errorf("between prepare and switch: %v", err)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, CANextKeyFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key of the next authority: %v, %v", info, err)
	}
	if err := Switch(dir); err != nil {
		t.Fatal(err)
	}
	switched := list()
	if fresh := leaf(); good(fresh, first) || !good(fresh, prepared) || !good(fresh, switched) || !good(old, switched) {
		t.Error("after switch the new authority must issue, and both be trusted")
	}
	if err := Prepare(dir); !errors.Is(err, ErrStep) {
		t.Errorf("before retire: %v", err)
	}
	if err := Retire(dir); err != nil {
		t.Fatal(err)
	}
	if last := list(); good(old, last) || !good(leaf(), last) || last.Has(a) {
		t.Error("after retire only the new authority is trusted")
	}
	if _, err := os.Stat(filepath.Join(dir, CANextKeyFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the key of the next authority is left: %v", err)
	}
	if err := Prepare(dir); err != nil {
		t.Errorf("the next change: %v", err)
	}
}

// A switch that was cut off between its files is finished by the next one.
func TestSwitchAgain(t *testing.T) {
	dir := t.TempDir()
	newAuthority(t, dir)
	if err := Prepare(dir); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(dir, CANextKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, CAKeyFile), key, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); !errors.Is(err, ErrInvalid) {
		t.Errorf("half a switch: %v", err)
	}
	if err := Switch(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, CANextKeyFile), key, 0o600); err != nil { // cut off before its last step
		t.Fatal(err)
	}
	if err := Switch(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err != nil {
		t.Error(err)
	}
}

func TestLoadRoots(t *testing.T) {
	a, certFile, _ := issue(t)
	dir := filepath.Dir(certFile)
	file := filepath.Join(dir, "roots.pem")
	key, err := os.ReadFile(filepath.Join(dir, CAKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	server, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text []byte, mode fs.FileMode) {
		t.Helper()
		if err := errors.Join(os.WriteFile(file, text, 0o600), os.Chmod(file, mode)); err != nil {
			t.Fatal(err)
		}
	}
	write(a.CertPEM(), 0o644)
	if r, err := LoadRoots(file); err != nil || r.Count() != 1 || !r.Expires().Equal(a.Expires()) {
		t.Errorf("%v", err)
	}
	for name, text := range map[string][]byte{"empty": nil, "a key": append(a.CertPEM(), key...), "a server": server, "many": []byte(strings.Repeat(string(a.CertPEM()), maxRoots+1))} {
		write(text, 0o644)
		if _, err := LoadRoots(file); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, mode := range []fs.FileMode{0o664, 0o646} {
		write(a.CertPEM(), mode)
		if _, err := LoadRoots(file); !errors.Is(err, ErrWritable) {
			t.Errorf("%v: %v", mode, err)
		}
	}
}

// Both ends of a route follow the list of authorities without a restart.
func TestRouteFollowsItsAuthorities(t *testing.T) {
	dir := t.TempDir()
	newAuthority(t, dir)
	caFile := filepath.Join(dir, CACertFile)
	trusted, err := TrustFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	node := func(name string) *tls.Config {
		t.Helper()
		a, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		cert, key := filepath.Join(t.TempDir(), "n.pem"), filepath.Join(t.TempDir(), "n.key")
		if err := a.IssueNode(cert, key, "prod", name, []string{"n.example"}, 0); err != nil {
			t.Fatal(err)
		}
		r, err := ServerTLS(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := r.RouteConfig(trusted, "prod", name, func(string) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		cfg = cfg.Clone() // as nats-server does
		cfg.ServerName = "n.example"
		return cfg
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // a pipe would wait for who has given up
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	connect := func(server, client *tls.Config) error {
		t.Helper()
		done := make(chan error, 1)
		go func() {
			conn, err := l.Accept()
			if err == nil {
				err = tls.Server(conn, server).HandshakeContext(t.Context())
				_ = conn.Close()
			}
			done <- err
		}()
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		err = tls.Client(conn, client).HandshakeContext(t.Context())
		if err != nil {
			_ = conn.Close()
		}
		return errors.Join(err, <-done)
	}
	one, two := node("n1"), node("n2")
	if err := connect(one, two); err != nil {
		t.Fatal(err)
	}
	elsewhere := two.Clone()
	elsewhere.ServerName = "other.example"
	if connect(one, elsewhere) == nil {
		t.Error("another host was taken")
	}
	// The authority changes; certificates of both are good between switch and retire.
	for _, step := range []func(string) error{Prepare, Switch} {
		if err := step(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := trusted.Reload(); err != nil {
		t.Fatal(err)
	}
	three := node("n3")
	for name, pair := range map[string][2]*tls.Config{"old, new": {one, three}, "new, old": {three, two}} {
		if err := connect(pair[0], pair[1]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Retire(dir); err != nil {
		t.Fatal(err)
	}
	if err := trusted.Reload(); err != nil {
		t.Fatal(err)
	}
	for name, pair := range map[string][2]*tls.Config{"server of the old one": {one, three}, "client of the old one": {three, two}} {
		if connect(pair[0], pair[1]) == nil {
			t.Errorf("%s: taken after it was retired", name)
		}
	}
	if err := connect(three, node("n4")); err != nil {
		t.Error(err)
	}
}

// No bytes make the reader of requests panic, and what it takes has names that the gate
// would take and a signature by its key.
func FuzzReadRequest(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	u, _ := url.Parse(someID)
	for _, req := range []*x509.CertificateRequest{{URIs: []*url.URL{u}}, {DNSNames: []string{"a.b"}}, {}} {
		der, err := x509.CreateCertificateRequest(rand.Reader, req, key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
		req, names, err := ReadRequest(text)
		if err == nil && (names.Check() != nil || req.CheckSignature() != nil) {
			t.Errorf("taken with %+v", names)
		}
		_, _, _ = ReadRequest(der)
	})
}

// A renewal is for who has the key of a valid certificate of the authority, for the very
// names of it.
func TestRenewal(t *testing.T) {
	dir := t.TempDir()
	a := newAuthority(t, dir)
	cert, key := filepath.Join(dir, "n.pem"), filepath.Join(dir, "n.key")
	if err := a.IssueNode(cert, key, "prod", "n1", []string{"n1.example", "10.0.0.1"}, time.Hour); err != nil {
		t.Fatal(err)
	}
	known, err := Authorities(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, fresh, err := NewRenewal(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	old, err := r.Check(known, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	chain, err := a.Grant(r, old)
	if err != nil {
		t.Fatal(err)
	}
	if err := Keep(cert, key, chain, fresh); err != nil {
		t.Fatal(err)
	}
	now, err := ReadCertificate(cert)
	if err != nil || !sameNames(now, old) || now.SerialNumber.Cmp(old.SerialNumber) == 0 || Kind(now) != KindNode {
		t.Errorf("%+v, %v", now, err)
	}
	if _, err := ServerTLS(cert, key); err != nil {
		t.Error(err)
	}
	// Another key, other names, other authorities, other times.
	if err := Keep(cert, key, chain, func() *ecdsa.PrivateKey { k, _ := newKey(); return k }()); !errors.Is(err, ErrInvalid) {
		t.Errorf("a chain for another key: %v", err)
	}
	server, serverKey := filepath.Join(dir, "s.pem"), filepath.Join(dir, "s.key")
	client, clientKey := filepath.Join(dir, "c.pem"), filepath.Join(dir, "c.key")
	if err := errors.Join(a.IssueServer(server, serverKey, []string{"bus.example"}, time.Hour), a.IssueClient(client, clientKey, Names{SPIFFE: someID}, time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := Keep(server, serverKey, chain, fresh); !errors.Is(err, ErrInvalid) {
		t.Errorf("a chain with other names: %v", err)
	}
	other, _, err := NewRenewal(server, serverKey)
	if err != nil {
		t.Fatal(err)
	}
	ofClient, _, err := NewRenewal(client, clientKey)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := Authorities(func() string { d := t.TempDir(); newAuthority(t, d); return d }())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		r     Renewal
		known []*x509.Certificate
		now   time.Time
	}{
		"another's certificate": {Renewal{r.Old, other.Request, other.Proof}, known, time.Now()},
		"another request":       {Renewal{r.Old, other.Request, r.Proof}, known, time.Now()},
		"no proof":              {Renewal{r.Old, r.Request, nil}, known, time.Now()},
		"of a client":           {*ofClient, known, time.Now()},
		"of another authority":  {*r, stranger, time.Now()},
		"that has ended":        {*r, known, time.Now().Add(2 * time.Hour)},
		"the authority itself":  {Renewal{known[0].Raw, r.Request, r.Proof}, known, time.Now()},
		"no certificate":        {Renewal{[]byte("x"), r.Request, r.Proof}, known, time.Now()},
		"large":                 {Renewal{r.Old, make([]byte, maxRequest+1), r.Proof}, known, time.Now()},
	} {
		if _, err := c.r.Check(c.known, c.now); !errors.Is(err, ErrRenewal) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := a.Grant(&Renewal{Request: []byte("x")}, old); !errors.Is(err, ErrRenewal) {
		t.Errorf("no request: %v", err)
	}
}
