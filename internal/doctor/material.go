package doctor

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/signing/keyring"
)

// keys looks at keyring and node key.
func (f offline) keys(cfg *broker.Config, file string, now time.Time, t Thresholds) {
	if cfg.Keys.Keyring == "" || cfg.Keys.Root == "" {
		return // CONFIG_001 says so
	}
	renew := "put keys/root.seed back, then: signet init " + filepath.Dir(file)
	doc, err := os.ReadFile(cfg.Keys.Keyring)
	var ring *keyring.Ring
	if err == nil {
		ring, err = keyring.Parse(doc, cfg.Keys.Root, now)
	}
	if err != nil {
		f.add(idKeyring, cfg.Keys.Keyring, Critical, renew, "%s", oneLine(err))
		return
	}
	f.expiry(idKeyring, cfg.Keys.Keyring, ring.Expires(), now, t, renew, "keyring version "+number(ring.Version()))
	f.clockAfter(cfg.Keys.Keyring, ring.Issued(), now)
	id, err := publicKey(cfg.Keys.Node)
	if err != nil {
		f.add(idNodeKey, cfg.Keys.Node, Critical, "signet keys show "+cfg.Keys.Node, "%s", oneLine(err))
		return
	}
	key, ok := ring.ByID(id)
	switch {
	case !ok || key.Role != keyring.RoleBroker:
		f.add(idNodeKey, cfg.Keys.Node, Critical, renew, "%s may not attest by the keyring", id)
	case !key.ValidAt(now):
		f.add(idNodeKey, cfg.Keys.Node, Critical, renew, "%s is not valid now: from %s to %s, revoked %s", id, date(key.NotBefore), date(key.NotAfter), date(key.RevokedAt))
	default:
		until := key.NotAfter
		if !key.RevokedAt.IsZero() {
			until = key.RevokedAt
		}
		f.expiry(idNodeKey, cfg.Keys.Node, until, now, t, renew, "attestation key "+id)
	}
}

// publicKey returns the public key of a seed file. The text of the file is never in
// the error.
func publicKey(file string) (string, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	defer clear(raw)
	pair, err := nkeys.FromSeed(bytes.TrimSpace(raw))
	if err != nil {
		return "", errors.New("the file does not hold an nkey seed")
	}
	defer pair.Wipe()
	return pair.PublicKey()
}

func (f offline) certificates(cfg *broker.Config, file string, now time.Time, t Thresholds) {
	renew := "signet init " + filepath.Dir(file) + " (or whoever issues the certificate)"
	if leaf := f.certificate(idCert, cfg.TLS.Certificate, now, t, renew); leaf != nil {
		f.certificateFits(cfg, leaf, renew)
	}
	if cfg.Cluster != nil {
		f.certificate(idCertNode, cfg.Cluster.TLS.Certificate, now, t, renew)
		f.certificate(idCertNode, cfg.Cluster.TLS.CA, now, t, renew)
	}
}

// certificate judges the first certificate of a PEM file to expire, and returns the
// first in it.
func (f offline) certificate(id, file string, now time.Time, t Thresholds, renew string) *x509.Certificate {
	if file == "" {
		return nil // CONFIG_001 says so
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		f.add(id, file, Critical, renew, "%s", oneLine(err))
		return nil
	}
	var leaf, first *x509.Certificate
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			f.add(id, file, Critical, renew, "not a certificate: %s", oneLine(err))
			return nil
		}
		if leaf == nil {
			leaf = c
		}
		if first == nil || c.NotAfter.Before(first.NotAfter) {
			first = c
		}
	}
	if first == nil {
		f.add(id, file, Critical, renew, "there is no certificate in the file")
		return nil
	}
	f.expiry(id, file, first.NotAfter, now, t, renew, "certificate of "+first.Subject.String())
	f.clockAfter(file, leaf.NotBefore, now)
	return leaf
}

// certificateFits compares the server certificate with its key and with the names
// that clients are told.
func (f offline) certificateFits(cfg *broker.Config, leaf *x509.Certificate, renew string) {
	if _, err := tls.LoadX509KeyPair(cfg.TLS.Certificate, cfg.TLS.Key); err != nil {
		f.add(idCertNames, cfg.TLS.Certificate, Critical, renew, "%s", oneLine(err))
		return
	}
	for _, addr := range cfg.Advertise {
		host, _, err := net.SplitHostPort(addr)
		if err == nil && leaf.VerifyHostname(host) != nil {
			f.add(idCertNames, cfg.TLS.Certificate, Critical, "signet init DIR --host "+host+" (or take it out of advertise)",
				"clients are told to connect to %s, which the certificate does not name", host)
			return
		}
	}
	f.add(idCertNames, cfg.TLS.Certificate, OK, "", "fits its key and the advertised names")
}

// clockAfter finds a clock that is behind: what is on disk was made before now.
func (f offline) clockAfter(object string, made, now time.Time) {
	if now.Before(made) {
		f.add(idClockFiles, object, Critical, "set the clock: chronyc makestep", "the clock says %s, and the file is of %s", date(now), date(made))
		return
	}
	f.add(idClockFiles, object, OK, "", "made %s", date(made))
}

func date(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}
