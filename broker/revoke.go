package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/signetbus/signet/broker/jsapi"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/wire"
)

// revokeConsumers deletes the consumers that set no longer allows: their owner is
// gone or disabled, or their filters reach outside of what the owner may read now.
// The read guard judges a consumer when it is made; from then on it delivers by
// itself, whatever policy comes later, so this runs at every change of policy, at
// the start (the policy may have changed while nothing ran) and once a minute, for
// a request that was judged just before a change and forwarded just after.
//
// It goes on after an error, so that one stream does not keep another's open.
func revokeConsumers(ctx context.Context, b *Broker, set *policy.Set) error {
	var faults []error
	for _, t := range set.Tenants() {
		streams, err := b.store.Streams(ctx, t.Name)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		for i := range streams {
			if streams[i].Consumers == 0 {
				continue
			}
			list, err := b.store.Consumers(ctx, t.Name, streams[i].Name)
			if err != nil {
				faults = append(faults, err)
				continue
			}
			for j := range list {
				if why := notAllowed(set, t, &list[j]); why != "" {
					faults = append(faults, revokeConsumer(ctx, b, t.Name, &list[j], why))
				}
			}
		}
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("broker: revoke consumers: %w", err)
	}
	return nil
}

// notAllowed says why set does not allow a consumer, empty if it does.
func notAllowed(set *policy.Set, t *policy.Tenant, c *store.Consumer) string {
	owner := set.PrincipalByFullName(c.Owner)
	switch {
	case c.Owner == wire.BrokerAccount: // the broker's own; the read guard lets no client write that
		return ""
	case owner == nil || owner.Tenant != t:
		return "its owner is not in the policy"
	case owner.Disabled:
		return "its owner is disabled"
	case c.Stream == wire.StreamRetry:
		if !jsapi.RetryReadsWithin(owner, c.Name, store.Reading(c.Reads)) {
			return "the consumer that it is for read outside of its owner's grants"
		}
	case !jsapi.ReadsWithin(owner, c.Stream, c.Filters):
		return "it reads outside of its owner's grants"
	}
	return ""
}

func revokeConsumer(ctx context.Context, b *Broker, tenant string, c *store.Consumer, why string) error {
	if err := b.store.DeleteConsumer(ctx, tenant, c.Stream, c.Name); err != nil {
		return err
	}
	b.log.Warn().Str("tenant", tenant).Str("stream", c.Stream).Str("consumer", c.Name).Str("owner", c.Owner).
		Strs("filters", c.Filters).Bool("push", c.Push).Str("reason", why).Msg("consumer deleted")
	b.trail.Event("consumer-revoked", tenant, c.Owner, "", c.Stream+"."+c.Name+": "+why)
	return nil
}

// recheckConsumers is revokeConsumers between reloads.
func recheckConsumers(ctx context.Context, b *Broker) {
	if !b.reload.TryLock() {
		return // a reload does it
	}
	defer b.reload.Unlock()
	if err := revokeConsumers(ctx, b, b.Policy()); err != nil && ctx.Err() == nil {
		b.log.Error().Err(err).Msg("consumers not checked, trying again in a minute")
	}
}
