package keyring

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/signing/internal/dsse"
)

// PayloadType is the DSSE payload type of a keyring document. It differs from
// that of an event, so that neither signature passes for the other.
const PayloadType = "application/vnd.signet.keyring.v1+json"

// timeLayout is the one way in which a document writes a time.
const timeLayout = "2006-01-02T15:04:05Z"

// Sign returns the document of r, signed by the root key. rootSeed is an nkeys
// operator seed ("SO..."); it is not kept.
//
// Errors: ErrRootKey.
func (r *Ring) Sign(rootSeed []byte) ([]byte, error) {
	prefix, raw, err := nkeys.DecodeSeed(rootSeed)
	if err != nil || prefix != nkeys.PrefixByteOperator {
		return nil, ErrRootKey // never echo what may be a secret
	}
	private := ed25519.NewKeyFromSeed(raw)
	defer clear(private)
	defer clear(raw)
	id, err := nkeys.Encode(nkeys.PrefixByteOperator, private[ed25519.SeedSize:])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRootKey, err)
	}
	payload := r.payload()
	doc := dsse.Append(nil, &dsse.Envelope{
		PayloadType: PayloadType, Payload: payload, KeyID: string(id),
		Sig: ed25519.Sign(private, dsse.AppendPAE(nil, PayloadType, payload)),
	})
	if len(doc) > MaxDocumentBytes {
		return nil, fmt.Errorf("%w: document of %d bytes, limit %d", ErrInvalid, len(doc), MaxDocumentBytes)
	}
	return doc, nil
}

// Parse verifies a document against the pinned root key ("O...") and returns its
// ring. Nothing of the content is looked at before the signature holds. It keeps
// no reference to doc.
//
// Errors: ErrRootKey, ErrMalformed, ErrBadSignature, ErrInvalid, ErrExpired (now
// is at or after the expiry). Versions are not compared: see Ring.Replaces.
func Parse(doc []byte, rootPublic string, now time.Time) (*Ring, error) {
	root, err := decodePublic(rootPublic, nkeys.PrefixByteOperator)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRootKey, err)
	}
	if len(doc) > MaxDocumentBytes {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrMalformed, len(doc), MaxDocumentBytes)
	}
	env, err := dsse.Parse(doc)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if env.PayloadType != PayloadType {
		return nil, fmt.Errorf("%w: payload type %q", ErrMalformed, env.PayloadType)
	}
	if env.KeyID != rootPublic || !ed25519.Verify(root, dsse.AppendPAE(nil, PayloadType, env.Payload), env.Sig) {
		return nil, ErrBadSignature
	}
	r, err := parsePayload(env.Payload)
	if err != nil {
		return nil, err
	}
	if !now.Before(r.expires) {
		return nil, fmt.Errorf("%w: at %s", ErrExpired, r.expires.Format(timeLayout))
	}
	return r, nil
}

// The payload as encoding/json reads it.
type (
	payloadJSON struct {
		Version uint64    `json:"version"`
		Issued  string    `json:"issued"`
		Expires string    `json:"expires"`
		Keys    []keyJSON `json:"keys"`
	}
	keyJSON struct {
		ID        string   `json:"id"`
		Alg       string   `json:"alg"`
		Role      string   `json:"role"`
		Principal string   `json:"principal"`
		Sources   []string `json:"sources"`
		Subjects  []string `json:"subjects"`
		NotBefore string   `json:"notBefore"`
		NotAfter  string   `json:"notAfter"`
		RevokedAt string   `json:"revokedAt"`
	}
)

func parsePayload(b []byte) (*Ring, error) {
	var p payloadJSON
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: bytes after the payload", ErrMalformed)
	}
	var bad error
	when := func(s string) time.Time {
		t, err := time.Parse(timeLayout, s)
		if err != nil {
			bad = fmt.Errorf("%w: time %q", ErrMalformed, s)
		}
		return t
	}
	keys := make([]Key, 0, min(len(p.Keys), MaxKeys))
	for _, k := range p.Keys {
		key := Key{
			ID: k.ID, Alg: k.Alg, Role: k.Role, Principal: k.Principal,
			Sources: k.Sources, Subjects: k.Subjects,
			NotBefore: when(k.NotBefore), NotAfter: when(k.NotAfter),
		}
		if k.RevokedAt != "" {
			key.RevokedAt = when(k.RevokedAt)
		}
		keys = append(keys, key)
	}
	issued, expires := when(p.Issued), when(p.Expires)
	if bad != nil {
		return nil, bad
	}
	r, err := New(p.Version, issued, expires, keys)
	if err != nil {
		return nil, err
	}
	// encoding/json takes repeated members, other letter cases, white space and any
	// order. Only the bytes that payload writes are accepted.
	if !bytes.Equal(r.payload(), b) {
		return nil, fmt.Errorf("%w: payload is not canonical", ErrMalformed)
	}
	return r, nil
}

// payload writes the canonical payload. No value needs an escape: New allows none
// that would.
func (r *Ring) payload() []byte {
	b := make([]byte, 0, 128+256*len(r.keys))
	b = append(b, `{"version":`...)
	b = strconv.AppendUint(b, r.version, 10)
	b = appendTime(b, `,"issued":"`, r.issued)
	b = appendTime(b, `,"expires":"`, r.expires)
	b = append(b, `,"keys":[`...)
	for i := range r.keys {
		k := &r.keys[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"id":"`...)
		b = append(b, k.ID...)
		b = append(b, `","alg":"`...)
		b = append(b, k.Alg...)
		b = append(b, `","role":"`...)
		b = append(b, k.Role...)
		b = append(b, `","principal":"`...)
		b = append(b, k.Principal...)
		b = append(b, '"')
		b = appendPatterns(b, `,"sources":[`, k.Sources)
		b = appendPatterns(b, `,"subjects":[`, k.Subjects)
		b = appendTime(b, `,"notBefore":"`, k.NotBefore)
		b = appendTime(b, `,"notAfter":"`, k.NotAfter)
		if !k.RevokedAt.IsZero() {
			b = appendTime(b, `,"revokedAt":"`, k.RevokedAt)
		}
		b = append(b, '}')
	}
	return append(b, "]}"...)
}

func appendTime(b []byte, member string, t time.Time) []byte {
	b = append(b, member...)
	b = t.AppendFormat(b, timeLayout)
	return append(b, '"')
}
