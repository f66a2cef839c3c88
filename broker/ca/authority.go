package ca

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Names of the files that Create writes, in its directory.
const (
	CACertFile = "ca.pem"
	CAKeyFile  = "ca.key"
)

// Lifetimes.
const (
	// AuthorityTTL is how long a CA made by Create lives.
	AuthorityTTL = 10 * 365 * 24 * time.Hour
	// DefaultServerTTL is how long a server certificate lives by default. Some
	// clients refuse certificates of more than 825 days.
	DefaultServerTTL = 397 * 24 * time.Hour
	// backdate allows for clients whose clocks run behind.
	backdate = 5 * time.Minute
)

// Errors of the package.
var (
	// ErrExists: Create does not overwrite a CA.
	ErrExists = errors.New("ca: a certificate authority exists here")
	// ErrKeyMode: others than its owner may use a private key file; see the package comment.
	ErrKeyMode = errors.New("ca: private key file is readable by others")
	// ErrWritable: others than its owner may write a file whose authorities are trusted.
	ErrWritable = errors.New("ca: file of trusted authorities is writable by others")
	// ErrInvalid: a certificate, key or host that cannot be used.
	ErrInvalid = errors.New("ca: invalid certificate material")
)

// Authority is a CA that can issue. It is immutable.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
	now  func() time.Time
}

// Create makes a CA named name in dir (made with mode 0700 if missing) and returns
// it. The certificate goes to CACertFile (0644), the key to CAKeyFile (0600).
//
// Errors: ErrExists if either file is there; ErrInvalid for an empty name; else
// what the file system said.
func Create(dir, name string) (*Authority, error) { return create(dir, name, time.Now) }

func create(dir, name string, now func() time.Time) (*Authority, error) {
	if strings.TrimSpace(name) == "" {
		return nil, fmt.Errorf("%w: the authority has no name", ErrInvalid)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	for _, file := range []string{CACertFile, CAKeyFile} {
		if _, err := os.Lstat(filepath.Join(dir, file)); err == nil {
			return nil, fmt.Errorf("%w: %s", ErrExists, filepath.Join(dir, file))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("ca: %w", err)
		}
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	der, err := selfSigned(name, key, now())
	if err != nil {
		return nil, err
	}
	if err := writePair(filepath.Join(dir, CACertFile), filepath.Join(dir, CAKeyFile), encodeCerts(der), key); err != nil {
		return nil, err
	}
	return load(dir, now)
}

// Load reads the CA that Create made in dir.
//
// Errors: ErrKeyMode; ErrInvalid where the files are no CA, do not fit each other
// or have expired; fs.ErrNotExist where there is none.
func Load(dir string) (*Authority, error) { return load(dir, time.Now) }

func load(dir string, now func() time.Time) (*Authority, error) {
	cert, err := loadPair(filepath.Join(dir, CACertFile), filepath.Join(dir, CAKeyFile))
	if err != nil {
		return nil, err
	}
	key, ok := cert.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !cert.Leaf.IsCA || cert.Leaf.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, fmt.Errorf("%w: %s is not a certificate authority with an ECDSA key", ErrInvalid, filepath.Join(dir, CACertFile))
	}
	if !now().Before(cert.Leaf.NotAfter) {
		return nil, fmt.Errorf("%w: the authority expired at %s", ErrInvalid, cert.Leaf.NotAfter.Format(time.RFC3339))
	}
	return &Authority{cert: cert.Leaf, key: key, pem: encodeCerts(cert.Certificate...), now: now}, nil
}

// CertPEM returns the CA's certificate, which clients trust. It is a copy.
func (a *Authority) CertPEM() []byte { return slices.Clone(a.pem) }

// Expires is when the CA's certificate ends.
func (a *Authority) Expires() time.Time { return a.cert.NotAfter }

// IssueServer writes a server certificate, followed by the CA's, to certFile
// (0644) and its fresh key to keyFile (0600), over what is there. It holds for
// localhost, 127.0.0.1, ::1 and hosts: DNS names (a leftmost * is allowed) and IP
// addresses. ttl 0 means DefaultServerTTL; it never outlives the CA.
//
// Errors: ErrInvalid for a host or ttl; else what the file system said.
func (a *Authority) IssueServer(certFile, keyFile string, hosts []string, ttl time.Duration) error {
	return a.issue(certFile, keyFile, hosts, ttl, func(*x509.Certificate) {})
}

// issue is IssueServer; change edits the certificate before it is signed.
func (a *Authority) issue(certFile, keyFile string, hosts []string, ttl time.Duration, change func(*x509.Certificate)) error {
	if ttl < 0 {
		return fmt.Errorf("%w: lifetime %v", ErrInvalid, ttl)
	}
	at := a.now()
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "signet server"},
		NotBefore: at.Add(-backdate), NotAfter: at.Add(cmp.Or(ttl, DefaultServerTTL)),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	for _, h := range append([]string{"localhost", "127.0.0.1", "::1"}, hosts...) {
		if ip := net.ParseIP(h); ip != nil {
			if !slices.ContainsFunc(template.IPAddresses, ip.Equal) {
				template.IPAddresses = append(template.IPAddresses, ip)
			}
			continue
		}
		if !validHost(h) {
			return fmt.Errorf("%w: %q is neither a DNS name nor an IP address", ErrInvalid, h)
		}
		if h = strings.ToLower(h); !slices.Contains(template.DNSNames, h) {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	change(template)
	key, err := newKey()
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("ca: %w", err)
	}
	return writePair(certFile, keyFile, encodeCerts(der, a.cert.Raw), key)
}

// validHost accepts DNS names: labels of letters, digits and inner hyphens, the
// first one also a lone *.
func validHost(h string) bool {
	if h == "" || len(h) > 253 {
		return false
	}
	if u, err := url.Parse("//" + h); err != nil || u.Hostname() != h {
		return false
	}
	for i, label := range strings.Split(h, ".") {
		if i == 0 && label == "*" && strings.Contains(h, ".") {
			continue
		}
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.ContainsFunc(label, func(r rune) bool {
				return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
			}) {
			return false
		}
	}
	return true
}

// serial returns 127 random bits, as CAs do.
func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:]) // never fails; it would crash the process first
	b[0] &= 0x7f
	b[15] |= 1
	return new(big.Int).SetBytes(b[:])
}
