package broker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// How a keyring comes to all nodes. Whoever has a newer one tells the others, and every
// node asks for one that is newer than its own: one that was down gets it when it is
// back. The stream KEYS keeps the last one, and decides between two that are pushed at
// the same time, where it can be reached. Nothing of the rest needs a quorum, and no node believes another: each verifies the
// document against its own pinned root key and takes no older one.

const (
	// ringSubject is as nodeSubject, for a keyring that another node brings.
	ringSubject = "SIGNET.RING."
	keyTick     = time.Second     // between two looks at whether a next key is due
	ringPoll    = 5 * time.Second // between two questions to the other nodes
)

// ringTold is what a node answers to a keyring that it was brought.
type ringTold struct {
	Version uint64 `json:"version"` // in force
	Ring    string `json:"ring"`    // its digest
	Fault   string `json:"fault,omitempty"`
}

func ringDigest(doc []byte) string {
	sum := sha256.Sum256(doc)
	return hex.EncodeToString(sum[:8])
}

func keysOf(signers []*signing.Signer) []string {
	out := make([]string, len(signers))
	for i, s := range signers {
		out[i] = s.KeyID()
	}
	return out
}

// takeRing verifies a keyring, keeps it on disk and puts it in force; one that is in
// force already is no fault. It waits for no reload: whoever revokes a stolen key must
// not wait until the cluster has a quorum again.
//
// Errors: those of keyring.Parse, keyring.ErrRollback, ErrNotReady; errInForce says that
// it is in force, and what went wrong then.
func takeRing(b *Broker, doc []byte) error {
	b.swap.Lock()
	defer b.swap.Unlock()
	if phase(b.phase.Load()) != phaseReady {
		return ErrNotReady
	}
	ring, err := parseRing(&b.cfg, doc, time.Now())
	if err != nil {
		return err
	}
	return takeRingLocked(b, ring, doc)
}

// takeRingLocked is takeRing for a ring that was verified, whatever the broker's phase.
// The caller holds b.swap.
func takeRingLocked(b *Broker, ring *keyring.Ring, doc []byte) error {
	old, now := b.material.Load(), time.Now()
	if err := ring.Replaces(old.ring); err != nil {
		return err
	}
	m := *old
	m.ring, m.ringDoc, m.loaded = ring, slices.Clone(doc), now
	m.mute = m.chooseSigner(&b.cfg, now)
	if m.chooseShown(); m.sameKeys(old) && old.ringNote == nil {
		return nil
	}
	chain, err := b.newChain(&m)
	if err != nil {
		return err
	}
	if m.ringNote = writeRing(&b.cfg, m.ringDoc); m.ringNote != nil {
		b.log.Warn().Err(m.ringNote).Uint64("keyring", ring.Version()).Msg("the keyring is held in the state folder alone")
	}
	b.log.Info().Uint64("keyring", ring.Version()).Uint64("before", old.ring.Version()).AnErr("attests nothing", m.mute).Msg("keyring taken over")
	b.reloaded(old, &m, nil)
	return putInForce(b, &m, old, chain)
}

// answerRing takes a keyring that another node brings.
func answerRing(n *nodes, msg *nats.Msg) {
	told := ringTold{}
	if err := takeRing(n.b, msg.Data); err != nil {
		told.Fault = err.Error()
		n.b.log.Warn().Err(err).Msg("the keyring that another node brings is refused")
	}
	m := n.b.material.Load()
	told.Version, told.Ring = m.ring.Version(), ringDigest(m.ringDoc)
	data, err := json.Marshal(&told)
	if err == nil {
		err = msg.Respond(data)
	}
	if err != nil && n.life.Err() == nil {
		n.b.log.Warn().Err(err).Msg("another node's keyring was not answered")
	}
}

// spreadRing brings the keyring to the other nodes, all at once, and returns who has it
// in force, and why each of the others has not.
func spreadRing(ctx context.Context, n *nodes, doc []byte) (inForce []string, faults map[string]string) {
	faults = map[string]string{}
	if n == nil {
		return nil, faults
	}
	ctx, cancel := context.WithTimeout(ctx, 2*peerTimeout)
	defer cancel()
	type answer struct{ node, fault string }
	answers := make(chan answer)
	others := n.others()
	for _, name := range others {
		go func() {
			var told ringTold
			m, err := n.nc.RequestWithContext(ctx, ringSubject+name, doc)
			if err == nil {
				err = json.Unmarshal(m.Data, &told)
			}
			switch {
			case err != nil:
				told.Fault = err.Error()
			case told.Fault == "" && told.Ring != ringDigest(doc):
				told.Fault = fmt.Sprintf("it has version %d", told.Version)
			}
			answers <- answer{name, told.Fault}
		}()
	}
	for range others {
		if a := <-answers; a.fault == "" {
			inForce = append(inForce, a.node)
		} else {
			faults[a.node] = a.fault
		}
	}
	return inForce, faults
}

// fetchRing takes the newest keyring that another node has, if it is newer.
func fetchRing(ctx context.Context, b *Broker) {
	if b.nodes == nil {
		return
	}
	m := b.material.Load()
	var newest *nodeInfo
	infos := b.nodes.ask(ctx, question{Ring: m.ring.Version()})
	for i := range infos {
		info := &infos[i]
		if info.Keyring == m.ring.Version() && info.Ring != "" && info.Ring != ringDigest(m.ringDoc) {
			b.log.Error().Str("node", info.Node).Uint64("keyring", info.Keyring).Msg("another node has another keyring of the same version: sign one with a higher version and push it")
		}
		if len(info.Document) > 0 && (newest == nil || info.Keyring > newest.Keyring) {
			newest = info
		}
	}
	if newest == nil {
		return
	}
	if err := takeRing(b, newest.Document); err != nil {
		b.log.Warn().Err(err).Str("node", newest.Node).Uint64("keyring", newest.Keyring).Msg("the keyring of another node is refused")
	}
}

// startKeys follows the keyring of the others, and goes over to the next key of this
// node when it is due.
func startKeys(b startup) error {
	life, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(keyTick)
		defer t.Stop()
		var asked, kept time.Time
		for {
			select {
			case <-life.Done():
				return
			case now := <-t.C:
				if now.Sub(asked) >= ringPoll {
					asked = now
					fetchRing(life, b.Broker)
				}
				if now.Sub(kept) >= ringKeep && b.own.done() {
					kept = now
					syncRing(life, b.Broker)
					warnOfSeed(b.Broker, now)
				}
				turnKey(life, b.Broker)
			}
		}
	}()
	b.running("keys", func(context.Context) error {
		stop()
		<-done
		return nil
	})
	return nil
}

// holdsKeyFor says whether the ring has a key with which the node can attest now.
func holdsKeyFor(ring *keyring.Ring, node string, now time.Time) bool {
	return slices.ContainsFunc(ring.Keys(), func(k keyring.Key) bool {
		return k.Role == keyring.RoleBroker && k.Principal == node && k.ValidAt(now)
	})
}
