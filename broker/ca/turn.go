package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// CANextKeyFile holds the key of the authority that comes next, between Prepare and
// Switch.
const CANextKeyFile = "ca.next.key"

// ErrStep: a step of a change of authority that is not due.
var ErrStep = errors.New("ca: this step of the change of the authority is not due")

// A change of authority has three steps, so that at no time a certificate is shown to
// somebody who does not know its authority. CACertFile lists all that are to be trusted,
// the one that issues first:
//
//	Prepare: old, new   then CACertFile goes to everybody who trusts it
//	Switch:  new, old   from now on the new one issues; all certificates are renewed
//	Retire:  new        then CACertFile goes to everybody again

// Prepare makes the next authority in dir, with the name of the present one.
//
// Errors: ErrStep if a change is under way; those of Load.
func Prepare(dir string) error { return prepare(dir, time.Now) }

func prepare(dir string, now func() time.Time) error {
	a, err := load(dir, now)
	if err != nil {
		return err
	}
	certs, err := trusted(dir)
	if err != nil {
		return err
	}
	next := filepath.Join(dir, CANextKeyFile)
	if _, err := os.Lstat(next); len(certs) > 1 || !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: a change is under way: %s has %d authorities; switch or retire first", ErrStep, filepath.Join(dir, CACertFile), len(certs))
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	der, err := selfSigned(a.cert.Subject.CommonName, key, now())
	if err != nil {
		return err
	}
	return writePair(filepath.Join(dir, CACertFile), next, encodeCerts(certs[0].Raw, der), key)
}

// Switch lets the next authority issue.
//
// Errors: ErrStep without Prepare; ErrInvalid; or what the file system said.
func Switch(dir string) error {
	next := filepath.Join(dir, CANextKeyFile)
	certs, err := trusted(dir)
	if err != nil {
		return err
	}
	text, err := readFile(next, true)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(certs) != 2 {
		return fmt.Errorf("%w: there is no next authority; prepare it first", ErrStep)
	} else if err != nil {
		return err
	}
	order := []*x509.Certificate{certs[1], certs[0]}
	if fits(certs[0], text) {
		order = certs // a switch that was cut off half-way
	}
	if !fits(order[0], text) {
		return fmt.Errorf("%w: %s is not the key of the next authority", ErrInvalid, next)
	}
	// The key first, as in writePair: until the list follows, Load refuses the pair.
	if err := writeFile(filepath.Join(dir, CAKeyFile), text, 0o600); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, CACertFile), encodeCerts(order[0].Raw, order[1].Raw), 0o644); err != nil {
		return err
	}
	if err := os.Remove(next); err != nil {
		return fmt.Errorf("ca: %w", err)
	}
	return nil
}

// Retire takes the old authority from the list. Certificates that it issued are good
// nowhere after that.
//
// Errors: ErrStep before Switch; or what the file system said.
func Retire(dir string) error {
	certs, err := trusted(dir)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(dir, CANextKeyFile)); len(certs) < 2 || !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: there is no old authority, or the new one does not issue yet", ErrStep)
	}
	return writeFile(filepath.Join(dir, CACertFile), encodeCerts(certs[0].Raw), 0o644)
}

// Authorities returns those in CACertFile of dir, the one that issues first.
//
// Errors: those of LoadRoots.
func Authorities(dir string) ([]*x509.Certificate, error) { return trusted(dir) }

func trusted(dir string) ([]*x509.Certificate, error) {
	r, err := LoadRoots(filepath.Join(dir, CACertFile))
	if err != nil {
		return nil, err
	}
	return r.certs, nil
}

func fits(cert *x509.Certificate, keyPEM []byte) bool {
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return false
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return false
	}
	k, ok := key.(*ecdsa.PrivateKey)
	public, is := cert.PublicKey.(*ecdsa.PublicKey)
	return ok && is && k.PublicKey.Equal(public)
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	return key, nil
}

// selfSigned makes the certificate of an authority.
func selfSigned(name string, key *ecdsa.PrivateKey, at time.Time) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name},
		NotBefore: at.Add(-backdate), NotAfter: at.Add(AuthorityTTL),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	return der, nil
}

// Has reports whether a is one of the authorities.
func (r *Roots) Has(a *Authority) bool {
	for _, c := range r.certs {
		if bytes.Equal(c.Raw, a.cert.Raw) {
			return true
		}
	}
	return false
}
