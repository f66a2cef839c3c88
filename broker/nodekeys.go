package broker

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
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

// loadKeys reads keyring and seeds for a start: a node that has no key to attest with
// does not start.
func (m *material) loadKeys(cfg *Config, now time.Time) error {
	var err error
	if m.ring, m.ringDoc, m.ringNote, err = readRing(cfg, now); err != nil {
		return err
	}
	if err := m.readSeeds(cfg); err != nil {
		return err
	}
	err = m.chooseSigner(cfg, now)
	m.shown = m.signer
	return err
}

// reloadKeys reads them for a broker that runs with old. It takes a keyring in which its
// own key is revoked, and attests nothing from then on: whom the others may trust, and
// what readers are told, must not hang on that.
func (m *material) reloadKeys(cfg *Config, old *material, now time.Time) error {
	var err error
	if m.ring, m.ringDoc, m.ringNote, err = rereadRing(cfg, old, now); err != nil {
		return err
	}
	if err := m.readSeeds(cfg); err != nil {
		return err
	}
	err = m.follow(cfg, old, now)
	if k, ok := m.ring.ByID(m.signer.KeyID()); ok && !k.RevokedAt.IsZero() && !now.Before(k.RevokedAt) {
		return nil
	}
	return err
}

// follow goes on from what is in force: with its keyring, unless m has a newer one, and
// with its key while that is good. The error, why nothing is attested, is m.mute too.
func (m *material) follow(cfg *Config, inForce *material, now time.Time) error {
	if m.ring.Replaces(inForce.ring) != nil {
		m.ring, m.ringDoc, m.ringNote = inForce.ring, inForce.ringDoc, inForce.ringNote
	}
	m.signer, m.shown = inForce.signer, inForce.shown
	m.mute = m.chooseSigner(cfg, now)
	m.chooseShown()
	return m.mute
}

func (m *material) readSeeds(cfg *Config) error {
	m.signers = nil
	for _, file := range []string{cfg.Keys.Node, nextSeed(cfg)} {
		signer, err := readSeed(file)
		if errors.Is(err, fs.ErrNotExist) && file != cfg.Keys.Node {
			continue
		}
		if err != nil {
			return err
		}
		m.signers = append(m.signers, signer)
	}
	return nil
}

// readSeed reads the seed of a node key.
func readSeed(file string) (*signing.Signer, error) {
	seed, err := readSecret(file)
	if err != nil {
		return nil, fmt.Errorf("broker: read node key: %w", err)
	}
	signer, err := signing.NewSigner(bytes.TrimSpace(seed))
	clear(seed)
	if err != nil {
		return nil, fmt.Errorf("broker: node key %s: %w", file, err)
	}
	return signer, nil
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
