package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/signetbus/signet/broker/ops"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/signing/keyring"
)

const (
	// ringAwait bounds how long a start waits to hear of a newer keyring. A cluster whose
	// other nodes are not up yet must be able to start; what this node held counts then.
	ringAwait = 10 * time.Second
	ringRetry = 250 * time.Millisecond
)

// offered is a keyring that a node that starts hears of.
type offered struct {
	from string
	doc  []byte
	ring *keyring.Ring
}

// newestRing takes the newest keyring that the stream KEYS or another node has, before
// the gate opens: whoever was revoked while this node was away must not get in by the
// keyring that it had when it went. It holds what is in force for the next start.
//
// Errors: the newest keyring has expired; this node has no key that it lets attest.
func newestRing(ctx context.Context, b *Broker) error {
	newest := hearRings(ctx, b)
	b.swap.Lock()
	defer b.swap.Unlock()
	m := b.material.Load()
	if newest != nil && newest.ring.Version() == m.ring.Version() && newest.ring.Replaces(m.ring) != nil {
		b.log.Error().Str("from", newest.from).Uint64("keyring", m.ring.Version()).
			Msg("there is another keyring of the same version: sign one with a higher version and push it")
	}
	if newest != nil && newest.ring.Version() > m.ring.Version() {
		if !time.Now().Before(newest.ring.Expires()) {
			return fmt.Errorf("the keyring that %s has (version %d, here is %d): %w: at %s: sign a newer one with the root key and bring it as %s",
				newest.from, newest.ring.Version(), m.ring.Version(), keyring.ErrExpired, newest.ring.Expires().Format(time.RFC3339), b.cfg.Keys.Keyring)
		}
		b.log.Warn().Str("from", newest.from).Uint64("keyring", newest.ring.Version()).Uint64("here", m.ring.Version()).
			Msg("this node has an older keyring than there is, and takes the newer one before it lets anybody in")
		if err := takeRingLocked(b, newest.ring, newest.doc); err != nil {
			return err
		}
		if m = b.material.Load(); m.mute != nil {
			return m.mute
		}
	}
	return holdRing(&b.cfg, m.ringDoc)
}

// hearRings returns the newest keyring that is heard of, nil for none. All are verified;
// whether they have expired is not asked.
func hearRings(ctx context.Context, b *Broker) (newest *offered) {
	take := func(from string, doc []byte, ring *keyring.Ring) {
		if ring != nil && (newest == nil || ring.Version() > newest.ring.Version()) {
			newest = &offered{from, doc, ring}
		}
	}
	heard := b.nodes == nil
	if b.nodes != nil {
		m := b.material.Load()
		infos := b.nodes.ask(ctx, question{Ring: m.ring.Version()})
		for i := range infos {
			heard = true
			ring, err := parseRing(&b.cfg, infos[i].Document, time.Time{})
			if err != nil && len(infos[i].Document) > 0 {
				b.log.Warn().Err(err).Str("node", infos[i].Node).Msg("the keyring of another node is refused")
			}
			if err == nil {
				take(infos[i].Node, infos[i].Document, ring)
			}
		}
	}
	kept, err := awaitKept(ctx, b)
	if err == nil {
		take("the stream KEYS", kept.doc, kept.ring)
	}
	if err != nil {
		b.log.Warn().Err(err).Bool("other nodes answer", heard).Uint64("keyring", b.material.Load().ring.Version()).
			Msg("the stream KEYS gives no answer: the newest keyring of the file, of this node and of the nodes that answer counts until it does")
	}
	return newest
}

// awaitKept asks the stream KEYS until it answers, for ringAwait.
func awaitKept(ctx context.Context, b *Broker) (keptKeyring, error) {
	if !b.own.done() {
		return keptKeyring{}, errors.New("broker: the broker's own streams are not made yet")
	}
	ctx, cancel := context.WithTimeout(ctx, ringAwait)
	defer cancel()
	for {
		call, end := context.WithTimeout(ctx, ringStoring)
		_, kept, err := keptRing(call, b)
		end()
		if err == nil {
			return kept, nil
		}
		select {
		case <-ctx.Done():
			return keptKeyring{}, err
		case <-time.After(ringRetry):
		}
	}
}

// ringFileHealth says whether the keyring's file is what is in force. It does not make
// the broker less ready.
func ringFileHealth(b *Broker) adminapi.HealthPart {
	h := adminapi.HealthPart{Part: "keyring-file", OK: true}
	if note := b.material.Load().ringNote; note != nil {
		h.OK, h.Detail = false, note.Error()
	}
	return h
}

// ringMetrics are the metrics of the keyring.
func ringMetrics(b *Broker) []ops.Source {
	return []ops.Source{{
		Name: "signet_keyring_file_ok", Help: "1 while the keyring's file is the keyring in force, 0 while it is passed over.", Kind: ops.Gauge,
		Read: func(emit func(float64, ...string)) {
			if !ringFileHealth(b).OK {
				emit(0)
				return
			}
			emit(1)
		},
	}, {
		Name: "signet_keyring_version", Help: "Version of the keyring in force.", Kind: ops.Gauge,
		Read: func(emit func(float64, ...string)) { emit(float64(b.material.Load().ring.Version())) },
	}}
}
