package signing

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/internal/dsse"
	"github.com/signetbus/signet/signing/keyring"
)

// maxDSSEBytes bounds the text of a dssematerial attribute.
const maxDSSEBytes = 4096

// ExpandedName returns the name of the attribute that the expanded attestation of
// e goes into, off the bus: dssematerial, or attestationmaterial where dssematerial
// is the producer's.
func ExpandedName(e *cloudevent.Event) string {
	if len(e.Get(wire.AttrDSSE)) > 0 {
		return wire.AttrExpanded
	}
	return wire.AttrDSSE
}

// Expand turns the attestation of e into the value of the standard dssematerial
// attribute: a DSSE JSON envelope in base64. The attribute is called ExpandedName. A batch of one gives a plain Ed25519
// signature (alg ed25519), which stock verifiers check; a larger batch gives the
// Merkle form (alg merkle-ed25519, docs/spec/envelope.md section 6). Nothing is
// lost and nothing is verified: call Verify first.
//
// A verifier that does not know Signet also needs the attributes that are signed
// but not on the wire: see DerivedAttributes.
//
// Errors: ErrMissing, ErrMalformed, ErrNoKeyring, ErrUnknownKey.
func Expand(e *cloudevent.Event, natsSubject string, ring *keyring.Ring) (dssematerial string, err error) {
	text := e.Get(wire.AttrAttestation)
	if len(text) == 0 {
		return "", ErrMissing
	}
	var raw [maxCompact]byte
	c, err := parseText(text, &raw)
	if err != nil {
		return "", err
	}
	if ring == nil {
		return "", ErrNoKeyring
	}
	key, err := keyByHint(ring, c.hint)
	if err != nil {
		return "", err
	}
	var d digester
	if _, err := d.digest(e, []byte(natsSubject)); err != nil {
		return "", err
	}
	sig := c.sig
	if c.size > 1 {
		sig = c.appendBinary(nil, false)
	}
	env := dsse.Append(nil, &dsse.Envelope{PayloadType: PayloadType, Payload: d.body, KeyID: key.ID, Sig: sig})
	return base64.StdEncoding.EncodeToString(env), nil
}

// DerivedAttributes returns the attributes of e that are signed but not on the
// wire: natssubject and, where time is not in whole UTC seconds, AttrExactTime.
// Egress adds them beside a dssematerial. Ascending by name.
//
// Errors: ErrMalformed.
func DerivedAttributes(e *cloudevent.Event, natsSubject string) ([]cloudevent.Attr, error) {
	var buf [len(secondsLayout)]byte
	_, exact, err := splitTime(e.Time, &buf)
	if err != nil {
		return nil, err
	}
	attrs := []cloudevent.Attr{{Name: []byte(wire.AttrNATSSubject), Value: []byte(natsSubject)}}
	if len(exact) > 0 {
		attrs = append(attrs, cloudevent.Attr{Name: []byte(AttrExactTime), Value: append([]byte(nil), exact...)})
	}
	return attrs, nil
}

// VerifyDSSE checks that dssematerial is a broker's attestation of e on
// natsSubject. It is strict: the one layout that Expand writes, one signature, and
// every extension of e signed. Not covered are the attribute attestation, and the
// one that carries what was given: another dssematerial is the producer's, and
// must be signed. The expiry of ring is the caller's to check (keyring.Parse does).
//
// Errors: ErrMissing, ErrMalformed, ErrNoKeyring, ErrUnknownKey, ErrKeyNotValid,
// ErrBadSignature.
func VerifyDSSE(dssematerial string, e *cloudevent.Event, natsSubject string, ring *keyring.Ring) error {
	switch {
	case dssematerial == "":
		return ErrMissing
	case ring == nil:
		return ErrNoKeyring
	}
	e = without(e, dssematerial)
	env, err := decodeMaterial(dssematerial)
	if err != nil {
		return err
	}
	key, ok := ring.ByID(env.KeyID)
	if !ok {
		return ErrUnknownKey
	}
	var d digester
	recorded, err := d.digest(e, []byte(natsSubject))
	if err != nil {
		return err
	}
	if err := mayAttest(&key, recorded); err != nil {
		return err
	}
	// The body is rebuilt from the event and must be the one transmitted: that is
	// the digest check and the check that every extension is signed in one.
	if string(env.Payload) != string(d.body) {
		return ErrBadSignature
	}
	return checkMaterial(env.Sig, &key, d.pae)
}

// without returns e without the attribute that carries material. What was given is
// not changed.
func without(e *cloudevent.Event, material string) *cloudevent.Event {
	for _, name := range [...]string{wire.AttrDSSE, wire.AttrExpanded} {
		if string(e.Get(name)) == material {
			bare := *e
			bare.Ext = slices.Clone(e.Ext)
			bare.DelExt(name)
			return &bare
		}
	}
	return e
}

func decodeMaterial(material string) (*dsse.Envelope, error) {
	if len(material) > maxDSSEBytes {
		return nil, fmt.Errorf("%w: dssematerial of %d bytes, limit %d", ErrMalformed, len(material), maxDSSEBytes)
	}
	b, err := base64.StdEncoding.Strict().DecodeString(material)
	if err != nil || base64.StdEncoding.EncodeToString(b) != material {
		return nil, fmt.Errorf("%w: dssematerial is not base64", ErrMalformed)
	}
	env, err := dsse.Parse(b)
	if err != nil {
		return nil, errors.Join(ErrMalformed, err)
	}
	if env.PayloadType != PayloadType {
		return nil, fmt.Errorf("%w: payload type %q", ErrMalformed, env.PayloadType)
	}
	return env, nil
}

// checkMaterial checks the sig of an envelope: 64 bytes are Ed25519 over the PAE,
// anything else is the Merkle form.
func checkMaterial(sig []byte, key *keyring.Key, leaf []byte) error {
	if len(sig) == ed25519.SignatureSize {
		if !ed25519.Verify(key.Public(), leaf[1:], sig) {
			return ErrBadSignature
		}
		return nil
	}
	if len(sig) == 0 || sig[0] != kindMerkle {
		return fmt.Errorf("%w: sig is neither ed25519 nor merkle-ed25519", ErrMalformed)
	}
	var c compact
	if err := c.parseMerkle(sig[1:]); err != nil {
		return err
	}
	root := rootOf(sha256.Sum256(leaf), c.index, c.size, c.path)
	if !ed25519.Verify(key.Public(), appendNote(nil, c.size, &root), c.sig) {
		return ErrBadSignature
	}
	return nil
}
