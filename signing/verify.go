package signing

import (
	"crypto/ed25519"
	"fmt"
	"sync"
	"time"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

// Attestation is what a verified event proves: a broker with this key saw this
// principal publish the event on this subject at this time.
type Attestation struct {
	KeyID        string    // nkeys public key of the broker
	Principal    string    // authid
	AuthType     string    // authtype
	NATSSubject  string    // as given to Verify
	RecordedTime time.Time // whole seconds; by the broker's clock, or by the producer's if the event has dssematerial (2 minutes behind to 1 ahead)
	Batch        int       // events under the same signature, 1 to 32
}

// Verifier checks attestations. Safe for concurrent use. It remembers the last
// DefaultRoots verified roots, so that of a batch only the first event that
// arrives costs a curve operation.
type Verifier struct {
	ring  func() *keyring.Ring
	roots *roots
	pool  sync.Pool // of *reader
	now   func() time.Time
}

// reader is the memory of one Verify call.
type reader struct {
	digester
	raw       [maxCompact]byte
	text      []byte // natsSubject as bytes
	principal string // the last ones, so that a run of equal events shares them
	authType  string
}

// NewVerifier returns a verifier that asks ring, on each call, for the keyring in
// force. ring must be safe for concurrent use; it may return nil.
func NewVerifier(ring func() *keyring.Ring) *Verifier {
	return &Verifier{
		ring: ring, roots: newRoots(DefaultRoots), now: time.Now,
		pool: sync.Pool{New: func() any { return new(reader) }},
	}
}

// Verify checks the attestation of e, which came on natsSubject. natsSubject must
// be what the transport delivered, not an attribute of e. Use e afterwards as it
// is: all its attributes and its data are covered, but not what was beside it
// (other headers). A producer signature is covered, and not checked: that is
// ProducerVerifier.
//
// Checks run cheapest first; no curve operation happens before the key is known,
// is a broker's and was valid at the recorded time. Errors: ErrMissing,
// ErrMalformed, ErrNoKeyring, ErrUnknownKey, ErrKeyNotValid, ErrBadSignature.
func (v *Verifier) Verify(e *cloudevent.Event, natsSubject string) (Attestation, error) {
	text := e.Get(wire.AttrAttestation)
	if len(text) == 0 {
		return Attestation{}, ErrMissing
	}
	r := v.pool.Get().(*reader)
	defer v.pool.Put(r)
	c, err := parseText(text, &r.raw)
	if err != nil {
		return Attestation{}, err
	}
	ring := v.ring()
	if ring == nil || !v.now().Before(ring.Expires()) {
		return Attestation{}, ErrNoKeyring
	}
	key, err := keyByHint(ring, c.hint)
	if err != nil {
		return Attestation{}, err
	}
	r.text = append(r.text[:0], natsSubject...)
	recorded, err := r.digest(e, r.text)
	if err != nil {
		return Attestation{}, err
	}
	if err := mayAttest(key, recorded); err != nil {
		return Attestation{}, err
	}
	if !v.signatureHolds(&c, key, r.pae) {
		return Attestation{}, ErrBadSignature
	}
	return Attestation{
		KeyID: key.ID, NATSSubject: natsSubject, RecordedTime: recorded, Batch: c.size,
		Principal: reuse(&r.principal, e.Get(wire.AttrAuthID)),
		AuthType:  reuse(&r.authType, e.Get(wire.AttrAuthType)),
	}, nil
}

// signatureHolds checks the signature of c over a leaf: 0x00, then the PAE.
func (v *Verifier) signatureHolds(c *compact, key *keyring.Key, leaf []byte) bool {
	if c.size == 1 {
		return ed25519.Verify(key.Public(), leaf[1:], c.sig)
	}
	return v.roots.holds(c, key.Public(), leaf)
}

func keyByHint(ring *keyring.Ring, hint [keyring.HintBytes]byte) (*keyring.Key, error) {
	keys := ring.ByHint(hint)
	if len(keys) == 0 {
		return nil, ErrUnknownKey
	}
	return &keys[0], nil // a ring never has two keys of one hint
}

// mayAttest checks the role of key, and that it was valid at the recorded time.
func mayAttest(key *keyring.Key, recorded time.Time) error {
	switch {
	case key.Role != keyring.RoleBroker:
		return fmt.Errorf("%w: %s has the role %s", ErrKeyNotValid, key.ID, key.Role)
	case !key.ValidAt(recorded):
		return fmt.Errorf("%w: %s at %s", ErrKeyNotValid, key.ID, recorded.Format(secondsLayout))
	}
	return nil
}

// reuse returns v as a string, the last one if it is equal.
func reuse(last *string, v []byte) string {
	if *last != string(v) {
		*last = string(v)
	}
	return *last
}
