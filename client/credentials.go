package client

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nats-io/nats.go"
)

// Bounds of the files of credentials.
const (
	maxTokenFileBytes       = 16 << 10
	maxCertificateFileBytes = 1 << 20
)

// credentials are what a client shows beside, or instead of, an nkey. The zero value
// shows nothing.
type credentials struct {
	certificate, key string   // PEM files; empty: no certificate
	token            string   // file; empty: no token
	names            []string // of the certificate, which the broker issues; none: it does not
	roots            string   // PEM file of WithTLSRoots; empty: none
	// fault is why a file could not be read when the connection wanted it; nats.go does
	// not hand the error on.
	fault func(error)
}

func (c *credentials) any() bool { return c.certificate != "" || c.token != "" }

// WithClientCertificate shows the broker the certificate in certFile (PEM, the leaf first,
// then its intermediates), whose key is in keyFile, mode 0600. Both are read at each
// connect, so a renewed certificate is used from the next one on: the broker ends a
// connection with its certificate, and the SDK then connects again by itself.
//
// An nkey or token beside it must be of the same principal.
func WithClientCertificate(certFile, keyFile string) Option {
	return func(c *config) error {
		c.creds.certificate, c.creds.key, c.creds.names = certFile, keyFile, nil
		if _, err := c.creds.load(); err != nil {
			return fmt.Errorf("WithClientCertificate: %w", err)
		}
		return nil
	}
}

// WithTokenFile shows the broker the token (a JWT) in file, such as the one that
// Kubernetes projects for a service account. It is read at each connect: whoever
// renews the file need not tell the SDK. It excludes an nkey.
func WithTokenFile(file string) Option {
	return func(c *config) error {
		c.creds.token = file
		if _, err := c.creds.readToken(); err != nil {
			return fmt.Errorf("WithTokenFile: %w", err)
		}
		return nil
	}
}

// load reads the certificate and its key.
func (c *credentials) load() (*tls.Certificate, error) {
	info, err := os.Stat(c.certificate)
	if err != nil {
		return nil, fmt.Errorf("client: certificate: %w", err)
	}
	if info.Size() > maxCertificateFileBytes {
		return nil, fmt.Errorf("%w: %s is over %d bytes", ErrInvalidOption, c.certificate, maxCertificateFileBytes)
	}
	certs, err := os.ReadFile(c.certificate)
	if err != nil {
		return nil, fmt.Errorf("client: certificate: %w", err)
	}
	key, err := readPrivate(c.key, maxCertificateFileBytes)
	if err != nil {
		return nil, fmt.Errorf("client: key of the certificate: %w", err)
	}
	defer clear(key)
	pair, err := tls.X509KeyPair(certs, key)
	if err != nil {
		return nil, fmt.Errorf("%w: %s and %s: %w", ErrInvalidOption, c.certificate, c.key, err)
	}
	return &pair, nil
}

// readToken reads the token. Its mode is that of whoever projects it; nobody else may
// write it.
func (c *credentials) readToken() (string, error) {
	f, err := os.Open(c.token)
	if err != nil {
		return "", fmt.Errorf("client: token: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("client: token: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return "", fmt.Errorf("%w: others may write %s: chmod go-w %s", ErrInvalidOption, c.token, c.token)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxTokenFileBytes+1))
	token := string(bytes.TrimSpace(raw))
	switch {
	case err != nil:
		return "", fmt.Errorf("client: token: %w", err)
	case token == "" || len(raw) > maxTokenFileBytes:
		return "", fmt.Errorf("%w: %s does not hold a token", ErrInvalidOption, c.token)
	}
	return token, nil
}

// show puts the credentials into the options of a connection.
func (c *credentials) show(o *nats.Options, id *identity) {
	if id != nil {
		o.Nkey, o.SignatureCB = id.public, id.signNonce
	}
	if c.token != "" {
		o.TokenHandler = func() string {
			token, err := c.readToken()
			if err != nil {
				c.fault(err)
			}
			return token
		}
	}
	if c.roots != "" {
		last := o.TLSConfig.RootCAs
		o.RootCAsCB = func() (*x509.CertPool, error) {
			pool, err := loadRoots(c.roots)
			if err != nil {
				c.fault(err)
				return last, nil // what was good when the client began
			}
			last = pool
			return pool, nil
		}
	}
	if c.certificate != "" {
		o.TLSConfig = o.TLSConfig.Clone()
		o.TLSConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(c.names) > 0 {
				if pair, err := c.valid(time.Now()); err == nil && pair != nil {
					return pair, nil
				}
				return new(tls.Certificate), nil // none is shown: the other credential counts
			}
			pair, err := c.load()
			if err != nil {
				c.fault(err)
			}
			return pair, err
		}
	}
}

// validate checks what no single option can.
func (c *credentials) validate(id *identity) error {
	switch {
	case id == nil && c.token == "" && len(c.names) > 0:
		if pair, err := c.valid(time.Now()); err != nil || pair == nil {
			return fmt.Errorf("%w: WithEnrolment needs an nkey or a token until there is a valid certificate", ErrInvalidOption)
		}
	case id == nil && !c.any():
		return fmt.Errorf("%w: no credential: use WithNkeySeedFile, WithNkey, WithClientCertificate, WithTokenFile or a context that has one", ErrInvalidOption)
	case id != nil && c.token != "":
		return fmt.Errorf("%w: an nkey and a token: the broker takes one of them", ErrInvalidOption)
	case (c.certificate == "") != (c.key == ""):
		return errors.Join(ErrInvalidOption, errors.New("client: a certificate needs its key"))
	}
	return nil
}
