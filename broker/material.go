package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
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
	bundle     *policy.Bundle // that policy is compiled from
	counts     *policy.Counts
	applied    *appliedPolicy // that bundle came with; nil: from the files
	validators map[*policy.SchemaDoc]schema.Validator
	signer     *signing.Signer
	signers    []*signing.Signer // of all seeds of this node, signer among them
	shown      *signing.Signer   // of the token that the routes have; may be that of a key which has ended
	mute       error             // why nothing is attested; nil: signer attests
	ring       *keyring.Ring
	ringDoc    []byte
	ringNote   error // why the keyring's file is passed over, or could not be brought up to date; nil: it is what is in force
	loaded     time.Time
	accounts   []embed.TenantAccount // that the server was given for it
	trust      *trust
	passed     error           // files that were passed over, see passOver; nil: none
	ungiven    []*policy.Fault // names in the applied policy that trust does not give: nobody comes in by them (given.go)
}

// loadMaterial reads and checks policy, schemas, keyring and node key. The error
// joins all faults.
func loadMaterial(ctx context.Context, cfg *Config, sources issuerKeys, now time.Time) (*material, error) {
	m := &material{loaded: now, counts: policy.NewCounts()}
	keys := m.loadKeys(cfg, now)
	return m, errors.Join(m.findApplied(cfg), m.loadPolicy(ctx, cfg), m.loadTrust(cfg, sources), keys)
}

func (m *material) loadPolicy(ctx context.Context, cfg *Config) error {
	var err error
	if m.bundle, err = m.readPolicy(cfg); err != nil {
		return err
	}
	if m.policy, err = policy.CompileAt(m.bundle, time.Now(), m.counts); err != nil {
		return err
	}
	return m.compileSchemas(ctx)
}

// compileSchemas compiles the schemas of the policy.
func (m *material) compileSchemas(ctx context.Context) error {
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

func (m *material) validator(d *policy.SchemaDoc) schema.Validator { return m.validators[d] }

// same reports whether m decides nothing differently than old. What either of them
// points to must not be mixed: validators belong to the documents of one policy.
func (m *material) same(old *material) bool {
	return !m.policyChanged(old) && m.applied.version() == old.applied.version() && m.sameTrust(old) && m.sameKeys(old) &&
		(m.ringNote == nil) == (old.ringNote == nil) && slices.EqualFunc(m.signers, old.signers, sameSigner)
}

// sameKeys leaves out the seeds that are not in use.
func (m *material) sameKeys(old *material) bool {
	return bytes.Equal(m.ringDoc, old.ringDoc) && sameSigner(m.signer, old.signer) && (m.mute == nil) == (old.mute == nil)
}

// sameRoutes: the other nodes are judged, and judge this one, as before.
func (m *material) sameRoutes(old *material) bool {
	return bytes.Equal(m.ringDoc, old.ringDoc) && sameSigner(m.shown, old.shown)
}

func sameSigner(a, b *signing.Signer) bool { return a.KeyID() == b.KeyID() }

// storesChange reports whether the policy of m wants other streams than that of old. If
// not, nothing is asked of the store: a right must be taken away without a quorum, too.
func (m *material) storesChange(old *material) bool {
	return m.policyChanged(old) && !policy.SameStores(m.policy, old.policy)
}

func (m *material) policyChanged(old *material) bool {
	return m.policy.Digest() != old.policy.Digest() || m.policy.Lapsed() != old.policy.Lapsed()
}

// attests returns the time in which readers accept what the node key signs: while
// the key is valid and the keyring that says so has not expired. It is over for a node
// whose keys are all revoked.
func (m *material) attests() (from, until time.Time) {
	if m.mute != nil {
		return time.Unix(0, 0), time.Unix(1, 0)
	}
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
