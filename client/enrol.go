package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/adminapi"
)

// Pauses between two attempts to have a certificate issued.
const (
	enrolAgain   = 5 * time.Second
	enrolAtLeast = time.Second // after a certificate that is due at once
	enrolLongest = 10 * time.Minute
	enrolLook    = 5 * time.Second // between two looks whether another authority issues
)

// WithEnrolment has the broker issue a certificate for names of the principal (one SPIFFE
// ID, or DNS names), keeps it in certFile and its key in keyFile (mode 0600), shows it
// at each connect, and has it renewed when two thirds of its life are over, or when another
// authority has come to stand first in the file of WithTLSRoots. The key is made here and
// never leaves. The broker must have an authority (authentication.enrolment).
//
// The first time another credential is needed, an nkey or a token; later the
// certificate is enough while it is valid. One that has ended is not shown. Failures go
// to the error handler and are tried again.
func WithEnrolment(certFile, keyFile string, names ...string) Option {
	return func(c *config) error {
		if certFile == "" || keyFile == "" || len(names) == 0 {
			return fmt.Errorf("%w: WithEnrolment: two files and at least one name are wanted", ErrInvalidOption)
		}
		c.creds.certificate, c.creds.key, c.creds.names = certFile, keyFile, names
		if _, err := c.creds.valid(time.Now()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("WithEnrolment: %w", err)
		}
		return nil
	}
}

// valid returns the certificate of an enrolment; nil if it has ended.
func (c *credentials) valid(now time.Time) (*tls.Certificate, error) {
	pair, err := c.load()
	if err != nil || !now.Before(pair.Leaf.NotAfter) {
		return nil, err
	}
	return pair, nil
}

// turned reports whether the authority of the certificate is one that goes: it is still
// in the file of WithTLSRoots, and another one stands first there, which is the one that
// issues. A certificate of the old one would be refused when it is gone.
func (c *credentials) turned(pair *tls.Certificate) bool {
	if c.roots == "" {
		return false
	}
	text, err := os.ReadFile(c.roots)
	if err != nil {
		return false // said at the next connect
	}
	for n := 0; ; n++ {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return false
		}
		if ca, err := x509.ParseCertificate(block.Bytes); err == nil && pair.Leaf.CheckSignatureFrom(ca) == nil {
			return n > 0
		}
	}
}

// enrol keeps the certificate fresh until ctx ends.
func enrol(ctx context.Context, c *Client) {
	pause := enrolAgain
	for {
		wait := time.Duration(0)
		if pair, err := c.cfg.creds.valid(time.Now()); err == nil && pair != nil && !c.cfg.creds.turned(pair) {
			life := pair.Leaf.NotAfter.Sub(pair.Leaf.NotBefore)
			wait = min(time.Until(pair.Leaf.NotAfter.Add(-life/3)), enrolLook)
		}
		if wait > 0 {
			pause = enrolAgain
		} else if err := certify(ctx, c); err != nil {
			if ctx.Err() == nil {
				c.cfg.onError(fmt.Errorf("client: no certificate was issued: %w", err))
			}
			wait, pause = pause, min(2*pause, enrolLongest)
		} else {
			wait = enrolAtLeast
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// certify makes a key, has the broker sign it, and keeps both.
func certify(ctx context.Context, c *Client) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	request, err := certificateRequest(key, c.cfg.creds.names)
	if err != nil {
		return err
	}
	var answer adminapi.Certified
	if err := c.request(ctx, adminapi.SubjectKeysCertify, adminapi.CertifyRequest{Request: string(request)}, &answer); err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	defer clear(text)
	if _, err := tls.X509KeyPair([]byte(answer.Chain), text); err != nil {
		return fmt.Errorf("the broker issued for another key: %w", err)
	}
	// Between the two a connect finds no pair, shows none, and goes by its other
	// credential.
	if err := writePrivate(c.cfg.creds.key, text); err != nil {
		return err
	}
	return writePrivate(c.cfg.creds.certificate, []byte(answer.Chain))
}

func certificateRequest(key *ecdsa.PrivateKey, names []string) ([]byte, error) {
	var req x509.CertificateRequest
	for _, n := range names {
		if !strings.Contains(n, "://") {
			req.DNSNames = append(req.DNSNames, n)
			continue
		}
		u, err := url.Parse(n)
		if err != nil {
			return nil, err
		}
		req.URIs = append(req.URIs, u)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &req, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}
