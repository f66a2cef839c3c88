package ca

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"

	"github.com/signetbus/signet/internal/durablefile"
)

const maxFile = 1 << 20 // a certificate chain is a few KiB

func encodeCerts(ders ...[]byte) []byte {
	var out []byte
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

// writePair writes both files. The key goes first: a reader that sees the old
// certificate with the new key refuses the pair and keeps what it had, and the
// next look finds both.
func writePair(certFile, keyFile string, certs []byte, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("ca: %w", err)
	}
	if err := writeFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return err
	}
	return writeFile(certFile, certs, 0o644)
}

// writeFile replaces name in one step; the mode holds from the first byte on.
func writeFile(name string, data []byte, mode os.FileMode) error {
	if err := durablefile.Replace(name, data, mode); err != nil {
		return fmt.Errorf("ca: write %s: %w", name, err)
	}
	return nil
}

// loadPair reads a certificate chain and its key, whose file only its owner may
// read. Leaf is set.
func loadPair(certFile, keyFile string) (*tls.Certificate, error) {
	certs, err := readFile(certFile, false)
	if err != nil {
		return nil, err
	}
	key, err := readFile(keyFile, true)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certs, key)
	if err != nil {
		return nil, fmt.Errorf("%w: %s and %s: %w", ErrInvalid, certFile, keyFile, err)
	}
	return &pair, nil
}

func readFile(name string, private bool) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	defer f.Close()
	// The mode of what was opened, not of what the name may be by now.
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	switch mode := info.Mode(); {
	case !mode.IsRegular() || info.Size() > maxFile:
		return nil, fmt.Errorf("%w: %s is not a file of at most 1 MiB", ErrInvalid, name)
	case private && !ownKeyFile(info):
		return nil, fmt.Errorf("%w: %s has mode %#o; run: chmod 600 %s", ErrKeyMode, name, mode.Perm(), name)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("ca: read %s: %w", name, err)
	}
	return data, nil
}

// keyModeOK says whether a private key in a file of this mode and owner is known
// to its reader (or root) alone.
func keyModeOK(mode os.FileMode, owner, reader int) bool {
	return mode.Perm()&0o077 == 0 || mode.Perm()&0o037 == 0 && owner == 0 && reader != 0
}
