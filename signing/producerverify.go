package signing

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"sync"
	"time"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

// ProducerSignature is what a verified producer signature proves: who holds this
// key made this event for this subject, and said that it was published then.
type ProducerSignature struct {
	KeyID        string    // nkeys public key; of several signatures the first
	Principal    string    // tenant/name, of the keyring
	RecordedTime time.Time // by the producer's clock, whole seconds
	Batch        int       // events under the same signature, 1 to 32
}

// Claim is a producer signature that was read and is not checked yet. It is
// reusable, some 8 KiB, and not safe for concurrent use; the zero value works.
type Claim struct {
	m    material
	keys [maxSignatures]keyring.Key
	d    digester
}

// Keys returns the keys that the signature claims, as the keyring has them, one to
// four, each once. The slice is valid until the next Read.
func (c *Claim) Keys() []keyring.Key { return c.keys[:c.m.n] }

// KeyID returns the first key.
func (c *Claim) KeyID() string { return c.keys[0].ID }

// ProducerVerifier checks producer signatures. Safe for concurrent use. It
// remembers verified roots like Verifier.
type ProducerVerifier struct {
	ring  func() *keyring.Ring
	roots *roots
	pool  sync.Pool // of *Claim
	now   func() time.Time
}

// NewProducerVerifier returns a verifier that asks ring, on each call, for the
// keyring in force. ring must be safe for concurrent use; it may return nil.
func NewProducerVerifier(ring func() *keyring.Ring) *ProducerVerifier {
	return &ProducerVerifier{
		ring: ring, roots: newRoots(DefaultRoots), now: time.Now,
		pool: sync.Pool{New: func() any { return new(Claim) }},
	}
}

// Verify checks the producer signature of e, which came on natsSubject, and that
// its key may sign this source and subject. As with Verifier, natsSubject must be
// what the transport delivered, and e is to be used as it is. The attributes
// authid, authtype, attestation and attestationmaterial are not the producer's;
// every other is covered.
//
// Where there are several signatures, all must hold and be of one principal. It
// says nothing about replay: that is for who takes the event in.
//
// Errors: ErrNoSignature, ErrMalformed, ErrNoKeyring, ErrUnknownKey,
// ErrKeyNotValid, ErrBadSignature.
func (v *ProducerVerifier) Verify(e *cloudevent.Event, natsSubject string) (ProducerSignature, error) {
	c := v.pool.Get().(*Claim)
	defer v.pool.Put(c)
	if err := v.Read(c, e); err != nil {
		return ProducerSignature{}, err
	}
	recorded, err := RecordedTime(e)
	if err != nil {
		return ProducerSignature{}, err
	}
	source := string(e.Source)
	for i, k := range c.Keys() {
		switch {
		case !k.ValidAt(recorded):
			err = fmt.Errorf("%w: %s at %s", ErrKeyNotValid, k.ID, recorded.Format(secondsLayout))
		case k.Principal != c.keys[0].Principal:
			err = fmt.Errorf("%w: signature %d is of another principal", ErrKeyNotValid, i+1)
		case !k.CoversSource(source):
			err = fmt.Errorf("%w: %s signs no events of this source", ErrKeyNotValid, k.ID)
		case !k.CoversSubject(natsSubject):
			err = fmt.Errorf("%w: %s signs nothing on this subject", ErrKeyNotValid, k.ID)
		}
		if err != nil {
			return ProducerSignature{}, err
		}
	}
	if err := v.Check(c, e, []byte(natsSubject)); err != nil {
		return ProducerSignature{}, err
	}
	return c.signature(recorded), nil
}

func (c *Claim) signature(recorded time.Time) ProducerSignature {
	s := ProducerSignature{KeyID: c.keys[0].ID, Principal: c.keys[0].Principal, RecordedTime: recorded, Batch: 1}
	if len(c.m.sigs[0].single) == 0 {
		s.Batch = c.m.sigs[0].merkle.size
	}
	return s
}

// Read decodes the dssematerial of e into c and finds its keys: all must be in the
// keyring and be producers'. It hashes nothing and does no curve operation. It is
// the first half of Verify, for callers that have something to decide in between.
//
// Errors: ErrNoSignature, ErrMalformed, ErrNoKeyring, ErrUnknownKey,
// ErrKeyNotValid (the role).
func (v *ProducerVerifier) Read(c *Claim, e *cloudevent.Event) error {
	c.m.n = 0
	text := e.Get(wire.AttrDSSE)
	if len(text) == 0 {
		return ErrNoSignature
	}
	if err := c.m.parse(text); err != nil {
		c.m.n = 0
		return err
	}
	ring := v.ring()
	if ring == nil || !v.now().Before(ring.Expires()) {
		return ErrNoKeyring
	}
	for i := range c.m.n {
		key, ok := ring.ByID(string(c.m.sigs[i].keyID))
		if !ok {
			return ErrUnknownKey
		}
		if key.Role != keyring.RoleProducer {
			return fmt.Errorf("%w: %s has the role %s", ErrKeyNotValid, key.ID, key.Role)
		}
		c.keys[i] = key
	}
	return nil
}

// Check checks the signatures that Read has read of the same event, published on
// natsSubject. Whether the keys may sign it is the caller's to check.
//
// Errors: ErrMalformed, ErrBadSignature.
func (v *ProducerVerifier) Check(c *Claim, e *cloudevent.Event, natsSubject []byte) error {
	if _, err := c.d.digestProducer(e, natsSubject); err != nil {
		return err
	}
	// What was transmitted must be what this event and subject give: every digest, and
	// the list of names, in one comparison. So the bytes that are verified are both.
	if !bytes.Equal(c.m.body, c.d.body) {
		return ErrBadSignature
	}
	for i := range c.m.n {
		s, public := &c.m.sigs[i], c.keys[i].Public()
		if len(s.single) > 0 {
			if !ed25519.Verify(public, c.d.pae[1:], s.single) {
				return ErrBadSignature
			}
			continue
		}
		if !v.roots.holds(&s.merkle, public, c.d.pae) {
			return ErrBadSignature
		}
	}
	return nil
}

// RecordedTime returns the recordedtime of e, which must be there.
//
// Errors: ErrMalformed.
func RecordedTime(e *cloudevent.Event) (time.Time, error) {
	text := e.Get(wire.AttrRecordedTime)
	t, ok := cloudevent.ParseTime(text)
	if !ok || len(text) != len(secondsLayout) {
		return time.Time{}, fmt.Errorf("%w: recordedtime is not YYYY-MM-DDTHH:MM:SSZ", ErrMalformed)
	}
	return t, nil
}
