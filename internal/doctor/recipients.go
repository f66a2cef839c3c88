package doctor

import (
	"os"
	"strings"
	"time"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/signing/keyring"
)

// recipients looks whether there is somebody to encrypt to on every subject where the
// policy wants it, and for how long: producers send nothing there when there is nobody.
func (f offline) recipients(cfg *broker.Config, now time.Time, t Thresholds) {
	set, ring := policyAndRing(cfg, now)
	if set == nil || ring == nil {
		return // POLICY_001 or KEYS_001 says why
	}
	for _, tenant := range set.Tenants() {
		for i := range tenant.Bindings {
			b := &tenant.Bindings[i]
			if !b.Encrypted {
				continue
			}
			object := tenant.Name + " " + b.Match
			fix := "signet keys issue --role recipient --subject '" + b.Match + "', or rotate; then signet keys push"
			if end := lastRecipient(ring, tenant.Name, b.Match, now); end.IsZero() {
				f.add(idRecipients, object, Critical, fix, "nobody to encrypt to: the keyring has no valid recipient key for any of these subjects")
			} else {
				f.expiry(idRecipients, object, end, now, t, fix, "the last recipient key")
			}
		}
	}
}

// lastRecipient is when the last of the valid recipient keys ends that may read some of
// the subjects; zero if there is none.
func lastRecipient(ring *keyring.Ring, tenant, match string, now time.Time) (end time.Time) {
	for _, k := range ring.Keys() {
		if k.Role != keyring.RoleRecipient || !strings.HasPrefix(k.Principal, tenant+"/") || !k.ValidAt(now) || !k.MeetsSubjects(match) {
			continue
		}
		until := k.NotAfter
		if !k.RevokedAt.IsZero() && k.RevokedAt.Before(until) {
			until = k.RevokedAt
		}
		if until.After(end) {
			end = until
		}
	}
	return end
}

// policyAndRing reads both from the files; nil for what cannot be used.
func policyAndRing(cfg *broker.Config, now time.Time) (set *policy.Set, ring *keyring.Ring) {
	if bundle, err := policy.Load(cfg.Policy); err == nil {
		if set, err = policy.Compile(bundle); err != nil {
			set = nil
		}
	}
	if doc, err := os.ReadFile(cfg.Keys.Keyring); err == nil {
		if ring, err = keyring.Parse(doc, cfg.Keys.Root, now); err != nil {
			ring = nil
		}
	}
	return set, ring
}
