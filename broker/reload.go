package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/broker/policy"
)

// accountSlack is what an account may store beyond the declared sizes, for the
// bookkeeping of consumers and the rounding of blocks.
const accountSlack = 16 << 20

// tenantAccounts sizes one account per tenant by what its policy declares, and
// refuses a policy that promises more than the store has.
func tenantAccounts(set *policy.Set, most int64) ([]embed.TenantAccount, error) {
	var out []embed.TenantAccount
	var sum int64
	for _, t := range set.Tenants() {
		n := int64(t.DeadLetter.MaxBytes) + accountSlack
		for i := range t.Streams {
			n += int64(t.Streams[i].MaxBytes)
		}
		for i := range t.KV {
			n += int64(t.KV[i].MaxBytes)
		}
		for i := range t.Objects {
			n += int64(t.Objects[i].MaxBytes)
		}
		out = append(out, embed.TenantAccount{Name: t.Name, MaxBytes: n})
		sum += n
	}
	if sum > most {
		return nil, fmt.Errorf("broker: the policy reserves %d bytes (streams, buckets, dead letters and %d for each tenant), storage.maxBytes is %d",
			sum, accountSlack, most)
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
	accounts, err := tenantAccounts(m.policy, int64(b.cfg.Storage.MaxBytes))
	if err != nil {
		return err
	}
	chain, err := b.newChain(m)
	if err != nil {
		return err
	}
	if err := b.cert.Reload(); err != nil {
		return err
	}
	// A new tenant's account must exist before its streams, and its streams before
	// anybody may publish to them.
	if err := b.server.ReloadAccounts(accounts); err != nil {
		return err
	}
	if err := b.store.ApplyPolicy(ctx, m.policy); err != nil {
		return err
	}
	if err := b.admin.Serve(m.policy); err != nil {
		return err
	}
	b.material.Store(m)
	b.chain.Store(chain)
	b.gate.Reload(m.policy)
	// The gate has given the new permissions to its tickets; this makes the server
	// ask for them again.
	if err := b.server.Reload(); err != nil {
		return err
	}
	b.log.Info().Str("policy", m.policy.Digest()).Str("before", old.policy.Digest()).Uint64("keyring", m.ring.Version()).Msg("reloaded")
	return nil
}
