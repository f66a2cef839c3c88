package broker

import (
	"fmt"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/adminapi"
)

// ownShort is how many bytes storage.maxBytes lacks for the broker's own streams beside
// what the policy reserves; 0: none. A broker that was configured before it had such streams
// starts all the same, as long as the volume has the room: the server counts per tenant,
// and without them nothing would be on record.
func ownShort(set *policy.Set, cfg *Config) int64 {
	sum := store.OwnNodeBytes(set)
	for _, t := range set.Tenants() {
		sum += store.NodeBytes(t)
	}
	return max(sum-int64(cfg.Storage.MaxBytes), 0)
}

func errOwnShort(set *policy.Set, cfg *Config) error {
	short := ownShort(set, cfg)
	if short == 0 {
		return nil
	}
	return fmt.Errorf("storage.maxBytes is %d, %d less than the streams of the policy and the broker's own (audit trail, logs, keys: %d) take: raise it to %d, or lower maxBytes in the policy",
		int64(cfg.Storage.MaxBytes), short, store.OwnNodeBytes(set), int64(cfg.Storage.MaxBytes)+short)
}

// roomHealth says whether storage.maxBytes holds what the broker keeps for itself, too.
func (b view) roomHealth() adminapi.HealthPart {
	h := adminapi.HealthPart{Part: "room", OK: true}
	if err := errOwnShort(b.Policy(), &b.cfg); err != nil {
		h.OK, h.Detail = false, err.Error()
	}
	return h
}

// wantsNoMore refuses a policy with which more would be short than with the one in force.
func wantsNoMore(set, old *policy.Set, cfg *Config) error {
	if ownShort(set, cfg) <= ownShort(old, cfg) {
		return nil
	}
	return fmt.Errorf("broker: %w", errOwnShort(set, cfg))
}
