package broker

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// nextSeed is where the seed of a node's next key is put: node.next.seed beside
// node.seed.
func nextSeed(cfg *Config) string {
	return strings.TrimSuffix(cfg.Keys.Node, ".seed") + ".next.seed"
}

// heldKeyring is where a keyring that came over the wire is kept when its own file
// cannot be written, as in a mounted secret.
func heldKeyring(cfg *Config) string { return filepath.Join(cfg.State, "keyring.json") }

// loadKeys reads keyring and seeds for a start: a node that has no key to attest with
// does not start.
func (m *material) loadKeys(cfg *Config, now time.Time) error {
	if err := m.readKeys(cfg, now); err != nil {
		return err
	}
	err := m.chooseSigner(cfg, now)
	m.shown = m.signer
	return err
}

// reloadKeys reads them for a broker that runs with old. It takes a keyring in which its
// own key is revoked, and attests nothing from then on: whom the others may trust, and
// what readers are told, must not hang on that.
func (m *material) reloadKeys(cfg *Config, old *material, now time.Time) error {
	if err := m.readKeys(cfg, now); err != nil {
		return err
	}
	m.signer, m.shown = old.signer, old.shown
	err := m.chooseSigner(cfg, now)
	m.chooseShown()
	if k, ok := m.ring.ByID(m.signer.KeyID()); ok && !k.RevokedAt.IsZero() && !now.Before(k.RevokedAt) {
		m.mute, err = err, nil
	}
	return err
}

func (m *material) readKeys(cfg *Config, now time.Time) error {
	var err error
	if m.ring, m.ringDoc, err = readRing(cfg, now); err != nil {
		return err
	}
	m.signers = nil
	for _, file := range []string{cfg.Keys.Node, nextSeed(cfg)} {
		seed, err := readSecret(file)
		if errors.Is(err, fs.ErrNotExist) && file != cfg.Keys.Node {
			continue
		}
		if err != nil {
			return fmt.Errorf("broker: read node key: %w", err)
		}
		signer, err := signing.NewSigner(bytes.TrimSpace(seed))
		clear(seed)
		if err != nil {
			return fmt.Errorf("broker: node key %s: %w", file, err)
		}
		m.signers = append(m.signers, signer)
	}
	return nil
}

// readRing reads the keyring's file, and the one that is held in its place if that is
// newer.
func readRing(cfg *Config, now time.Time) (*keyring.Ring, []byte, error) {
	doc, err := os.ReadFile(cfg.Keys.Keyring)
	if err != nil {
		return nil, nil, fmt.Errorf("broker: read keyring: %w", err)
	}
	ring, err := parseRing(cfg, doc, now)
	if err != nil {
		err = fmt.Errorf("broker: keyring %s: %w", cfg.Keys.Keyring, err)
	}
	if held, newer := keptAside(cfg, now); newer != nil && (err != nil || newer.Version() > ring.Version()) {
		return newer, held, nil //nolint:nilerr // the file is not what counts then
	}
	return ring, doc, err
}

// keptAside reads the keyring that is held in place of the file; nil if there is none
// that is good.
func keptAside(cfg *Config, now time.Time) ([]byte, *keyring.Ring) {
	doc, err := os.ReadFile(heldKeyring(cfg))
	if err != nil {
		return nil, nil
	}
	ring, err := parseRing(cfg, doc, now)
	if err != nil {
		return nil, nil
	}
	return doc, ring
}

// parseRing verifies a keyring against this node's own pinned root key.
func parseRing(cfg *Config, doc []byte, now time.Time) (*keyring.Ring, error) {
	ring, err := keyring.Parse(doc, cfg.Keys.Root, now)
	if errors.Is(err, keyring.ErrBadSignature) {
		err = fmt.Errorf("%w of keys.root, %s: it is that of another broker or cluster", err, cfg.Keys.Root)
	}
	return ring, err
}

// chooseSigner keeps the signer that there is while its key is good, and else takes the
// first that is: a node goes over to its next key only in turnKey. An attestation that
// no reader would accept must never be made.
func (m *material) chooseSigner(cfg *Config, now time.Time) error {
	m.mute = nil
	if m.signer != nil && mayAttest(m.ring, m.signer, cfg, now) == nil && m.holds(m.signer.KeyID()) {
		return nil
	}
	var first error
	for _, s := range m.signers {
		err := mayAttest(m.ring, s, cfg, now)
		if err == nil {
			m.signer = s
			return nil
		}
		if first == nil {
			first = err
		}
	}
	if m.signer == nil {
		m.signer = m.signers[0]
	}
	return first
}

// chooseShown keeps the token of the routes while nobody refuses it: another one makes
// the routes anew, which loses what is on its way over them.
func (m *material) chooseShown() {
	if k, ok := m.ring.ByID(m.shown.KeyID()); !ok || !k.RevokedAt.IsZero() {
		m.shown = m.signer
	}
}

func (m *material) holds(id string) bool {
	for _, s := range m.signers {
		if s.KeyID() == id {
			return true
		}
	}
	return false
}

func mayAttest(ring *keyring.Ring, s *signing.Signer, cfg *Config, now time.Time) error {
	key, ok := ring.ByID(s.KeyID())
	switch {
	case !ok:
		return fmt.Errorf("broker: node key %s is not in the keyring %s", s.KeyID(), cfg.Keys.Keyring)
	case key.Role != keyring.RoleBroker:
		return fmt.Errorf("broker: node key %s has role %s in the keyring, want %s", key.ID, key.Role, keyring.RoleBroker)
	case !key.RevokedAt.IsZero() && !now.Before(key.RevokedAt):
		return fmt.Errorf("broker: node key %s is revoked in the keyring %s, from %s on: give the node a new one (docs/operations.md, Keys of nodes)", key.ID, cfg.Keys.Keyring, key.RevokedAt.Format(time.RFC3339))
	case !key.ValidAt(now):
		return fmt.Errorf("broker: node key %s is not valid now (from %s to %s, the clock here says %s)", key.ID, key.NotBefore.Format(time.RFC3339), key.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// nextSigner returns the signer to go over to: of a key that is good now and begins
// later than that of the signer in use. nil: there is none.
func (m *material) nextSigner(cfg *Config, now time.Time) *signing.Signer {
	used, _ := m.ring.ByID(m.signer.KeyID())
	for _, s := range m.signers {
		k, ok := m.ring.ByID(s.KeyID())
		if ok && s.KeyID() != used.ID && mayAttest(m.ring, s, cfg, now) == nil && (m.mute != nil || k.NotBefore.After(used.NotBefore)) {
			return s
		}
	}
	return nil
}
