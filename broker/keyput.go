package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

// maxAhead is how far the clock of whoever signed a keyring may be ahead of this one.
const maxAhead = 5 * time.Minute

// putKeys judges a keyring that an administrator brings, and brings it to all nodes:
// the others first, so that one which is to be cut off still hears of it.
func putKeys(ctx context.Context, b *Broker, doc []byte, cutOff []string) (adminapi.KeysPut, error) {
	var out adminapi.KeysPut
	if phase(b.phase.Load()) != phaseReady {
		return out, wire.Refuse(wire.CodeUnavailable, "keyring", ErrNotReady.Error())
	}
	m, now := b.material.Load(), time.Now()
	ring, err := judgeRing(b, m, doc, now)
	if err == nil {
		err = mayCutOff(ctx, b, m, ring, cutOff, now)
	}
	if err != nil {
		return out, refuseRing(err)
	}
	// Another node may have kept a revocation that has not come here: it must not be undone.
	may := func(kept *keyring.Ring) error { return errors.Join(ring.Replaces(kept), ring.Keeps(kept, now)) }
	switch err := keepRing(ctx, b, ring, doc, may); {
	case errors.Is(err, errRingTaken):
		return out, refuseRing(err)
	case err != nil: // a revocation must not wait for a quorum
		b.log.Warn().Err(err).Uint64("keyring", ring.Version()).Msg("the keyring is not kept in the stream KEYS yet")
	}
	inForce, faults := spreadRing(ctx, b.nodes, doc)
	if err := takeRing(b, doc); err != nil {
		return out, refuseRing(err)
	}
	out = adminapi.KeysPut{Version: ring.Version(), InForce: append(inForce, b.cfg.Name)}
	for node, fault := range faults {
		out.Waiting = append(out.Waiting, node)
		b.log.Warn().Str("node", node).Str("fault", fault).Uint64("keyring", ring.Version()).Msg("a node does not have the keyring yet")
	}
	slices.Sort(out.InForce)
	slices.Sort(out.Waiting)
	return out, nil
}

// judgeRing checks a keyring against the one in force and this node's root key.
func judgeRing(b *Broker, m *material, doc []byte, now time.Time) (*keyring.Ring, error) {
	if len(doc) > maxPushedRing {
		return nil, fmt.Errorf("%d bytes, at most %d can be pushed: bring it to the nodes as a file", len(doc), maxPushedRing)
	}
	ring, err := parseRing(&b.cfg, doc, now)
	if err != nil {
		return nil, err
	}
	if ahead := ring.Issued().Sub(now); ahead > maxAhead {
		return nil, fmt.Errorf("it was issued at %s, %s from now by the clock of %s: set the clock that is wrong, and sign it anew", ring.Issued().Format(time.RFC3339), ahead.Round(time.Second), b.cfg.Name)
	}
	return ring, errors.Join(ring.Replaces(m.ring), ring.Keeps(m.ring, now))
}

// mayCutOff refuses a keyring that leaves a node without a key to attest with, unless
// it is named, and names that lose none.
func mayCutOff(ctx context.Context, b *Broker, m *material, ring *keyring.Ring, cutOff []string, now time.Time) error {
	good := func(id string) bool {
		k, ok := ring.ByID(id)
		return ok && k.Role == keyring.RoleBroker && k.ValidAt(now)
	}
	lost := map[string]bool{b.cfg.Name: m.mute == nil && !slices.ContainsFunc(keysOf(m.signers), good)}
	if b.nodes != nil {
		for _, node := range b.nodes.others() { // what is known without an answer
			lost[node] = holdsKeyFor(m.ring, node, now) && !holdsKeyFor(ring, node, now)
		}
		for _, info := range b.nodes.ask(ctx, question{}) {
			if len(info.Keys) > 0 && holdsKeyFor(m.ring, info.Node, now) {
				lost[info.Node] = !slices.ContainsFunc(info.Keys, good)
			}
		}
	}
	var faults []error
	for node, is := range lost {
		if is && !slices.Contains(cutOff, node) {
			faults = append(faults, fmt.Errorf("%s would have no key left to attest with: give it a new one (signet keys rotate), or, if that is meant, name it with --cut-off %s", node, node))
		}
	}
	for _, node := range cutOff {
		if !lost[node] {
			faults = append(faults, fmt.Errorf("--cut-off %s: it is no node, or loses no key by this keyring", node))
		}
	}
	return errors.Join(faults...)
}

// refuseRing tells an administrator what is wrong with a keyring. It is no secret.
func refuseRing(err error) error {
	if errors.Is(err, ErrNotReady) {
		return wire.Refuse(wire.CodeUnavailable, "keyring", err.Error())
	}
	return wire.Refuse(wire.CodeConflict, "keyring", strings.ReplaceAll(err.Error(), "\n", "; "))
}
