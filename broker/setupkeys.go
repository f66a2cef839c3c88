package broker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/durablefile"
	"github.com/signetbus/signet/signing/keyring"
)

// nodeKey is the attestation key of a node that Setup looks after.
type nodeKey struct{ id, node string }

// makeNodeKey reads the attestation key in file, or makes a new one.
func makeNodeKey(file, node string) (nodeKey, error) {
	kp, err := seedFile(file, nkeys.CreateServer)
	if err != nil {
		return nodeKey{}, err
	}
	id, err := kp.PublicKey()
	return nodeKey{id: id, node: node}, err
}

// makeRing makes a keyring that holds the nodes' keys, with a root if there is none, or
// renews the one that is there when it lacks a key or expires soon. What is in it stays
// in it, as it is: events verify as long as their key is there and was valid when they
// were recorded, and what was revoked stays revoked. Only the end of the nodes' keys
// moves on.
func makeRing(st *State, nodes []nodeKey, now time.Time) error {
	held, err := heldRing(st)
	if err != nil {
		return err
	}
	version, keys, due := uint64(now.Unix()), []keyring.Key(nil), true
	if held != nil {
		version, keys = max(version, held.Version()+1), held.Keys()
		due = held.Expires().Sub(now) <= renewalMargin
	}
	for _, n := range nodes {
		due = enterKey(&keys, n, now) || due
	}
	if !due {
		return nil
	}
	if held != nil {
		// A second root would silently disown everything that the first one signed.
		if _, err := os.Stat(st.RootSeed); err != nil {
			return fmt.Errorf("the keyring %s needs renewal and the root seed is not here: %w", st.Keyring, err)
		}
	}
	return signRing(st, version, keys, now)
}

// enterKey puts a node's key into keys, or moves its end on. It reports whether the
// keyring is due for that.
func enterKey(keys *[]keyring.Key, n nodeKey, now time.Time) bool {
	until := now.Add(attestKeyTTL)
	for i := range *keys {
		k := &(*keys)[i]
		if k.ID != n.id {
			continue
		}
		if !k.RevokedAt.IsZero() || k.NotAfter.After(until) {
			return false
		}
		due := k.NotAfter.Sub(now) <= renewalMargin
		k.NotAfter = until
		return due
	}
	*keys = append(*keys, keyring.Key{
		ID: n.id, Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: n.node,
		NotBefore: now.Add(-time.Hour), NotAfter: until,
	})
	return true
}

// heldRing reads the keyring that is there, expired or not, and the root of st; nil if
// there is none.
func heldRing(st *State) (*keyring.Ring, error) {
	doc, err := os.ReadFile(st.Keyring)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := readRoot(st); err != nil {
		return nil, err
	}
	ring, err := keyring.Parse(doc, st.Root, time.Time{})
	if err != nil {
		return nil, fmt.Errorf("%s, by the root key in %s: %w; put the right files back", st.Keyring, rootFile(st), err)
	}
	return ring, nil
}

func signRing(st *State, version uint64, keys []keyring.Key, now time.Time) error {
	root, err := seedFile(st.RootSeed, nkeys.CreateOperator)
	if err != nil {
		return err
	}
	defer root.Wipe()
	id, err := root.PublicKey()
	if err != nil {
		return err
	}
	if st.Root != "" && st.Root != id {
		return fmt.Errorf("%s is not the seed of the root key %s in %s: put the right one there", st.RootSeed, st.Root, rootFile(st))
	}
	st.Root = id
	ring, err := keyring.New(version, now.Add(-time.Minute), now.Add(keyringTTL), keys)
	if err != nil {
		return err
	}
	seed, err := root.Seed()
	if err != nil {
		return err
	}
	doc, err := ring.Sign(seed)
	if err != nil {
		return err
	}
	if err := durablefile.Replace(rootFile(st), []byte(st.Root+"\n"), 0o644); err != nil {
		return err
	}
	return durablefile.Replace(st.Keyring, doc, 0o644)
}
