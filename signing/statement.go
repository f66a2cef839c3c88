package signing

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/signetbus/signet/signing/internal/dsse"
	"github.com/signetbus/signet/signing/keyring"
)

// prefixStatement begins the payload type of every statement. Neither the type of
// an event (PayloadType) nor anything else outside begins with it; the keyring's,
// which does, is the root key's alone and is refused here.
const prefixStatement = "application/vnd.signet."

// MaxStatementBytes bounds the envelope of a statement.
const MaxStatementBytes = 4 << 20

// ErrStatement says that something is not an envelope of the wanted statement.
var ErrStatement = errors.New("signing: not a statement of this type")

// SignStatement returns the DSSE envelope (JSON) of payload, signed with the key of
// s. payloadType says what payload is, and is signed with it: a signature of one
// type never passes for one of another, nor for an attestation. It begins with
// application/vnd.signet. and is a constant of the caller.
//
// Errors: ErrStatement for another type, or an envelope over MaxStatementBytes.
func (s *Signer) SignStatement(payloadType string, payload []byte) ([]byte, error) {
	if err := checkStatementType(payloadType); err != nil {
		return nil, err
	}
	doc := dsse.Append(nil, &dsse.Envelope{
		PayloadType: payloadType, Payload: payload, KeyID: s.id,
		Sig: ed25519.Sign(s.private, dsse.AppendPAE(nil, payloadType, payload)),
	})
	if len(doc) > MaxStatementBytes {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrStatement, len(doc), MaxStatementBytes)
	}
	return doc, nil
}

// VerifyStatement checks an envelope that SignStatement wrote: the type, and the
// signature under a broker key of ring. It returns the payload and the key; whether
// the key was valid when the payload says it was signed is the caller's to check
// with Key.ValidAt. The expiry of ring is not looked at.
//
// Errors: ErrStatement, ErrNoKeyring, ErrUnknownKey, ErrKeyNotValid (the key is no
// broker's), ErrBadSignature.
func VerifyStatement(doc []byte, payloadType string, ring *keyring.Ring) (payload []byte, key keyring.Key, err error) {
	return verifyStatement(doc, payloadType, keyring.RoleBroker, ring)
}

func verifyStatement(doc []byte, payloadType, role string, ring *keyring.Ring) (payload []byte, key keyring.Key, err error) {
	if err := checkStatementType(payloadType); err != nil {
		return nil, key, err
	}
	if ring == nil {
		return nil, key, ErrNoKeyring
	}
	if len(doc) > MaxStatementBytes {
		return nil, key, fmt.Errorf("%w: %d bytes, limit %d", ErrStatement, len(doc), MaxStatementBytes)
	}
	env, err := dsse.Parse(doc)
	if err != nil {
		return nil, key, fmt.Errorf("%w: %w", ErrStatement, err)
	}
	if env.PayloadType != payloadType {
		return nil, key, fmt.Errorf("%w: payload type %q, not %q", ErrStatement, env.PayloadType, payloadType)
	}
	key, ok := ring.ByID(env.KeyID)
	if !ok {
		return nil, key, ErrUnknownKey
	}
	if key.Role != role {
		return nil, key, fmt.Errorf("%w: %s has the role %s", ErrKeyNotValid, key.ID, key.Role)
	}
	if !ed25519.Verify(key.Public(), dsse.AppendPAE(nil, payloadType, env.Payload), env.Sig) {
		return nil, key, ErrBadSignature
	}
	return env.Payload, key, nil
}

func checkStatementType(t string) error {
	if !strings.HasPrefix(t, prefixStatement) || t == keyring.PayloadType || t == PayloadType {
		return fmt.Errorf("%w: %q is not the type of a statement", ErrStatement, t)
	}
	return nil
}

// NewArchiveVerifier returns a verifier of events that were stored long ago, under
// the keyring that was kept with them: it does not look at the ring's expiry, only
// at whether each key was valid when the event was recorded. It must not be used
// for events that are delivered: an expired keyring may hide a revocation.
func NewArchiveVerifier(ring *keyring.Ring) *Verifier {
	v := NewVerifier(func() *keyring.Ring { return ring })
	if ring != nil {
		issued := ring.Issued()
		v.now = func() time.Time { return issued }
	}
	return v
}
