// Package testca makes certificate authorities and client certificates for tests, good
// ones and bad ones: what it is asked for is what it signs. No product package imports
// it.
package testca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

// CA is an authority. Its methods fail the test on an error.
type CA struct {
	Cert *x509.Certificate
	key  *ecdsa.PrivateKey
	tb   testing.TB
	up   *CA // that signed it; nil: it is a root
}

// Leaf is what a certificate should say. The zero value is a client certificate
// without a name, from an hour ago to an hour from now.
type Leaf struct {
	URIs, DNS  []string // as they are, well formed or not
	CommonName string
	NotAfter   time.Time
	Usages     []x509.ExtKeyUsage // nil: clientAuth
	NoUsage    bool               // no extended key usage at all
	KeyUsage   x509.KeyUsage      // 0: digitalSignature
	IsCA       bool
	Key        crypto.Signer // nil: a fresh ECDSA key
}

// New makes a root that lives for an hour.
func New(tb testing.TB, name string) *CA {
	tb.Helper()
	return authority(tb, name, nil, time.Now().Add(time.Hour))
}

// Below makes an intermediate authority of a that ends at notAfter.
func (a *CA) Below(name string, notAfter time.Time) *CA {
	a.tb.Helper()
	return authority(a.tb, name, a, notAfter)
}

func authority(tb testing.TB, name string, up *CA, notAfter time.Time) *CA {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(tb, err)
	c := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: notAfter,
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	parent, signer := c, key
	if up != nil {
		parent, signer = up.Cert, up.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	check(tb, err)
	cert, err := x509.ParseCertificate(der)
	check(tb, err)
	return &CA{Cert: cert, key: key, tb: tb, up: up}
}

// PEM is the certificate of the authority.
func (a *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Cert.Raw})
}

// Pool has the authority alone.
func (a *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Cert)
	return pool
}

// Issue signs a certificate, followed by the intermediates up to the root.
func (a *CA) Issue(l Leaf) tls.Certificate {
	a.tb.Helper()
	if l.Key == nil {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		check(a.tb, err)
		l.Key = key
	}
	c := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: l.CommonName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: l.NotAfter,
		KeyUsage: l.KeyUsage, ExtKeyUsage: l.Usages, BasicConstraintsValid: true, IsCA: l.IsCA,
	}
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(time.Hour)
	}
	if c.KeyUsage == 0 {
		c.KeyUsage = x509.KeyUsageDigitalSignature
	}
	if l.Usages == nil && !l.NoUsage {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	if names := altNames(a.tb, l); names != nil {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: names}}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.Cert, l.Key.Public(), a.key)
	check(a.tb, err)
	leaf, err := x509.ParseCertificate(der)
	check(a.tb, err)
	out := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: l.Key, Leaf: leaf}
	for at := a; at.up != nil; at = at.up {
		out.Certificate = append(out.Certificate, at.Cert.Raw)
	}
	return out
}

// altNames writes the names byte for byte, which x509.Certificate cannot.
func altNames(tb testing.TB, l Leaf) []byte {
	var list []asn1.RawValue
	for _, u := range l.URIs {
		list = append(list, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(u)})
	}
	for _, d := range l.DNS {
		list = append(list, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(d)})
	}
	if list == nil {
		return nil
	}
	der, err := asn1.Marshal(list)
	check(tb, err)
	return der
}

func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
