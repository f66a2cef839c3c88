package signing

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/signetbus/signet/signing/internal/dsse"
	"github.com/signetbus/signet/signing/keyring"
)

// PolicyType is the payload type of a signed version of the policy.
const PolicyType = "application/vnd.signet.policy.v1+json"

// Limits of a version of the policy.
const (
	MaxPolicyBytes     = 448 << 10 // of the envelope: the files are compressed in it
	MaxPolicyNoteBytes = 256
	MaxPolicyVersion   = 1<<53 - 1 // every JSON reader holds it exactly
)

// ErrPolicy: a document is no signed version of a policy, or one that may not be.
var ErrPolicy = errors.New("signing: not a signed version of a policy")

// PolicyVersion is what a holder of a key of the role policy signs: that this is the
// policy of the broker from now on.
type PolicyVersion struct {
	Version uint64 `json:"version"` // 1 or higher; more than that which it replaces
	// Broker is the name of the cluster, or of the broker, that it is for: one root key may
	// stand above several.
	Broker string `json:"broker"`
	// Digest is that of the policy in Files; empty: the files on the nodes hold again.
	Digest string    `json:"digest,omitempty"`
	Before string    `json:"before"` // digest of the policy that it replaces
	By     string    `json:"by"`     // tenant/name, the principal of the key
	Time   time.Time `json:"time"`   // when it was signed, whole seconds UTC
	Note   string    `json:"note,omitempty"`
	Files  []byte    `json:"files,omitempty"` // what policy.Pack has made
}

func (v *PolicyVersion) check() error {
	fault := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrPolicy}, args...)...)
	}
	switch {
	case v.Version == 0 || v.Version > MaxPolicyVersion:
		return fault("version %d", v.Version)
	case v.Broker == "" || v.Before == "":
		return fault("broker or before is missing")
	case !strings.Contains(v.By, "/"):
		return fault("by %q is not tenant/name", v.By)
	case (v.Digest == "") != (len(v.Files) == 0):
		return fault("digest and files go together")
	case len(v.Note) > MaxPolicyNoteBytes || strings.ContainsFunc(v.Note, func(r rune) bool { return r < ' ' }):
		return fault("the note has control characters, or over %d bytes", MaxPolicyNoteBytes)
	case v.Time.IsZero() || !v.Time.Equal(v.Time.Truncate(time.Second)) || v.Time.Location() != time.UTC:
		return fault("time is not in whole seconds UTC")
	}
	return nil
}

// SignPolicy returns the envelope of v, signed with the seed of a key of the role policy.
//
// Errors: ErrPolicy.
func (s *Signer) SignPolicy(v PolicyVersion) ([]byte, error) {
	v.Time = v.Time.UTC().Truncate(time.Second)
	if err := v.check(); err != nil {
		return nil, err
	}
	payload, err := json.Marshal(&v)
	if err != nil {
		return nil, err
	}
	doc, err := s.SignStatement(PolicyType, payload)
	if err == nil && len(doc) > MaxPolicyBytes {
		return nil, fmt.Errorf("%w: %d bytes when compressed and signed, limit %d", ErrPolicy, len(doc), MaxPolicyBytes)
	}
	return doc, err
}

// VerifyPolicy checks the envelope of a version of the policy: its form, its signature
// under a key of the role policy of ring, that the key is that of the principal it names,
// and that the key was valid when it says it was signed. Whether that time is now, and
// whether the version may replace another, is for the caller. The expiry of ring is not
// looked at: what was applied stays applied.
//
// Errors: ErrPolicy, ErrStatement, ErrNoKeyring, ErrUnknownKey, ErrKeyNotValid,
// ErrBadSignature.
func VerifyPolicy(doc []byte, ring *keyring.Ring) (*PolicyVersion, keyring.Key, error) {
	if len(doc) > MaxPolicyBytes {
		return nil, keyring.Key{}, fmt.Errorf("%w: %d bytes, limit %d", ErrPolicy, len(doc), MaxPolicyBytes)
	}
	payload, key, err := verifyStatement(doc, PolicyType, keyring.RolePolicy, ring)
	if err != nil {
		return nil, key, err
	}
	v, err := decodePolicy(payload)
	switch {
	case err != nil:
		return nil, key, err
	case key.Principal != v.By:
		return nil, key, fmt.Errorf("%w: %s is the key of %s, not of %s", ErrKeyNotValid, key.ID, key.Principal, v.By)
	case !key.ValidAt(v.Time):
		return nil, key, fmt.Errorf("%w: %s at %s", ErrKeyNotValid, key.ID, v.Time.Format(secondsLayout))
	}
	return v, key, nil
}

// decodePolicy reads a payload. Encoding it again must give the same bytes: so a member
// that is unknown, repeated, misplaced or written in another way is refused.
func decodePolicy(payload []byte) (*PolicyVersion, error) {
	v := new(PolicyVersion)
	if err := json.Unmarshal(payload, v); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	if err := v.check(); err != nil {
		return nil, err
	}
	again, err := json.Marshal(v)
	if err != nil || !bytes.Equal(again, payload) {
		return nil, fmt.Errorf("%w: the payload is not in the layout of docs/spec/policy.md", ErrPolicy)
	}
	return v, nil
}

// PeekPolicy reads a version of the policy without asking who signed it: for a copy that
// was verified when it was put away, and whose key the keyring may have lost since.
//
// Errors: ErrPolicy, ErrStatement.
func PeekPolicy(doc []byte) (*PolicyVersion, error) {
	if len(doc) > MaxPolicyBytes {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrPolicy, len(doc), MaxPolicyBytes)
	}
	env, err := dsse.Parse(doc)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStatement, err)
	}
	if env.PayloadType != PolicyType {
		return nil, fmt.Errorf("%w: payload type %q", ErrPolicy, env.PayloadType)
	}
	return decodePolicy(env.Payload)
}
