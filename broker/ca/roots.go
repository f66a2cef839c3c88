package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"slices"
	"time"
)

// maxRoots bounds the authorities in one file.
const maxRoots = 64

// Roots are the authorities of one file, whose word is taken. Immutable.
type Roots struct {
	Pool *x509.CertPool
	// Text is the file, byte for byte.
	Text  []byte
	certs []*x509.Certificate
}

// LoadRoots reads authorities: PEM blocks of certificates and nothing else, one of them
// or, while they change, several. Text between the blocks is left out.
//
// Errors: ErrInvalid where a block is no certificate of an authority or there is none,
// ErrWritable where others than the owner may write the file; or what the file system
// said.
func LoadRoots(file string) (*Roots, error) {
	text, err := readFile(file, false)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("%w: %s has mode %#o; run: chmod go-w %s", ErrWritable, file, info.Mode().Perm(), file)
	}
	r := &Roots{Pool: x509.NewCertPool(), Text: text}
	for rest := bytes.Clone(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" || len(block.Headers) > 0 {
			return nil, fmt.Errorf("%w: %s has a block %.40q: only certificates belong there", ErrInvalid, file, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, file, err)
		}
		if !cert.BasicConstraintsValid || !cert.IsCA || cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0 {
			return nil, fmt.Errorf("%w: %s: certificate %s is not that of an authority", ErrInvalid, file, cert.SerialNumber)
		}
		r.Pool.AddCert(cert)
		r.certs = append(r.certs, cert)
	}
	if n := len(r.certs); n == 0 || n > maxRoots {
		return nil, fmt.Errorf("%w: %s has %d certificates, 1 to %d are wanted", ErrInvalid, file, n, maxRoots)
	}
	return r, nil
}

// Expires is when the authority ends that lasts longest: from then on none is left.
func (r *Roots) Expires() time.Time {
	var last time.Time
	for _, c := range r.certs {
		if c.NotAfter.After(last) {
			last = c.NotAfter
		}
	}
	return last
}

// Certificates are the authorities, in the order of the file. The caller owns the slice.
func (r *Roots) Certificates() []*x509.Certificate { return slices.Clone(r.certs) }

// Count is how many authorities there are.
func (r *Roots) Count() int { return len(r.certs) }
