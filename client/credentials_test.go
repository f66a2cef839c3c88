package client

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/testca"
)

// writePEM writes a certificate and its key.
func writePEM(t *testing.T, certFile, keyFile string, c tls.Certificate) {
	t.Helper()
	var chain []byte
	for _, der := range c.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := errors.Join(os.WriteFile(certFile, chain, 0o600), os.WriteFile(keyFile, key, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// Files of credentials are judged when the option is given, and read at each connect.
func TestCredentialFiles(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	ca := testca.New(t, "x")
	writePEM(t, at("c.pem"), at("c.key"), ca.Issue(testca.Leaf{URIs: []string{"spiffe://a/b"}}))
	writePEM(t, at("old.pem"), at("old.key"), ca.Issue(testca.Leaf{NotAfter: time.Now().Add(-time.Minute)}))
	write := func(name, text string, mode fs.FileMode) {
		t.Helper()
		if err := errors.Join(os.WriteFile(at(name), []byte(text), 0o600), os.Chmod(at(name), mode)); err != nil {
			t.Fatal(err)
		}
	}
	write("token", "abc\n", 0o644)
	write("empty", "\n", 0o600)
	write("open", "abc", 0o622)
	write("large", string(make([]byte, maxTokenFileBytes+1)), 0o600)
	key, err := os.ReadFile(at("c.key"))
	if err != nil {
		t.Fatal(err)
	}
	write("open.key", string(key), 0o640)
	for name, tc := range map[string]struct {
		o    Option
		want error
	}{
		"certificate":              {WithClientCertificate(at("c.pem"), at("c.key")), nil},
		"token":                    {WithTokenFile(at("token")), nil},
		"enrolment before":         {WithEnrolment(at("new.pem"), at("new.key"), "spiffe://a/b"), nil},
		"enrolment after":          {WithEnrolment(at("c.pem"), at("c.key"), "spiffe://a/b"), nil},
		"no certificate":           {WithClientCertificate(at("none"), at("c.key")), fs.ErrNotExist},
		"key of another":           {WithClientCertificate(at("c.pem"), at("old.key")), ErrInvalidOption},
		"key that others may read": {WithClientCertificate(at("c.pem"), at("open.key")), ErrInvalidOption},
		"no token":                 {WithTokenFile(at("none")), fs.ErrNotExist},
		"empty token":              {WithTokenFile(at("empty")), ErrInvalidOption},
		"large token":              {WithTokenFile(at("large")), ErrInvalidOption},
		"token that others write":  {WithTokenFile(at("open")), ErrInvalidOption},
		"enrolment without a name": {WithEnrolment(at("new.pem"), at("new.key")), ErrInvalidOption},
	} {
		c := defaultConfig("tls://x:1")
		if err := tc.o(c); !errors.Is(err, tc.want) || (tc.want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

// What is shown is what the files hold at that moment; a certificate of an enrolment that
// has ended is not.
func TestCredentialsAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	cert, key, token := filepath.Join(dir, "c.pem"), filepath.Join(dir, "c.key"), filepath.Join(dir, "token")
	ca := testca.New(t, "x")
	first := ca.Issue(testca.Leaf{URIs: []string{"spiffe://a/b"}})
	writePEM(t, cert, key, first)
	if err := os.WriteFile(token, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	var faults []error
	show := func(opts ...Option) *nats.Options {
		t.Helper()
		c := defaultConfig("tls://x:1")
		for _, o := range opts {
			if err := o(c); err != nil {
				t.Fatal(err)
			}
		}
		c.creds.fault = func(err error) { faults = append(faults, err) }
		o := nats.GetDefaultOptions()
		o.TLSConfig = c.tls
		c.creds.show(&o, nil)
		return &o
	}
	shown := func(o *nats.Options) *tls.Certificate {
		t.Helper()
		c, err := o.TLSConfig.GetClientCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	plain, enrolled, bearer := show(WithClientCertificate(cert, key)), show(WithEnrolment(cert, key, "spiffe://a/b")), show(WithTokenFile(token))
	for name, o := range map[string]*nats.Options{"plain": plain, "enrolled": enrolled} {
		if got := shown(o); len(got.Certificate) == 0 || string(got.Certificate[0]) != string(first.Certificate[0]) {
			t.Errorf("%s: another certificate", name)
		}
	}
	ended := ca.Issue(testca.Leaf{URIs: []string{"spiffe://a/b"}, NotAfter: time.Now().Add(-time.Minute)})
	writePEM(t, cert, key, ended)
	if got := shown(plain); string(got.Certificate[0]) != string(ended.Certificate[0]) {
		t.Error("the files were not read again")
	}
	if got := shown(enrolled); len(got.Certificate) != 0 {
		t.Error("a certificate that has ended is shown")
	}
	if got := bearer.TokenHandler(); got != "one" {
		t.Errorf("token %q", got)
	}
	if err := os.WriteFile(token, []byte("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := bearer.TokenHandler(); got != "two" || len(faults) > 0 {
		t.Errorf("token %q, %v", got, faults)
	}
	if err := os.Remove(token); err != nil {
		t.Fatal(err)
	}
	if got := bearer.TokenHandler(); got != "" || len(faults) != 1 {
		t.Errorf("token %q, %v", got, faults)
	}
}

func TestCredentialsThatExcludeEachOther(t *testing.T) {
	id := &identity{public: "U"}
	for name, tc := range map[string]struct {
		c  credentials
		id *identity
		ok bool
	}{
		"nkey":                 {credentials{}, id, true},
		"nkey and certificate": {credentials{certificate: "a", key: "b"}, id, true},
		"token":                {credentials{token: "a"}, nil, true},
		"nothing":              {credentials{}, nil, false},
		"nkey and token":       {credentials{token: "a"}, id, false},
		"certificate alone":    {credentials{certificate: "a", key: "b"}, nil, true},
		"no key":               {credentials{certificate: "a"}, id, false},
		"enrolment alone":      {credentials{certificate: "/none", key: "/none", names: []string{"a.b"}}, nil, false},
		"enrolment and token":  {credentials{certificate: "/none", key: "/none", names: []string{"a.b"}, token: "a"}, nil, true},
	} {
		if err := tc.c.validate(tc.id); (err == nil) != tc.ok || err != nil && !errors.Is(err, ErrInvalidOption) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
