package client

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/nats-io/nkeys"
)

const (
	maxSeedFileBytes = 1024
	maxRootsBytes    = 1 << 20
	nonceBytes       = 15 // what a NATS server sends, and the gate
)

// identity signs the nonce of the connection handshake.
type identity struct {
	public string
	sign   func([]byte) ([]byte, error)
	wipe   func()
	// refused says that a server asked for another signature than of a nonce:
	// nats.go does not hand the error on.
	refused atomic.Bool
}

// signNonce refuses whatever does not look like a nonce: a hostile server could
// otherwise have any bytes signed, such as those of an event.
func (id *identity) signNonce(nonce []byte) ([]byte, error) {
	if err := checkNonce(nonce); err != nil {
		id.refused.Store(true)
		return nil, err
	}
	return id.sign(nonce)
}

func checkNonce(nonce []byte) error {
	if len(nonce) != nonceBytes {
		return fmt.Errorf("%w: it has %d", ErrNonce, len(nonce))
	}
	for _, c := range nonce {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return ErrNonce
		}
	}
	return nil
}

// loadIdentity reads a user seed file. The file's bytes are overwritten after
// use; the key stays in memory because every reconnect needs it.
func loadIdentity(file string) (*identity, error) {
	raw, err := readPrivate(file, maxSeedFileBytes)
	if err != nil {
		return nil, fmt.Errorf("client: nkey seed file: %w", err)
	}
	defer clear(raw)
	prefix, seed, err := nkeys.DecodeSeed(bytes.TrimSpace(raw))
	if err != nil {
		return nil, fmt.Errorf("%w: %s does not hold an nkey seed", ErrInvalidOption, file)
	}
	defer clear(seed)
	if prefix != nkeys.PrefixByteUser {
		return nil, fmt.Errorf("%w: %s holds a %s seed; connections need a user seed (SU...)", ErrInvalidOption, file, prefix)
	}
	private := ed25519.NewKeyFromSeed(seed)
	public, err := nkeys.Encode(nkeys.PrefixByteUser, private.Public().(ed25519.PublicKey))
	if err != nil {
		clear(private)
		return nil, fmt.Errorf("client: nkey seed file: %w", err)
	}
	return &identity{
		public: string(public),
		sign:   func(b []byte) ([]byte, error) { return ed25519.Sign(private, b), nil },
		wipe:   func() { clear(private) },
	}, nil
}

// loadRoots reads PEM certificates.
func loadRoots(file string) (*x509.CertPool, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("client: TLS roots: %w", err)
	}
	if info.Size() > maxRootsBytes {
		return nil, fmt.Errorf("%w: TLS roots %s is over %d bytes", ErrInvalidOption, file, maxRootsBytes)
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("client: TLS roots: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%w: TLS roots %s holds no PEM certificate", ErrInvalidOption, file)
	}
	return pool, nil
}
