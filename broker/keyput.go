package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

const (
	// maxAhead is how far the clock of whoever signed a keyring may be ahead of this one.
	maxAhead = 5 * time.Minute
	// minRingLeft is how long a keyring that is pushed must still be good: one that ends at
	// once would stop everything, and nobody could sign another one in time.
	minRingLeft = 10 * time.Minute
	// maxVersionStep is how much higher than the one in force a version may be that is not
	// a time of now. Versions are the time of signing; one near the highest possible would
	// leave none for the next keyring, and so keep a revocation out for good.
	maxVersionStep = 1 << 16
)

// putKeys judges a keyring that an administrator brings, and brings it to all nodes:
// the others first, so that one which is to be cut off still hears of it. Once somebody
// has it, it is never called refused: the answer says who has it and who has not, and to
// push it again is harmless.
func putKeys(ctx context.Context, b *Broker, doc []byte, cutOff []string) (adminapi.KeysPut, error) {
	var out adminapi.KeysPut
	if phase(b.phase.Load()) != phaseReady {
		return out, wire.Refuse(wire.CodeUnavailable, "keyring", ErrNotReady.Error())
	}
	m, now := b.material.Load(), time.Now()
	ring, err := judgeRing(b, m, doc, now)
	if err == nil && ring.Version() > m.ring.Version() { // else it is in force, and whoever is cut off is so
		err = mayCutOff(ctx, b, m, ring, cutOff, now)
	}
	if err != nil {
		return out, refuseRing(err)
	}
	// Another node may have kept a revocation that has not come here: it must not be undone.
	may := func(kept *keyring.Ring) error { return errors.Join(ring.Replaces(kept), ring.Keeps(kept, now)) }
	err = keepRing(ctx, b, ring, doc, may)
	if errors.Is(err, errRingTaken) {
		return out, refuseRing(err)
	}
	if err != nil { // a revocation must not wait for a quorum
		b.log.Warn().Err(err).Uint64("keyring", ring.Version()).Msg("the keyring is not kept in the stream KEYS yet")
	}
	kept := err == nil
	inForce, faults := spreadRing(ctx, b.nodes, doc)
	out, err = tellPut(b.cfg.Name, kept, inForce, faults, takeRing(b, doc))
	out.Version = ring.Version()
	for node, fault := range out.Faults {
		b.log.Warn().Str("node", node).Str("fault", fault).Uint64("keyring", ring.Version()).Msg("a node does not have the keyring yet")
	}
	return out, err
}

// tellPut says what has become of a keyring, here being what node self said to it. It is
// refused only if nobody has it: what one node or the stream has comes to the others.
func tellPut(self string, kept bool, inForce []string, faults map[string]string, here error) (adminapi.KeysPut, error) {
	out := adminapi.KeysPut{Kept: kept, InForce: slices.Clone(inForce), Faults: maps.Clone(faults)}
	switch {
	case here == nil || errors.Is(here, errInForce):
		out.InForce = append(out.InForce, self)
	case !kept && len(inForce) == 0:
		return adminapi.KeysPut{}, refuseRing(here)
	default:
		out.Faults[self] = here.Error()
	}
	out.Waiting = slices.Sorted(maps.Keys(out.Faults))
	slices.Sort(out.InForce)
	return out, nil
}

// judgeRing checks a keyring against the one in force and this node's root key.
func judgeRing(b *Broker, m *material, doc []byte, now time.Time) (*keyring.Ring, error) {
	ring, err := parseRing(&b.cfg, doc, now)
	if err != nil {
		return nil, err
	}
	if ring.Version() == m.ring.Version() {
		return ring, ring.Replaces(m.ring) // it is in force; nil: it is pushed once more
	}
	if ahead := ring.Issued().Sub(now); ahead > maxAhead {
		return nil, fmt.Errorf("it was issued at %s, %s from now by the clock of %s: set the clock that is wrong, and sign it anew", ring.Issued().Format(time.RFC3339), ahead.Round(time.Second), b.cfg.Name)
	}
	if left := ring.Expires().Sub(now); left < minRingLeft {
		return nil, fmt.Errorf("it expires at %s, in %s, and nothing would be attested from then on: sign one that lasts longer", ring.Expires().Format(time.RFC3339), left.Round(time.Second))
	}
	if most := max(uint64(max(now.Add(maxAhead).Unix(), 1)), m.ring.Version()+maxVersionStep); ring.Version() > most {
		return nil, fmt.Errorf("it has version %d, in force is %d: a version is the time of signing in seconds, so that there is always a higher one; sign it anew with at most %d", ring.Version(), m.ring.Version(), most)
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
