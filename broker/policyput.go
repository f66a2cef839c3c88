package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/internal/wire"
)

// policyAdmin implements admin.Policies.
type policyAdmin struct{ b *Broker }

// policyAge is how old the signature of a version may be that is applied, and how far
// ahead: what was signed and not applied must not lie about to be applied later.
const policyAge = 10 * time.Minute

// maxPolicyStep is how much higher than the one in force a version may be. One near the
// highest possible would leave none for the next, and so keep a revocation out for good.
const maxPolicyStep = 1 << 16

// Show implements admin.Policies. A version that is kept and that no node could put in
// force has used up its number.
func (p policyAdmin) Show(ctx context.Context) adminapi.PolicyShow {
	m := p.b.material.Load()
	out := adminapi.PolicyShow{Broker: policyName(&p.b.cfg), Digest: m.policy.Digest(), Files: !m.applied.holds(), Lapses: m.policy.NextLapse()}
	if m.applied != nil {
		out.Applied = m.applied.wire()
	}
	look, cancel := context.WithTimeout(ctx, policyDeciding)
	defer cancel()
	out.Next = m.applied.version() + 1
	if _, kept, err := lastPolicy(look, p.b); err == nil {
		out.Next = max(out.Next, kept.version()+1)
	}
	return out
}

func (a *appliedPolicy) wire() adminapi.PolicyVersion {
	return adminapi.PolicyVersion{
		Version: a.Version, Digest: a.Digest, Before: a.Before, By: a.By, Time: a.Time, Note: a.Note, Bytes: len(a.doc),
	}
}

// Put judges a version as a whole before anybody takes it: then it goes into the stream,
// which decides between two, and to all nodes at once.
func (p policyAdmin) Put(ctx context.Context, q *adminapi.PolicyPutRequest, by string) (*adminapi.PolicyPut, error) {
	b := p.b
	if phase(b.phase.Load()) != phaseReady {
		return nil, refusePolicy(ErrNotReady)
	}
	m := b.material.Load()
	a, err := openPolicy(&b.cfg, q.Document, m.ring)
	if err == nil {
		err = judgePolicy(ctx, b, m, a, by, q.LockOut)
	}
	if err != nil {
		return nil, refusePolicy(err)
	}
	decide, cancel := context.WithTimeout(ctx, policyDeciding)
	kept := keepPolicy(decide, b, a)
	cancel()
	if errors.Is(kept, errPolicyTaken) {
		return nil, refusePolicy(kept)
	}
	if kept != nil { // a revocation must not wait for a quorum
		b.log.Warn().Err(kept).Uint64("version", a.Version).Msg("the policy is not kept in the stream POLICY yet")
	}
	out := &adminapi.PolicyPut{Version: a.Version, Digest: a.Digest, Kept: kept == nil}
	var here error
	out.InForce, out.Waiting = spreadPolicy(ctx, b.nodes, b.cfg.Name, a, func() error {
		here = takePolicy(ctx, b, a.doc)
		return here
	})
	slices.Sort(out.InForce)
	if len(out.InForce) == 0 && kept != nil {
		return nil, refusePolicy(here)
	}
	for node, fault := range out.Waiting {
		b.log.Warn().Str("node", node).Str("fault", fault).Uint64("version", a.Version).Msg("a node does not have the policy yet")
	}
	noteApplied(b, a)
	return out, nil
}

// noteApplied puts on record who has applied what; that it is in force is a record of
// every node.
func noteApplied(b *Broker, a *appliedPolicy) {
	tenant, _, _ := strings.Cut(a.By, "/")
	e := auditlog.Entry{
		Tenant: tenant, Kind: auditlog.KindPolicy, Outcome: auditlog.OutcomeOK, Subject: "apply", Who: a.By, Version: a.Version,
		Before: a.Before, After: a.Digest, Detail: a.Note,
	}
	if !a.holds() {
		e.Subject = "release"
	}
	b.note(b.Policy(), e)
	e.Tenant = ""
	b.note(b.Policy(), e) // the broker's own trail has all of them
}

// judgePolicy says whether a version may be applied now, by whom.
func judgePolicy(ctx context.Context, b *Broker, m *material, a *appliedPolicy, by string, lockOut bool) error {
	now := time.Now()
	switch age := now.Sub(a.Time); {
	case a.By != by:
		return fmt.Errorf("it was signed by %s, and %s brings it: whoever signs applies", a.By, by)
	case age > policyAge || age < -policyAge:
		return fmt.Errorf("it was signed at %s, %s from now: sign it anew, and look at the clocks", a.Time.Format(time.RFC3339), age.Round(time.Second))
	case a.Version <= m.applied.version() || a.Version > m.applied.version()+maxPolicyStep:
		return fmt.Errorf("it is version %d, and %d is in force: somebody has applied another one meanwhile; plan again", a.Version, m.applied.version())
	case a.Before != m.policy.Digest():
		return fmt.Errorf("it was made for the policy %s, and %s is in force: plan again", a.Before, m.policy.Digest())
	}
	// A key that has ended or was revoked since applies nothing, whatever time it claims.
	if !a.key.ValidAt(now) {
		return errors.New("the key that signed it is not valid now")
	}
	next := &material{loaded: now, counts: policy.NewCounts(), applied: a}
	if err := next.loadPolicy(ctx, &b.cfg); err != nil {
		return err
	}
	if _, err := declaredAccounts(next.policy, &b.cfg); err != nil {
		return err
	}
	if err := b.guards.roomForStreams(next.policy, m.policy); err != nil {
		return err
	}
	before := m.policy
	if !a.holds() {
		before = nil // files with such a fault keep a node from starting
	}
	if bringsNames(next.policy, before) { // else nobody is asked: a node that hangs must not delay a revocation
		if fresh, _, _ := ungivenAnywhere(ctx, b, next.policy, before); len(fresh) > 0 {
			return errUngiven(fresh)
		}
	}
	if lockOut {
		return nil
	}
	who := next.policy.PrincipalByFullName(by)
	if who == nil || who.Disabled || !acl.Admin(who, adminapi.AreaPolicy).Allowed {
		return fmt.Errorf("%s could not apply a policy any more: it would be gone, disabled or without admin: [policy]; say --lock-me-out if that is meant", by)
	}
	return nil
}

// History implements admin.Policies.
func (p policyAdmin) History(ctx context.Context) ([]adminapi.PolicyVersion, error) {
	list, err := policyHistory(ctx, p.b)
	if err != nil {
		return nil, wire.Refuse(wire.CodeUnavailable, "policy", "the stream POLICY does not answer: "+err.Error())
	}
	out := []adminapi.PolicyVersion{}
	for _, a := range slices.Backward(list) {
		out = append(out, a.wire())
	}
	return out, nil
}

// Get implements admin.Policies.
func (p policyAdmin) Get(ctx context.Context, version uint64) ([]byte, error) {
	a, err := findVersion(ctx, p.b, version)
	if err != nil {
		return nil, err
	}
	return a.doc, nil
}

func findVersion(ctx context.Context, b *Broker, version uint64) (*appliedPolicy, error) {
	if a := b.material.Load().applied; a.version() == version && version > 0 {
		return a, nil
	}
	list, err := policyHistory(ctx, b)
	if err != nil {
		return nil, wire.Refuse(wire.CodeUnavailable, "policy", "the stream POLICY does not answer: "+err.Error())
	}
	for _, a := range list {
		if a.Version == version {
			return a, nil
		}
	}
	return nil, wire.Refuse(wire.CodeNotFound, "policy", fmt.Sprintf("version %d is not kept; signet policy history lists those that are", version))
}
