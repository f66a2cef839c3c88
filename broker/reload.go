package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/signetbus/signet/broker/admin"
	"github.com/signetbus/signet/broker/admission"
	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/wire"
)

// declaredAccounts sizes one account per tenant by what its policy declares, and
// refuses a policy that promises more than the store has. What the broker keeps for itself
// may be over it: see ownShort. In a cluster each account may
// have the whole store: a node whose policy is older than that of the others, and whose account
// were smaller, would refuse its copy of a stream that they have enlarged or made, and not
// ask again (nats-server 2.15.2, error 10047).
func declaredAccounts(set *policy.Set, cfg *Config) ([]embed.TenantAccount, error) {
	var out []embed.TenantAccount
	var faults []error
	var sum int64
	for _, t := range set.Tenants() {
		faults = append(faults, store.CheckReplicas(t, cfg.size()))
		out = append(out, embed.TenantAccount{Name: t.Name, MaxBytes: store.AccountBytes(t, cfg.size())})
		sum += store.NodeBytes(t)
	}
	out = append(out, embed.TenantAccount{Name: wire.BrokerAccount, MaxBytes: store.OwnAccountBytes(set, cfg.size())})
	if cfg.Cluster != nil {
		for i := range out {
			out[i].MaxBytes = max(out[i].MaxBytes, int64(cfg.Storage.MaxBytes)*int64(cfg.size()))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if most := int64(cfg.Storage.MaxBytes); sum > most {
		return nil, fmt.Errorf("broker: the policy reserves %d bytes (streams, buckets and dead letters) and the broker %d for its own (audit trail, logs, keys), storage.maxBytes is %d", sum, store.OwnNodeBytes(set), most)
	}
	return out, nil
}

// reservedAccounts is declaredAccounts that also counts what is stored already. A
// tenant that is new to the server has nothing stored.
func (b *Broker) reservedAccounts(ctx context.Context, set *policy.Set) ([]embed.TenantAccount, error) {
	out, err := declaredAccounts(set, &b.cfg)
	if err != nil {
		return nil, err
	}
	for i, t := range set.Tenants() {
		if !b.server.HasAccount(t.Name) {
			continue
		}
		n, err := b.store.Reservation(ctx, t)
		if err != nil {
			return nil, err
		}
		out[i].MaxBytes = max(out[i].MaxBytes, n)
	}
	own := &out[len(out)-1]
	if !b.server.HasAccount(own.Name) {
		return out, nil
	}
	n, err := store.OwnReservation(ctx, b.store, set)
	own.MaxBytes = max(own.MaxBytes, n)
	return out, err
}

// reloadLimit bounds a reload. In a cluster it waits for a leader, and for the other
// nodes to learn of new tenants.
const reloadLimit = 2 * time.Minute

// errInForce marks what went wrong after the new policy came into force.
var errInForce = errors.New("broker: the new policy is in force, but")

// Reload reads policy, schemas, keys and certificates again and puts them in
// force together. On an error before that, the old ones stay in force and what was
// changed in the store is changed back; an error after it (the server would not
// take new permissions, or a consumer could not be deleted) says so. Both are
// logged.
func (b *Broker) Reload(ctx context.Context) error {
	b.reload.Lock()
	defer b.reload.Unlock()
	ctx, cancel := context.WithTimeout(ctx, reloadLimit)
	defer cancel()
	defer context.AfterFunc(b.life, cancel)() // a broker that is told to stop does not wait for a quorum
	if phase(b.phase.Load()) != phaseReady {
		return ErrNotReady
	}
	old, is, err := b.reloadLocked(ctx)
	b.reloaded(old, is, err)
	b.fault.Store(nil)
	if fault := errors.Join(err, is.passed); fault != nil {
		b.fault.Store(&fault)
	}
	now := is.policy.Digest()
	switch {
	case errors.Is(err, errInForce):
		b.log.Error().Err(err).Str("policy", now).Msg("reloaded with an error")
	case err != nil:
		b.log.Error().Err(err).Str("policy", now).Msg("reload refused, nothing changed")
	default:
		b.log.Info().Str("policy", now).Str("before", old.policy.Digest()).
			Uint64("keyring", is.ring.Version()).Msg("reloaded")
	}
	return err
}

// reloadLocked returns what was in force and what is, the same of both if nothing has
// changed. The caller holds b.reload.
func (b *Broker) reloadLocked(ctx context.Context) (was, is *material, err error) {
	old := b.material.Load()
	m, chain, err := b.prepare(ctx, old)
	if err != nil {
		return old, old, err
	}
	if err = b.makeRoom(ctx, m, old); err == nil {
		was, err = commit(ctx, b, m, old, chain)
	}
	if err != nil && !errors.Is(err, errInForce) {
		return old, old, errors.Join(err, undo(ctx, b, m, old))
	}
	if err == nil && m.policyChanged(old) {
		err = b.files.set(watchedFiles(&b.cfg, m.policy))
	}
	if err == nil {
		err = revokeConsumers(ctx, b, m.policy)
	}
	if err != nil && !errors.Is(err, errInForce) {
		err = fmt.Errorf("%w %w", errInForce, err)
	}
	return was, m, err
}

// undo changes the streams back after a reload that failed: half of a change is a state
// that nobody wrote down. A broker that stops leaves it to its next start, which goes by
// the files.
func undo(ctx context.Context, b *Broker, m, old *material) error {
	switch {
	case !m.policyChanged(old):
		return nil
	case b.life.Err() != nil:
		return errors.New("broker: it stops: streams may be as the new policy has them, the next start goes by the files")
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	defer context.AfterFunc(b.life, cancel)()
	if err := b.store.ApplyPolicy(ctx, old.policy); err != nil {
		return fmt.Errorf("broker: and the streams could not be changed back: %w", err)
	}
	return nil
}

// commit puts m in force, which was made for old. A keyring may have been pushed since
// then, or the node have gone over to its next key: that stays. It returns what m has
// replaced.
func commit(ctx context.Context, b *Broker, m, old *material, chain *admission.Chain) (was *material, err error) {
	b.swap.Lock()
	defer b.swap.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	was = b.material.Load()
	if was != old {
		_ = m.follow(&b.cfg, was, time.Now()) // it is m.mute
		if chain, err = b.newChain(m); err != nil {
			return nil, err
		}
	}
	return was, putInForce(b, m, was, chain)
}

// putInForce swaps what decides. The caller holds b.swap.
func putInForce(b *Broker, m, old *material, chain *admission.Chain) error {
	if !bytes.Equal(m.ringDoc, old.ringDoc) {
		if err := m.ring.Keeps(old.ring, time.Now()); err != nil {
			// Not of a push, which is refused: the holder of the root key brings it as a file.
			b.log.Error().Err(err).Uint64("keyring", m.ring.Version()).Uint64("before", old.ring.Version()).Msg("the keyring that comes into force takes something back; if that is not meant, sign a newer one that begins with the one before")
		}
		if err := holdRing(&b.cfg, m.ringDoc); err != nil {
			// In force all the same: the others have it, and it may revoke a stolen key.
			b.log.Error().Err(err).Msg("the keyring is in force, and could not be held on disk: after a restart an older file counts until another node is heard")
		}
	}
	if !m.same(old) {
		b.material.Store(m)
		b.chain.Store(chain)
		b.gate.Reload(m.policy)
		if m.policy != old.policy {
			m.counts.Forget()
			warnModes(b, m.policy)
			warnUngiven(b, m)
		}
		b.logs.Load().Set(loggedStreams(m.policy))
		if m.ring.Version() != old.ring.Version() && b.admin != nil {
			admin.RingChanged(b.admin)
		}
	}
	if m.policyChanged(old) || b.nodes != nil && !m.sameRoutes(old) {
		// The gate has given the new permissions to its tickets; this makes the server
		// ask for them again. Nodes show tokens of their keys and are judged by the
		// keyring: it asks for those again, too.
		if err := reloadRoutes(b, trustedNodes(b)); err != nil {
			return fmt.Errorf("%w %w", errInForce, err)
		}
	}
	return nil
}

// prepare reads and checks everything and changes nothing.
func (b *Broker) prepare(ctx context.Context, old *material) (*material, *admission.Chain, error) {
	m := &material{loaded: time.Now(), counts: old.counts, applied: b.wanted(old)}
	policyErr, trustErr, keysErr := m.loadPolicy(ctx, &b.cfg), m.loadTrust(&b.cfg, b.issuers), m.reloadKeys(&b.cfg, old, m.loaded)
	if policyErr == nil && takes(m, old) {
		trustErr, keysErr = m.passOver(old, trustErr, keysErr), nil
	}
	if err := errors.Join(policyErr, trustErr, keysErr); err != nil {
		return nil, nil, err
	}
	if m.ringNote != nil {
		b.log.Error().Err(m.ringNote).Uint64("keyring", m.ring.Version()).Msg("the keyring's file is passed over, the keyring in force stays")
	}
	if err := b.guards.roomForStreams(m.policy, old.policy); err != nil {
		return nil, nil, err
	}
	m.accounts = old.accounts
	if m.storesChange(old) {
		var err error
		if err := wantsNoMore(m.policy, old.policy, &b.cfg); err != nil {
			return nil, nil, err
		}
		if m.accounts, err = b.reservedAccounts(ctx, m.policy); err != nil {
			return nil, nil, err
		}
	}
	if _, err := ca.ServerTLS(b.cfg.TLS.Certificate, b.cfg.TLS.Key); err != nil && !takes(m, old) {
		return nil, nil, err
	}
	chain, err := b.newChain(m)
	return m, chain, err
}

// makeRoom brings accounts, streams and the admin API to the new policy. A new
// tenant's account must exist before its streams, and its streams before anybody
// may publish to them. Each reload of the server leaves the JetStream API without
// an answer for some milliseconds, so there is none without a need. Without a new
// policy nothing is asked of the store: a node that has lost the others must be able to
// take new keys.
func (b *Broker) makeRoom(ctx context.Context, m, old *material) error {
	if !m.storesChange(old) {
		return reloadCertificate(b, m, old)
	}
	if !slices.Equal(m.accounts, old.accounts) {
		if err := b.server.ReloadAccounts(m.accounts); err != nil {
			return err
		}
	}
	if err := b.nodes.awaitTenants(ctx, m.accounts); err != nil {
		return err
	}
	if err := b.store.ApplyPolicy(ctx, m.policy); err != nil {
		return err
	}
	if b.own.done() {
		if err := store.ApplyOwn(ctx, b.store, m.policy); err != nil {
			return err
		}
	}
	if err := b.admin.Serve(m.policy); err != nil {
		return err
	}
	return reloadCertificate(b, m, old)
}
