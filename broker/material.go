package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/schema"
	"github.com/signetbus/signet/schema/jsonschema"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// material is everything that files decide and a reload replaces, as one
// immutable value: either all of it is good or none of it is used.
type material struct {
	policy     *policy.Set
	validators map[*policy.SchemaDoc]schema.Validator
	signer     *signing.Signer
	ring       *keyring.Ring
	ringDoc    []byte
	loaded     time.Time
	accounts   []embed.TenantAccount // that the server was given for it
}

// loadMaterial reads and checks policy, schemas, keyring and node key. The error
// joins all faults.
func loadMaterial(ctx context.Context, cfg *Config, now time.Time) (*material, error) {
	m := &material{loaded: now}
	return m, errors.Join(m.loadPolicy(ctx, cfg), m.loadKeys(cfg, now))
}

func (m *material) loadPolicy(ctx context.Context, cfg *Config) error {
	bundle, err := policy.Load(cfg.Policy)
	if err != nil {
		return err
	}
	if m.policy, err = policy.Compile(bundle); err != nil {
		return err
	}
	engine := jsonschema.New(schema.DefaultLimits())
	m.validators = map[*policy.SchemaDoc]schema.Validator{}
	var faults []error
	for _, t := range m.policy.Tenants() {
		for i := range t.Schemas {
			d := &t.Schemas[i]
			v, err := engine.Compile(ctx, schema.Document{Name: d.Name, Version: d.Version, Format: d.Format, Text: d.Text, Ref: d.Ref})
			if err != nil {
				faults = append(faults, fmt.Errorf("%s: schema %s: %w", d.At, d.Name, err))
				continue
			}
			m.validators[d] = v
		}
	}
	return errors.Join(faults...)
}

func (m *material) loadKeys(cfg *Config, now time.Time) error {
	var err error
	if m.ringDoc, err = os.ReadFile(cfg.Keys.Keyring); err != nil {
		return fmt.Errorf("broker: read keyring: %w", err)
	}
	if m.ring, err = keyring.Parse(m.ringDoc, cfg.Keys.Root, now); err != nil {
		if errors.Is(err, keyring.ErrBadSignature) {
			err = fmt.Errorf("%w of keys.root, %s: it is that of another broker or cluster", err, cfg.Keys.Root)
		}
		return fmt.Errorf("broker: keyring %s: %w", cfg.Keys.Keyring, err)
	}
	seed, err := readSecret(cfg.Keys.Node)
	if err != nil {
		return fmt.Errorf("broker: read node key: %w", err)
	}
	defer clear(seed)
	if m.signer, err = signing.NewSigner(bytes.TrimSpace(seed)); err != nil {
		return fmt.Errorf("broker: node key %s: %w", cfg.Keys.Node, err)
	}
	// An attestation that no reader would accept must never be made.
	key, ok := m.ring.ByID(m.signer.KeyID())
	switch {
	case !ok:
		return fmt.Errorf("broker: node key %s is not in the keyring %s", m.signer.KeyID(), cfg.Keys.Keyring)
	case key.Role != keyring.RoleBroker:
		return fmt.Errorf("broker: node key %s has role %s in the keyring, want %s", key.ID, key.Role, keyring.RoleBroker)
	case !key.RevokedAt.IsZero() && !now.Before(key.RevokedAt):
		return fmt.Errorf("broker: node key %s is revoked in the keyring %s, from %s on: give the node a new one (docs/operations.md, Keys of nodes)", key.ID, cfg.Keys.Keyring, key.RevokedAt.Format(time.RFC3339))
	case !key.ValidAt(now):
		return fmt.Errorf("broker: node key %s is not valid now (from %s to %s)", key.ID, key.NotBefore.Format(time.RFC3339), key.NotAfter.Format(time.RFC3339))
	}
	return nil
}

func (m *material) validator(d *policy.SchemaDoc) schema.Validator { return m.validators[d] }

// same reports whether m decides nothing differently than old. What either of them
// points to must not be mixed: validators belong to the documents of one policy.
func (m *material) same(old *material) bool {
	return !m.policyChanged(old) && bytes.Equal(m.ringDoc, old.ringDoc) && m.signer.KeyID() == old.signer.KeyID()
}

func (m *material) policyChanged(old *material) bool { return m.policy.Digest() != old.policy.Digest() }

// attests returns the time in which readers accept what the node key signs: while
// the key is valid and the keyring that says so has not expired.
func (m *material) attests() (from, until time.Time) {
	key, _ := m.ring.ByID(m.signer.KeyID())
	until = key.NotAfter
	if e := m.ring.Expires(); e.Before(until) {
		until = e
	}
	if !key.RevokedAt.IsZero() && key.RevokedAt.Before(until) {
		until = key.RevokedAt
	}
	return key.NotBefore, until
}
