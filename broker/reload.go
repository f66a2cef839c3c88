package broker

import (
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
// refuses a policy that promises more than the store has. In a cluster each account may
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
	own := store.OwnNodeBytes(set)
	if cfg.Cluster != nil {
		for i := range out {
			out[i].MaxBytes = max(out[i].MaxBytes, int64(cfg.Storage.MaxBytes)*int64(cfg.size()))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if most := int64(cfg.Storage.MaxBytes); sum+own > most {
		return nil, fmt.Errorf("broker: the policy reserves %d bytes (streams, buckets and dead letters) and the broker %d for its own (audit trail, logs, keys), storage.maxBytes is %d", sum, own, most)
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
	if phase(b.phase.Load()) != phaseReady {
		return ErrNotReady
	}
	old := b.material.Load()
	err := b.reloadLocked(ctx, old)
	b.reloaded(old, b.material.Load(), err)
	b.fault.Store(nil)
	if err != nil {
		b.fault.Store(&err)
	}
	now := b.Policy().Digest()
	switch {
	case errors.Is(err, errInForce):
		b.log.Error().Err(err).Str("policy", now).Msg("reloaded with an error")
	case err != nil:
		b.log.Error().Err(err).Str("policy", now).Msg("reload refused, nothing changed")
	default:
		b.log.Info().Str("policy", now).Str("before", old.policy.Digest()).
			Uint64("keyring", b.material.Load().ring.Version()).Msg("reloaded")
	}
	return err
}

func (b *Broker) reloadLocked(ctx context.Context, old *material) error {
	m, chain, err := b.prepare(ctx, old)
	if err != nil {
		return err
	}
	if err := b.makeRoom(ctx, m, old); err != nil {
		// Half of a change is a state that nobody wrote down: go back.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if e := b.store.ApplyPolicy(undo, old.policy); e != nil {
			err = errors.Join(err, fmt.Errorf("broker: and the streams could not be changed back: %w", e))
		}
		return err
	}
	if err := putInForce(b, m, old, chain); err != nil {
		return err
	}
	if m.policyChanged(old) {
		if err := b.files.set(watchedFiles(&b.cfg, m.policy)); err != nil {
			return fmt.Errorf("%w %w", errInForce, err)
		}
	}
	if err := revokeConsumers(ctx, b, b.Policy()); err != nil {
		return fmt.Errorf("%w %w", errInForce, err)
	}
	return nil
}

// putInForce swaps what decides. The caller holds b.reload.
func putInForce(b *Broker, m, old *material, chain *admission.Chain) error {
	if !m.same(old) {
		b.material.Store(m)
		b.chain.Store(chain)
		b.gate.Reload(m.policy)
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
	m := &material{loaded: time.Now()}
	if err := errors.Join(m.loadPolicy(ctx, &b.cfg), m.loadTrust(&b.cfg, b.issuers), m.reloadKeys(&b.cfg, old, m.loaded)); err != nil {
		return nil, nil, err
	}
	if err := m.ring.Replaces(old.ring); err != nil {
		return nil, nil, err
	}
	if err := b.guards.roomForStreams(m.policy, old.policy); err != nil {
		return nil, nil, err
	}
	m.accounts = old.accounts
	if m.policyChanged(old) {
		var err error
		if m.accounts, err = b.reservedAccounts(ctx, m.policy); err != nil {
			return nil, nil, err
		}
	}
	if _, err := ca.ServerTLS(b.cfg.TLS.Certificate, b.cfg.TLS.Key); err != nil {
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
	if !m.policyChanged(old) {
		return b.cert.Reload()
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
	return b.cert.Reload()
}
