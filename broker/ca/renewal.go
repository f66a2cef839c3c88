package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// ErrRenewal: a renewal that is not granted.
var ErrRenewal = errors.New("ca: renewal refused")

// renewalContext keeps the signature of a renewal from being one of anything else.
const renewalContext = "signet certificate renewal v1\x00"

// Renewal asks an authority that is elsewhere for a certificate with the names of one
// that the asker has, for another key. It is proven with the key of the old one.
type Renewal struct {
	Old     []byte `json:"old"`     // DER, the certificate
	Request []byte `json:"request"` // DER, a certificate request, which proves that the asker has the new key
	Proof   []byte `json:"proof"`   // signature of the old key over the request
}

// NewRenewal makes one of a pair of files, and the key that the new certificate will be
// for. The files must hold an ECDSA key.
//
// Errors: those of ServerTLS.
func NewRenewal(certFile, keyFile string) (*Renewal, *ecdsa.PrivateKey, error) {
	pair, err := loadPair(certFile, keyFile)
	if err != nil {
		return nil, nil, err
	}
	old, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, fmt.Errorf("%w: %s is no ECDSA key", ErrInvalid, keyFile)
	}
	key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	r := &Renewal{Old: pair.Leaf.Raw}
	if r.Request, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key); err != nil {
		return nil, nil, fmt.Errorf("ca: %w", err)
	}
	if r.Proof, err = old.Sign(rand.Reader, r.digest(), crypto.SHA256); err != nil {
		return nil, nil, fmt.Errorf("ca: %w", err)
	}
	return r, key, nil
}

func (r *Renewal) digest() []byte {
	h := sha256.New()
	h.Write([]byte(renewalContext))
	for _, part := range [][]byte{r.Old, r.Request} {
		sum := sha256.Sum256(part)
		h.Write(sum[:])
	}
	return h.Sum(nil)
}

// Check verifies r: a certificate of a server or node that one of the authorities has
// issued and that is valid now, and a proof by its key. Whether the asker may renew it
// is the caller's to judge.
//
// Error: ErrRenewal.
func (r *Renewal) Check(authorities []*x509.Certificate, now time.Time) (old *x509.Certificate, err error) {
	refuse := func(why string) (*x509.Certificate, error) { return nil, fmt.Errorf("%w: %s", ErrRenewal, why) }
	if len(r.Old) > maxRequest || len(r.Request) > maxRequest {
		return refuse("it is too large")
	}
	if old, err = x509.ParseCertificate(r.Old); err != nil {
		return refuse("the old certificate cannot be read")
	}
	ours := slices.ContainsFunc(authorities, func(c *x509.Certificate) bool { return old.CheckSignatureFrom(c) == nil })
	key, ok := old.PublicKey.(*ecdsa.PublicKey)
	switch {
	case !ours:
		return refuse("the old certificate is not by this authority")
	case now.Before(old.NotBefore) || !now.Before(old.NotAfter):
		return refuse("the old certificate has ended: renew it by hand, signet ca renew")
	case old.IsCA || Kind(old) == KindClient:
		return refuse("the old certificate is not that of a server or node")
	case !ok || !ecdsa.VerifyASN1(key, r.digest(), r.Proof):
		return refuse("it is not proven with the key of the old certificate")
	}
	return old, nil
}

// Grant signs what Check has returned for the key of the request, for as long as the old
// certificate was to live.
//
// Errors: ErrRenewal where the request is no request.
func (a *Authority) Grant(r *Renewal, old *x509.Certificate) (chain []byte, err error) {
	req, err := x509.ParseCertificateRequest(r.Request)
	if err != nil || req.CheckSignature() != nil || !strong(req.PublicKey) {
		return nil, fmt.Errorf("%w: the request is malformed, or not by its key", ErrRenewal)
	}
	der, err := a.again(old, 0, req.PublicKey)
	if err != nil {
		return nil, err
	}
	return encodeCerts(der, a.cert.Raw), nil
}

// Keep writes a chain that was granted over certFile, and its key over keyFile.
//
// Errors: ErrInvalid where the chain is for another key or has other names than what is
// in certFile; or what the file system said.
func Keep(certFile, keyFile string, chain []byte, key *ecdsa.PrivateKey) error {
	old, err := ReadCertificate(certFile)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("ca: %w", err)
	}
	pair, err := tls.X509KeyPair(chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		return fmt.Errorf("%w: what was granted: %w", ErrInvalid, err)
	}
	if !sameNames(pair.Leaf, old) {
		return fmt.Errorf("%w: what was granted has other names than %s", ErrInvalid, certFile)
	}
	if _, err := os.Stat(keyFile); err != nil {
		return fmt.Errorf("ca: %w", err)
	}
	return writePair(certFile, keyFile, chain, key)
}

func sameNames(a, b *x509.Certificate) bool {
	if !slices.Equal(a.DNSNames, b.DNSNames) || len(a.IPAddresses) != len(b.IPAddresses) || len(a.URIs) != len(b.URIs) || !slices.Equal(a.ExtKeyUsage, b.ExtKeyUsage) {
		return false
	}
	for i := range a.IPAddresses {
		if !a.IPAddresses[i].Equal(b.IPAddresses[i]) {
			return false
		}
	}
	for i := range a.URIs {
		if a.URIs[i].String() != b.URIs[i].String() {
			return false
		}
	}
	return true
}
