package broker

import (
	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/signing/keyring"
)

// connectionKeys returns the producer keys of the keyring, by id, that a principal of
// the policy logs in with, under whatever prefix, and who that is. A server can have a
// connection key sign anything, whoever's event key it is, so they count as unknown.
func connectionKeys(m *material) map[string]string {
	found := map[string]string{}
	for _, k := range m.ring.Keys() {
		if k.Role != keyring.RoleProducer {
			continue
		}
		user, err := nkeys.Encode(nkeys.PrefixByteUser, k.Public())
		if err != nil {
			continue // no 32 bytes: no keyring has such a key
		}
		if p := m.policy.ByNkey(string(user)); p != nil {
			found[k.ID] = p.FullName()
		}
	}
	return found
}
