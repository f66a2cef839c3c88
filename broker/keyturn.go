package broker

import (
	"context"
	"os"
	"time"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// turnKey goes over to the next key of this node when that is due, and every node has
// the keyring that says so: whoever reads at any of them then finds the key. Near the
// end of the key in use it waits for nobody any more. The events of a batch carry one
// key, and a connection goes over between two batches; both keys are good meanwhile.
func turnKey(ctx context.Context, b *Broker) {
	now := time.Now()
	m := b.material.Load()
	if m.nextSigner(&b.cfg, now) == nil {
		promoteSeed(b, m, now)
		return
	}
	due, endsSoon := m.dueSigner(&b.cfg, now)
	if due == nil || !endsSoon && !ringEverywhere(ctx, b, m) {
		return
	}
	b.swap.Lock()
	defer b.swap.Unlock()
	old := b.material.Load()
	next, _ := old.dueSigner(&b.cfg, now)
	if next == nil || phase(b.phase.Load()) != phaseReady {
		return
	}
	turned := *old
	turned.signer, turned.mute = next, nil
	chain, err := b.newChain(&turned)
	if err == nil {
		err = putInForce(b, &turned, old, chain)
	}
	if err != nil {
		b.log.Error().Err(err).Str("key", next.KeyID()).Msg("the next key of this node is not in use")
		return
	}
	b.reloaded(old, &turned, nil)
	b.log.Info().Str("key", next.KeyID()).Str("before", old.signer.KeyID()).Msg("this node attests with its next key")
}

// dueSigner returns the next signer when it is time to go over to it, nil before. What a
// producer has signed is judged by its own recordedtime, as readers do: with the next key
// in use the broker refuses all that was recorded before that began, so it waits until
// nothing so old is let in. endsSoon: what producers date ahead is about to be too late
// for the key in use, or the last quarter of the time in which both are good has begun,
// which is all that counts where that time is too short to refuse nothing.
func (m *material) dueSigner(cfg *Config, now time.Time) (next *signing.Signer, endsSoon bool) {
	next = m.nextSigner(cfg, now)
	if next == nil || m.mute != nil {
		return next, true
	}
	key, _ := m.ring.ByID(next.KeyID())
	_, until := m.attests()
	left, both := until.Sub(now), until.Sub(key.NotBefore)
	switch {
	case left < both/4:
		return next, true
	case now.Sub(key.NotBefore) < policy.ReplayPast:
		return nil, false
	}
	return next, left < policy.KeyTurn-policy.ReplayPast
}

// ringEverywhere says whether all other nodes have this very keyring: a version alone
// says nothing, as two can be signed with the same one.
func ringEverywhere(ctx context.Context, b *Broker, m *material) bool {
	if b.nodes == nil {
		return true
	}
	have := 0
	infos := b.nodes.ask(ctx, question{})
	for i := range infos {
		if hasRing(&infos[i], m) {
			have++
		}
	}
	return have == len(b.nodes.others())
}

// hasRing says whether a node has the keyring of m in force.
func hasRing(info *nodeInfo, m *material) bool {
	return info.Keyring == m.ring.Version() && info.Ring == ringDigest(m.ringDoc)
}

// promoteSeed puts the seed of the next key in the place of the one whose key has
// ended, so that there is room for another. A folder that cannot be written stays as it
// is: a start finds the right one of the two by the keyring.
//
// What m was read from may have changed since, and a reload that would say so may have
// failed: what is in the two files now decides, and a seed goes only if the keyring in
// force says that its key is over.
func promoteSeed(b *Broker, m *material, now time.Time) {
	if len(m.signers) < 2 || m.signer.KeyID() != m.signers[1].KeyID() || m.mute != nil {
		return
	}
	if k, ok := m.ring.ByID(m.signers[0].KeyID()); !ok || !over(&k, now) {
		return
	}
	ended, err := readSeed(b.cfg.Keys.Node)
	if err != nil || ended.KeyID() != m.signers[0].KeyID() {
		return
	}
	used, err := readSeed(nextSeed(&b.cfg))
	if err != nil || used.KeyID() != m.signer.KeyID() {
		return
	}
	if err := os.Rename(nextSeed(&b.cfg), b.cfg.Keys.Node); err == nil {
		b.log.Info().Str("file", b.cfg.Keys.Node).Msg("the old key of this node has ended, and its seed is gone")
	}
}

// over says whether a key will never be good again.
func over(k *keyring.Key, now time.Time) bool {
	return !now.Before(k.NotAfter) || !k.RevokedAt.IsZero() && !now.Before(k.RevokedAt)
}

// warnOfSeed says that this node has a key to go over to, and not its seed.
func warnOfSeed(b *Broker, now time.Time) {
	m := b.material.Load()
	used, _ := m.ring.ByID(m.signer.KeyID())
	for _, k := range m.ring.Keys() {
		if k.Role == keyring.RoleBroker && k.Principal == b.cfg.Name && k.ValidAt(now) && k.NotBefore.After(used.NotBefore) && !m.holds(k.ID) {
			b.log.Warn().Str("key", k.ID).Str("file", nextSeed(&b.cfg)).Time("the key in use ends", used.NotAfter).
				Msg("this node has a next key, and its seed is not here: put it into the file")
		}
	}
}
