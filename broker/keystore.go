package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

const (
	ringKept    = "keys.ring"     // subject in store.StreamKeys
	ringKeep    = time.Minute     // between two looks at what is kept
	ringStoring = 5 * time.Second // bound of one of them, and of one push's
)

// errRingTaken: somebody pushed another keyring at the same time, or a newer one before.
var errRingTaken = errors.New("broker: another keyring was pushed")

// keepRing puts a keyring into the broker's own stream, in the place of an older one by
// compare and swap: of two pushes at two nodes one wins. may judges what it is to
// replace, which this node need not have heard of yet. What is there already is no fault.
//
// Errors: errRingTaken; anything else says that the store does not answer now.
func keepRing(ctx context.Context, b *Broker, ring *keyring.Ring, doc []byte, may func(kept *keyring.Ring) error) error {
	ctx, cancel := context.WithTimeout(ctx, ringStoring)
	defer cancel()
	js, kept, err := keptRing(ctx, b)
	if err != nil {
		return err
	}
	if kept.ring != nil {
		if err := may(kept.ring); err != nil {
			return fmt.Errorf("%w: %w", errRingTaken, err)
		}
		if ring.Version() == kept.ring.Version() {
			return nil
		}
	}
	_, err = js.Publish(ctx, ringKept, doc, jetstream.WithExpectLastSequencePerSubject(kept.at), jetstream.WithExpectStream(store.StreamKeys))
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		return fmt.Errorf("%w at the same time", errRingTaken)
	}
	return err
}

// keptKeyring is what the stream has.
type keptKeyring struct {
	ring *keyring.Ring // nil: none that is signed by the root key here
	doc  []byte
	at   uint64 // its sequence, 0 for none at all
}

// keptRing returns what the stream has, verified like any other.
func keptRing(ctx context.Context, b *Broker) (js jetstream.JetStream, kept keptKeyring, err error) {
	conn, err := b.store.Conn(wire.BrokerAccount)
	if err != nil {
		return nil, kept, err
	}
	if js, err = jetstream.New(conn); err != nil {
		return nil, kept, err
	}
	s, err := js.Stream(ctx, store.StreamKeys)
	if err != nil {
		return nil, kept, err
	}
	m, err := s.GetLastMsgForSubject(ctx, ringKept)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return js, kept, nil
	}
	if err != nil {
		return nil, kept, err
	}
	// Its expiry is not asked: an expired one must not be followed by an older one.
	kept.at, kept.doc = m.Sequence, m.Data
	kept.ring, err = keyring.Parse(m.Data, b.cfg.Keys.Root, time.Time{})
	if err != nil {
		b.log.Error().Err(err).Msg("the keyring in the stream KEYS is not of this root key, and is passed over")
		kept.ring = nil
		return js, kept, nil
	}
	return js, kept, nil
}

// syncRing takes the keyring of the stream if it is newer than the one in force, and
// offers the one in force, which may have come as a file, if that is newer.
func syncRing(ctx context.Context, b *Broker) {
	call, cancel := context.WithTimeout(ctx, ringStoring)
	defer cancel()
	_, kept, err := keptRing(call, b)
	if err != nil {
		return // no leader now; the other nodes tell of newer ones, too
	}
	m := b.material.Load()
	switch {
	case kept.ring != nil && kept.ring.Version() > m.ring.Version():
		if err := takeRing(b, kept.doc); err != nil {
			b.log.Warn().Err(err).Uint64("keyring", kept.ring.Version()).Msg("the keyring in the stream KEYS is refused")
		}
	case kept.ring != nil && kept.ring.Version() == m.ring.Version() && m.ring.Replaces(kept.ring) != nil:
		b.log.Error().Uint64("keyring", m.ring.Version()).Msg("the stream KEYS has another keyring of the same version: sign one with a higher version and push it")
	case kept.ring == nil || kept.ring.Version() < m.ring.Version():
		if err := keepRing(ctx, b, m.ring, m.ringDoc, m.ring.Replaces); err != nil && !errors.Is(err, errRingTaken) && ctx.Err() == nil {
			b.log.Warn().Err(err).Msg("the keyring in force is not kept in the stream KEYS")
		}
	}
}
