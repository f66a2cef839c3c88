package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/durablefile"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/schema"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// Where the policy comes from. While nobody has applied one, every node has that of its
// own files. The first version that is applied, signed by a key of the role policy,
// takes their place on all nodes; from then on the files are not read, whatever stands in
// them, until a signed version says that they hold again. Each node keeps the version in
// force on its disk, so that it has it without the others.

// appliedPolicy is a version of the policy as it was signed. It does not change.
type appliedPolicy struct {
	signing.PolicyVersion
	doc []byte
	key keyring.Key // that signed it; the zero Key where that was not asked
}

// version is 0 for none.
func (a *appliedPolicy) version() uint64 {
	if a == nil {
		return 0
	}
	return a.Version
}

// inForce is the version whose policy is in force, 0 if that of the files is.
func (a *appliedPolicy) inForce() uint64 {
	if !a.holds() {
		return 0
	}
	return a.Version
}

// holds reports whether the policy is in it, not in the files.
func (a *appliedPolicy) holds() bool { return a != nil && a.Digest != "" }

// policies is what the broker has of applied policies beside the one in force.
type policies struct {
	taking sync.Mutex                    // one version is being put in force; held over Broker.reload
	next   atomic.Pointer[appliedPolicy] // that the next reload goes by; nil: the one in force
	replay atomic.Bool                   // stored events are being judged by a policy that is planned

	// failed is the version that could not be taken, which is tried again at retry: each
	// try is a record. Only the start and then the goroutine that follows the policy use them.
	failed uint64
	retry  time.Time
}

// follow takes a version that somebody else has, and not again at once if that fails.
func (p *policies) follow(ctx context.Context, b *Broker, a *appliedPolicy, from string, reload func(*Broker, context.Context) error) {
	if a.Version == p.failed && time.Now().Before(p.retry) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, policyTaking)
	defer cancel()
	err := takePolicyBy(ctx, b, a.doc, reload)
	if err == nil {
		p.failed = 0
		return
	}
	p.failed, p.retry = a.Version, time.Now().Add(policyKeep)
	if ctx.Err() == nil {
		b.log.Error().Err(err).Uint64("version", a.Version).Str("from", from).Msg("an applied policy is not taken: it is tried again in a minute, unless another one is applied")
	}
}

// wanted is what a reload goes by.
func (p *policies) wanted(inForce *material) *appliedPolicy {
	if next := p.next.Load(); next.version() > inForce.applied.version() {
		return next
	}
	return inForce.applied
}

// appliedFile is where a node keeps the version in force.
func appliedFile(cfg *Config) string { return filepath.Join(cfg.State, "policy.json") }

// errPolicyBroker: a version was signed for another cluster or broker.
var errPolicyBroker = errors.New("broker: the policy was signed for another broker")

// policyName is the name that a version of the policy is signed for.
func policyName(cfg *Config) string {
	if cfg.Cluster != nil {
		return cfg.Cluster.Name
	}
	return cfg.Name
}

// openPolicy verifies a version of the policy.
//
// Errors: those of signing.VerifyPolicy, errPolicyBroker.
func openPolicy(cfg *Config, doc []byte, ring *keyring.Ring) (*appliedPolicy, error) {
	v, key, err := signing.VerifyPolicy(doc, ring)
	if err != nil {
		return nil, err
	}
	if v.Broker != policyName(cfg) {
		return nil, fmt.Errorf("%w: %q, this is %q", errPolicyBroker, v.Broker, policyName(cfg))
	}
	return &appliedPolicy{PolicyVersion: *v, doc: bytes.Clone(doc), key: key}, nil
}

// findApplied reads the version that was in force when this node ran last. It was
// verified then; that its key has left the keyring since does not undo it, that the key
// is revoked for the time in which it signed does.
func (m *material) findApplied(cfg *Config) error {
	if state, err := os.Stat(cfg.State); err != nil || !state.IsDir() {
		return nil //nolint:nilerr // nothing was ever kept there; what is wrong with it is for the guards to say
	}
	name := appliedFile(cfg)
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode().Perm()&0o022 != 0 {
		err = fmt.Errorf("the group or others may write it (mode %04o): chmod go-w", info.Mode().Perm())
	}
	var doc []byte
	if err == nil {
		doc, err = os.ReadFile(name)
	}
	if err == nil && m.ring != nil {
		m.applied, err = openPolicy(cfg, doc, m.ring)
	}
	if errors.Is(err, signing.ErrUnknownKey) {
		var v *signing.PolicyVersion
		if v, err = signing.PeekPolicy(doc); err == nil {
			m.applied = &appliedPolicy{PolicyVersion: *v, doc: doc}
		}
	}
	if err != nil {
		return fmt.Errorf("broker: the applied policy in %s: %w; if it cannot be repaired, remove the file: the node then begins with its policy files and takes the version that the cluster keeps", name, err)
	}
	return nil
}

// readPolicy reads the policy that is to be in force: the applied one, else the files.
func (m *material) readPolicy(cfg *Config) (*policy.Bundle, error) {
	if !m.applied.holds() {
		return policy.Load(cfg.Policy)
	}
	files, err := policy.Unpack(m.applied.Files)
	if err != nil {
		return nil, err
	}
	bundle, err := policy.ParseFiles(files)
	if err == nil && bundle.Digest() != m.applied.Digest {
		err = fmt.Errorf("broker: version %d of the policy says that it is %s, and is %s", m.applied.Version, m.applied.Digest, bundle.Digest())
	}
	return bundle, err
}

// errOlder: another version of the policy is in force that is as high or higher.
var errOlder = errors.New("broker: an older version of the policy")

// takePolicy verifies a version of the policy and puts it in force, if it is higher than
// the one in force; that one itself is no fault.
//
// Errors: those of openPolicy, errOlder, ErrNotReady, and what a reload says.
func takePolicy(ctx context.Context, b *Broker, doc []byte) error {
	return takePolicyBy(ctx, b, doc, (*Broker).Reload)
}

// takePolicyBy is takePolicy with another way to reload.
func takePolicyBy(ctx context.Context, b *Broker, doc []byte, reload func(*Broker, context.Context) error) error {
	b.taking.Lock()
	defer b.taking.Unlock()
	old := b.material.Load()
	a, err := openPolicy(&b.cfg, doc, old.ring)
	switch {
	case err != nil:
		return err
	case bytes.Equal(doc, old.applied.document()):
		return nil
	case a.Version <= old.applied.version():
		return fmt.Errorf("%w: version %d was offered, %d is in force", errOlder, a.Version, old.applied.version())
	}
	b.next.Store(a)
	defer b.next.Store(nil)
	if err := reload(b, ctx); err != nil && !errors.Is(err, errInForce) {
		return err
	}
	// It is in force: the others have it, and it may revoke somebody.
	if err := durablefile.Replace(appliedFile(&b.cfg), a.doc, 0o600); err != nil {
		b.log.Error().Err(err).Msg("the policy that was applied is in force, and could not be kept on disk: after a restart the one of before counts until another node is heard")
	}
	b.log.Info().Uint64("version", a.Version).Str("policy", b.Policy().Digest()).Str("by", a.By).Bool("from files", !a.holds()).Msg("policy applied")
	return nil
}

func (a *appliedPolicy) document() []byte {
	if a == nil {
		return nil
	}
	return a.doc
}

// reloadStarting is Broker.Reload before the gate is open. Only the start itself may call
// it, when all parts that a reload needs are up.
func reloadStarting(b *Broker, ctx context.Context) error {
	b.reload.Lock()
	defer b.reload.Unlock()
	old, is, err := b.reloadLocked(ctx)
	b.reloaded(old, is, err)
	return err
}

// lapse puts in force that the time of some grants is over. It reads no file, asks nothing
// of the store and waits for no reload: what is over is over also where those are stuck. A
// reload that ends later may bring a grant back that was good when it began, until the
// next look.
func lapse(ctx context.Context, b *Broker, now time.Time) {
	old, m, err := lapsed(b, now)
	if m == nil && err == nil {
		return
	}
	if err != nil {
		b.log.Error().Err(err).Msg("grants have lapsed, and could not be taken away")
	}
	if m == nil {
		return
	}
	b.reloaded(old, m, err)
	b.log.Info().Int("lapsed", m.policy.Lapsed()).Str("policy", m.policy.Digest()).Msg("grants have lapsed")
	recheckConsumers(ctx, b)
}

// lapsed returns what was in force and what is; the latter is nil if nothing has changed.
func lapsed(b *Broker, now time.Time) (old, _ *material, _ error) {
	b.swap.Lock()
	defer b.swap.Unlock()
	old = b.material.Load()
	if next := old.policy.NextLapse(); next.IsZero() || now.Before(next) {
		return old, nil, nil
	}
	m := *old
	var err error
	if m.policy, err = policy.CompileAt(old.bundle, now, old.counts); err != nil {
		return old, nil, err
	}
	m.adopt(old)
	chain, err := b.newChain(&m)
	if err != nil {
		return old, nil, err
	}
	return old, &m, putInForce(b, &m, old, chain)
}

// adopt takes over the schemas of old, whose policy has the same text.
func (m *material) adopt(old *material) {
	type key struct {
		tenant, name string
		version      int
	}
	have := map[key]*policy.SchemaDoc{}
	each := func(set *policy.Set, do func(k key, d *policy.SchemaDoc)) {
		for _, t := range set.Tenants() {
			for i := range t.Schemas {
				d := &t.Schemas[i]
				do(key{t.Name, d.Name, d.Version}, d)
			}
		}
	}
	each(old.policy, func(k key, d *policy.SchemaDoc) { have[k] = d })
	validators := m.validators
	m.validators = make(map[*policy.SchemaDoc]schema.Validator, len(have))
	each(m.policy, func(k key, d *policy.SchemaDoc) { m.validators[d] = validators[have[k]] })
}

// refusePolicy tells an administrator what is wrong with a version of the policy.
func refusePolicy(err error) error {
	var r *wire.Refusal
	switch {
	case errors.As(err, &r):
		return err
	case errors.Is(err, ErrNotReady):
		return wire.Refuse(wire.CodeUnavailable, "policy", err.Error())
	}
	return wire.Refuse(wire.CodeConflict, "policy", strings.ReplaceAll(err.Error(), "\n", "; "))
}

// warnApplied tells that the policy in force would not be taken if it came now, because the
// keyring has changed: a restart would be refused.
func warnApplied(b *Broker) {
	m := b.material.Load()
	if m.applied == nil {
		return
	}
	if _, err := openPolicy(&b.cfg, m.applied.doc, m.ring); err != nil {
		b.log.Error().Err(err).Uint64("version", m.applied.Version).Msg("the policy in force does not verify by the keyring in force: apply another one before a node is started anew")
	}
}

// warnModes tells of rules that are not enforced: whoever tries one out must not forget it.
func warnModes(b *Broker, set *policy.Set) {
	var rules []string
	note := func(t *policy.Tenant, rule string, m policy.Mode) {
		if m != policy.ModeEnforce {
			rules = append(rules, t.Name+": "+rule+" "+m.String())
		}
	}
	for _, t := range set.Tenants() {
		for _, p := range t.Principals() {
			note(t, "principal "+p.Name, p.Mode)
		}
		for i := range t.Limits {
			note(t, "limit "+t.Limits[i].Name, t.Limits[i].Mode)
		}
		for i := range t.Bindings {
			note(t, t.Bindings[i].Rule, t.Bindings[i].Mode)
		}
		if r := t.Quota.Rate; r != nil {
			note(t, r.Rule, r.Mode)
		}
	}
	if len(rules) > 0 {
		const most = 20
		b.log.Warn().Int("rules", len(rules)).Strs("first", rules[:min(most, len(rules))]).Msg("rules of the policy are not enforced (mode)")
	}
}
