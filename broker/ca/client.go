package ca

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// Lifetimes of client certificates. They are not revoked, so they are short.
const (
	DefaultClientTTL = 24 * time.Hour
	MaxClientTTL     = 30 * 24 * time.Hour
)

// maxRequest bounds a certificate request in bytes.
const maxRequest = 16 << 10

// ErrRequest: a certificate request that is not signed: its form, or a name in it.
var ErrRequest = errors.New("ca: certificate request refused")

// Names are those of a client certificate: one SPIFFE ID, or DNS names. The gate takes
// no other certificate.
type Names struct {
	SPIFFE string
	DNS    []string
}

// Check reports whether the names are of the form that the gate takes.
//
// Error: ErrInvalid.
func (n Names) Check() error {
	switch {
	case n.SPIFFE != "" && len(n.DNS) == 0:
		_, path, err := wire.ParseSPIFFE(n.SPIFFE)
		if err != nil {
			return fmt.Errorf("%w: %q: %w", ErrInvalid, n.SPIFFE, err)
		}
		if strings.HasPrefix(path, nodePath) {
			return fmt.Errorf("%w: %q: %s... are nodes of a cluster, which may have the same authority", ErrInvalid, n.SPIFFE, nodePath)
		}
		return nil
	case n.SPIFFE == "" && len(n.DNS) > 0 && len(n.DNS) <= 16:
		for _, d := range n.DNS {
			if err := wire.CheckDNSName(d); err != nil {
				return fmt.Errorf("%w: %q: %w", ErrInvalid, d, err)
			}
		}
		return nil
	}
	return fmt.Errorf("%w: one SPIFFE ID, or 1 to 16 DNS names are wanted", ErrInvalid)
}

func (n Names) uris() []*url.URL {
	if n.SPIFFE == "" {
		return nil
	}
	return []*url.URL{{Scheme: "spiffe", Host: spiffeDomain(n.SPIFFE), Path: n.SPIFFE[len("spiffe://")+len(spiffeDomain(n.SPIFFE)):]}}
}

func spiffeDomain(id string) string {
	domain, _, _ := wire.ParseSPIFFE(id) // checked before
	return domain
}

// IssueClient writes a client certificate with these names and its fresh key, as
// IssueServer does. ttl 0 means DefaultClientTTL; it never outlives the CA.
//
// Errors: ErrInvalid for a name or ttl; else what the file system said.
func (a *Authority) IssueClient(certFile, keyFile string, names Names, ttl time.Duration) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	der, err := a.client(names, ttl, key.Public())
	if err != nil {
		return err
	}
	return writePair(certFile, keyFile, encodeCerts(der, a.cert.Raw), key)
}

// client signs a client certificate.
func (a *Authority) client(names Names, ttl time.Duration, key any) ([]byte, error) {
	if err := names.Check(); err != nil {
		return nil, err
	}
	if ttl < 0 || ttl > MaxClientTTL {
		return nil, fmt.Errorf("%w: lifetime %v, at most %v", ErrInvalid, ttl, MaxClientTTL)
	}
	at := a.now()
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "signet client"},
		NotBefore: at.Add(-backdate), NotAfter: at.Add(cmp.Or(ttl, DefaultClientTTL)),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true, URIs: names.uris(), DNSNames: names.DNS,
	}
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key, a.key)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	return der, nil
}

// ReadRequest reads a certificate request (PEM, CERTIFICATE REQUEST), whose sender has
// proven that it has the key, and returns the names that it asks for. Nothing else that
// it asks for is given.
//
// Error: ErrRequest.
func ReadRequest(text []byte) (*x509.CertificateRequest, Names, error) {
	refuse := func(why string) (*x509.CertificateRequest, Names, error) {
		return nil, Names{}, fmt.Errorf("%w: %s", ErrRequest, why)
	}
	if len(text) > maxRequest {
		return refuse(fmt.Sprintf("it is over %d bytes", maxRequest))
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(rest) > 0 {
		return refuse("one PEM block CERTIFICATE REQUEST is wanted")
	}
	req, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return refuse("it cannot be read")
	}
	if !strong(req.PublicKey) {
		return refuse("its key is neither ECDSA, Ed25519 nor RSA of 2048 bits or more")
	}
	if err := req.CheckSignature(); err != nil {
		return refuse("its signature is not by its key")
	}
	if len(req.IPAddresses)+len(req.EmailAddresses) > 0 || len(req.URIs) > 1 {
		return refuse("it asks for addresses, or for several URI names: one SPIFFE ID, or DNS names are wanted")
	}
	names := Names{DNS: req.DNSNames}
	if len(req.URIs) == 1 {
		names.SPIFFE = req.URIs[0].String()
	}
	if err := names.Check(); err != nil {
		return refuse(err.Error())
	}
	return req, names, nil
}

// Sign signs a request that ReadRequest has read, for the names that it returned and no
// others, and returns the chain. Whether the sender may have the names is the caller's
// to judge.
//
// Errors: ErrInvalid for ttl.
func (a *Authority) Sign(req *x509.CertificateRequest, names Names, ttl time.Duration) (chain []byte, notAfter time.Time, err error) {
	der, err := a.client(names, ttl, req.PublicKey)
	if err != nil {
		return nil, time.Time{}, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("ca: %w", err)
	}
	return encodeCerts(der, a.cert.Raw), cert.NotAfter, nil
}

func strong(key any) bool {
	switch k := key.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	case *rsa.PublicKey:
		return k.N.BitLen() >= 2048 && k.N.BitLen() <= 8192 // more only costs who verifies
	}
	return false
}

// Kinds of certificates that Renew tells apart.
const (
	KindServer = "server"
	KindClient = "client"
	KindNode   = "node"
)

// Kind returns what a certificate of ours is for.
func Kind(cert *x509.Certificate) string {
	server := slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	switch {
	case server && slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
		return KindNode
	case server:
		return KindServer
	}
	return KindClient
}

// Renew writes a certificate with the same names, for the same use, over certFile, and
// a fresh key over keyFile. The old certificate need not be valid any more, but it is the
// word for the names: who may write it may choose them. ttl 0: as long as the old one
// was to live.
//
// Errors: ErrInvalid where there is no certificate; else what the file system said.
func (a *Authority) Renew(certFile, keyFile string, ttl time.Duration) error {
	old, err := ReadCertificate(certFile)
	if err != nil {
		return err
	}
	if old.IsCA || ttl < 0 {
		return fmt.Errorf("%w: %s is an authority, or the lifetime %v is below 0", ErrInvalid, certFile, ttl)
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	der, err := a.again(old, ttl, key.Public())
	if err != nil {
		return err
	}
	return writePair(certFile, keyFile, encodeCerts(der, a.cert.Raw), key)
}

// again signs a certificate like old for another key.
func (a *Authority) again(old *x509.Certificate, ttl time.Duration, key any) ([]byte, error) {
	at := a.now()
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: old.Subject,
		NotBefore: at.Add(-backdate), NotAfter: at.Add(cmp.Or(ttl, old.NotAfter.Sub(old.NotBefore)-backdate)),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: old.ExtKeyUsage, BasicConstraintsValid: true,
		DNSNames: old.DNSNames, IPAddresses: old.IPAddresses, URIs: old.URIs,
	}
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key, a.key)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	return der, nil
}

// ReadCertificate reads the first certificate in a PEM file.
//
// Errors: those of ReadAll.
func ReadCertificate(file string) (*x509.Certificate, error) {
	certs, err := ReadAll(file)
	if err != nil {
		return nil, err
	}
	return certs[0], nil
}

// ReadAll reads the certificates in a PEM file, at least one.
//
// Errors: ErrInvalid, or what the file system said.
func ReadAll(file string) ([]*x509.Certificate, error) {
	rest, err := readFile(file, false)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, file, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%w: %s has no certificate", ErrInvalid, file)
	}
	return certs, nil
}
