package broker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
)

// declaredAccounts sizes one account per tenant by what its policy declares, and
// refuses a policy that promises more than the store has.
func declaredAccounts(set *policy.Set, most int64) ([]embed.TenantAccount, error) {
	var out []embed.TenantAccount
	var sum int64
	for _, t := range set.Tenants() {
		n := store.AccountBytes(t)
		out = append(out, embed.TenantAccount{Name: t.Name, MaxBytes: n})
		sum += n
	}
	if sum > most {
		return nil, fmt.Errorf("broker: the policy reserves %d bytes (streams, buckets and dead letters), storage.maxBytes is %d", sum, most)
	}
	return out, nil
}

// reservedAccounts is declaredAccounts that also counts what is stored already. A
// tenant that is new to the server has nothing stored.
func (b *Broker) reservedAccounts(ctx context.Context, set *policy.Set) ([]embed.TenantAccount, error) {
	out, err := declaredAccounts(set, int64(b.cfg.Storage.MaxBytes))
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
	return out, nil
}

// Reload reads policy, schemas, keys and certificates again and puts them in
// force together. On any error nothing changes, and the error says what is wrong.
func (b *Broker) Reload(ctx context.Context) error {
	b.reload.Lock()
	defer b.reload.Unlock()
	if phase(b.phase.Load()) != phaseReady {
		return ErrNotReady
	}
	err := b.reloadLocked(ctx)
	if err != nil {
		b.log.Error().Err(err).Str("policy", b.Policy().Digest()).Msg("reload refused, nothing changed")
	}
	return err
}

func (b *Broker) reloadLocked(ctx context.Context) error {
	old := b.material.Load()
	m, err := loadMaterial(ctx, &b.cfg, time.Now())
	if err != nil {
		return err
	}
	if err := m.ring.Replaces(old.ring); err != nil && m.ring.Version() != old.ring.Version() {
		return err
	}
	accounts, err := b.reservedAccounts(ctx, m.policy)
	if err != nil {
		return err
	}
	chain, err := b.newChain(m)
	if err != nil {
		return err
	}
	if _, err := ca.ServerTLS(b.cfg.TLS.Certificate, b.cfg.TLS.Key); err != nil {
		return err
	}
	// A new tenant's account must exist before its streams, and its streams before
	// anybody may publish to them. Each reload of the server leaves the JetStream API
	// without an answer for some milliseconds, so there is none without a need.
	if !slices.Equal(accounts, old.accounts) {
		if err := b.server.ReloadAccounts(accounts); err != nil {
			return err
		}
	}
	m.accounts = accounts
	if err := b.store.ApplyPolicy(ctx, m.policy); err != nil {
		return err
	}
	if err := b.admin.Serve(m.policy); err != nil {
		return err
	}
	if err := b.cert.Reload(); err != nil {
		return err
	}
	if m.same(old) {
		return revokeConsumers(ctx, b, old.policy)
	}
	b.material.Store(m)
	b.chain.Store(chain)
	b.gate.Reload(m.policy)
	if m.policy.Digest() != old.policy.Digest() {
		// The gate has given the new permissions to its tickets; this makes the server
		// ask for them again.
		if err := b.server.Reload(); err != nil {
			return err
		}
	}
	if err := revokeConsumers(ctx, b, m.policy); err != nil {
		return err
	}
	b.log.Info().Str("policy", m.policy.Digest()).Str("before", old.policy.Digest()).Uint64("keyring", m.ring.Version()).Msg("reloaded")
	return nil
}
