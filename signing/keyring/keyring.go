package keyring

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nkeys"
)

// Values of Key.Role.
const (
	RoleBroker   = "broker"   // attests events; nkeys type N (server) or A (account)
	RoleProducer = "producer" // signs its own events; nkeys type A or U; never a connection key
	// RoleRecipient is whom payloads are encrypted to (package payload); nkeys type X. It
	// signs nothing. Readers that do not know the role refuse a ring that has it.
	RoleRecipient = "recipient"
	RolePolicy    = "policy" // signs versions of the policy; nkeys type A; its Principal is tenant/name
)

// AlgEd25519 is the algorithm of every key that signs. A key of it verifies bare
// Ed25519 signatures and signatures of Merkle roots (merkle-ed25519); the two
// sign texts that cannot be confused, see docs/spec/envelope.md.
const AlgEd25519 = "ed25519"

// AlgX25519 is the algorithm of recipient keys, and of no other.
const AlgX25519 = "x25519"

// Limits of a ring. That of the document is met before that of the keys.
const (
	MaxKeys = 4096
	// MaxDocumentBytes bounds a signed document wherever one is signed, read, pushed, kept
	// or answered with. In base64 inside JSON it fits into every message of the broker.
	MaxDocumentBytes  = 512 << 10
	MaxPrincipalBytes = 256
	MaxVersion        = 1<<53 - 1 // every JSON reader holds it exactly
)

// HintBytes is the length of a key hint: the first bytes of the raw public key.
const HintBytes = 8

// Errors of this package. ErrInvalid covers every fault of New and every content
// fault of Parse.
var (
	ErrInvalid      = errors.New("keyring: invalid keyring")
	ErrMalformed    = errors.New("keyring: document is not in the one accepted encoding")
	ErrBadSignature = errors.New("keyring: document is not signed by the root key")
	ErrExpired      = errors.New("keyring: document has expired")
	ErrRollback     = errors.New("keyring: document is older than the one in use")
	ErrRootKey      = errors.New("keyring: root key is not an nkeys operator key")
)

// Key is one trusted public key. Times have a precision of one second.
type Key struct {
	ID        string    // nkeys public key, its prefix fits the role
	Alg       string    // AlgEd25519, of a recipient AlgX25519
	Role      string    // RoleBroker, RoleProducer, RoleRecipient or RolePolicy
	Principal string    // who holds it: a node name, or tenant/name; 1 to 256 bytes of A-Z a-z 0-9 . _ / : @ -
	NotBefore time.Time // first instant it may have signed at; required
	NotAfter  time.Time // first instant it may no longer have signed at; required, after NotBefore
	RevokedAt time.Time // zero: not revoked. What claims this instant or a later one is refused

	// What a producer key may sign, beside what its principal is granted; empty: that
	// alone bounds it. At most MaxPatterns each, none on a broker key. Sources are
	// exact or end in *, as in the policy; Subjects are NATS filters. A recipient has
	// Subjects, whose payloads it may read, and must name them; it has no Sources. A
	// Key that came out of ByHint or ByID shares its lists with the Ring: they must not
	// be changed.
	Sources, Subjects []string

	public [ed25519.PublicKeySize]byte // set by New
}

// Public returns the raw public key of a Key that came out of a Ring, nil of any
// other: of a recipient the X25519 one, with which nothing can be verified. The caller
// must not change it.
func (k *Key) Public() ed25519.PublicKey {
	if k.public == [ed25519.PublicKeySize]byte{} {
		return nil
	}
	return k.public[:]
}

// ValidAt reports whether k may have signed at t: NotBefore <= t < NotAfter and,
// for a revoked key, t < RevokedAt. A key that leaked must be revoked with a
// RevokedAt at its NotBefore: whoever holds it can claim any earlier time.
func (k *Key) ValidAt(t time.Time) bool {
	return !t.Before(k.NotBefore) && t.Before(k.NotAfter) && (k.RevokedAt.IsZero() || t.Before(k.RevokedAt))
}

// Ring is an immutable set of keys.
type Ring struct {
	version         uint64
	issued, expires time.Time
	keys            []Key // ascending by ID
	byHint          map[[HintBytes]byte]int
}

// New makes a ring. Version is 1 to MaxVersion; expires is after issued; at most
// MaxKeys keys, each raw public key and each hint once. Times are cut to whole
// seconds and taken to UTC; keys are copied and sorted.
//
// Errors: ErrInvalid, with all faults joined.
func New(version uint64, issued, expires time.Time, keys []Key) (*Ring, error) {
	r := &Ring{
		version: version, issued: second(issued), expires: second(expires),
		keys:   slices.Clone(keys),
		byHint: make(map[[HintBytes]byte]int, len(keys)),
	}
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...))
	}
	if version == 0 || version > MaxVersion {
		fault("version %d is outside 1 to %d", version, uint64(MaxVersion))
	}
	if !writable(r.issued) || !writable(r.expires) || !r.issued.Before(r.expires) {
		fault("issued must be before expires, both within the years 1 to 9999")
	}
	if len(keys) > MaxKeys {
		fault("%d keys, limit %d", len(keys), MaxKeys)
		return nil, errors.Join(faults...)
	}
	slices.SortFunc(r.keys, func(a, b Key) int { return strings.Compare(a.ID, b.ID) })
	for i := range r.keys {
		k := &r.keys[i]
		if err := k.load(); err != nil {
			fault("key %q: %w", k.ID, err)
			continue
		}
		// One record per raw key: the same key under two prefixes could otherwise
		// hold two roles.
		if _, twice := r.byHint[k.hint()]; twice {
			fault("key %q: another key has the same first %d bytes", k.ID, HintBytes)
		}
		r.byHint[k.hint()] = i
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return r, nil
}

// load checks k's fields, brings its times to their written form and decodes the
// public key.
func (k *Key) load() error {
	raw, err := decodePublic(k.ID, prefixesOf(k.Role)...)
	if err != nil {
		return err
	}
	copy(k.public[:], raw)
	k.NotBefore, k.NotAfter = second(k.NotBefore), second(k.NotAfter)
	if !k.RevokedAt.IsZero() {
		k.RevokedAt = second(k.RevokedAt)
	}
	switch {
	case k.Alg != algOf(k.Role):
		return fmt.Errorf("algorithm %q, a key of role %s has %s", k.Alg, k.Role, algOf(k.Role))
	case !principalOK(k.Principal):
		return fmt.Errorf("principal %q is empty, too long or has a character that is not allowed", k.Principal)
	case !writable(k.NotBefore) || !writable(k.NotAfter) || !k.NotBefore.Before(k.NotAfter):
		return errors.New("notBefore must be before notAfter, both within the years 1 to 9999")
	case !k.RevokedAt.IsZero() && !writable(k.RevokedAt):
		return errors.New("revokedAt is outside the years 1 to 9999")
	}
	return k.loadPatterns()
}

func (k *Key) hint() [HintBytes]byte { return [HintBytes]byte(k.public[:HintBytes]) }

func prefixesOf(role string) []nkeys.PrefixByte {
	switch role {
	case RoleBroker:
		return []nkeys.PrefixByte{nkeys.PrefixByteServer, nkeys.PrefixByteAccount}
	case RoleProducer:
		return []nkeys.PrefixByte{nkeys.PrefixByteAccount, nkeys.PrefixByteUser}
	case RoleRecipient:
		return []nkeys.PrefixByte{nkeys.PrefixByteCurve}
	case RolePolicy:
		return []nkeys.PrefixByte{nkeys.PrefixByteAccount}
	}
	return nil
}

// decodePublic decodes an nkeys public key of one of the given types.
// nkeys.FromPublicKey is what refuses points of small order.
func decodePublic(id string, types ...nkeys.PrefixByte) ([]byte, error) {
	pair, err := nkeys.FromPublicKey(id)
	if err != nil {
		return nil, err
	}
	// base32 ignores line ends and nkeys ignores spare bits, so a key has other
	// spellings; only the one that nkeys writes is accepted.
	if text, err := pair.PublicKey(); err != nil || text != id {
		return nil, nkeys.ErrInvalidPublicKey
	}
	prefix := nkeys.Prefix(id)
	if !slices.Contains(types, prefix) {
		return nil, fmt.Errorf("a key of type %s cannot have this role", prefix)
	}
	raw, err := nkeys.Decode(prefix, []byte(id))
	if err == nil && prefix == nkeys.PrefixByteCurve {
		err = checkCurvePoint(raw)
	}
	return raw, err
}

func principalOK(p string) bool {
	for i := range len(p) {
		c := p[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("._/:@-", rune(c)) {
			return false
		}
	}
	return len(p) > 0 && len(p) <= MaxPrincipalBytes
}

func second(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

func writable(t time.Time) bool { return !t.IsZero() && t.Year() >= 1 && t.Year() <= 9999 }

// ByHint returns the keys whose raw public key starts with hint: none or one. The
// slice is a view into the ring and must not be changed. It does not allocate.
func (r *Ring) ByHint(hint [HintBytes]byte) []Key {
	i, ok := r.byHint[hint]
	if !ok {
		return nil
	}
	return r.keys[i : i+1 : i+1]
}

// ByID returns the key with this nkeys public key.
func (r *Ring) ByID(id string) (Key, bool) {
	i, ok := slices.BinarySearchFunc(r.keys, id, func(k Key, id string) int { return strings.Compare(k.ID, id) })
	if !ok {
		return Key{}, false
	}
	return r.keys[i], true
}

// Keys returns a copy of the keys and their lists, ascending by ID.
func (r *Ring) Keys() []Key {
	keys := make([]Key, len(r.keys))
	for i := range r.keys {
		keys[i] = r.keys[i].clone()
	}
	return keys
}

// Version returns the version, which grows with every change.
func (r *Ring) Version() uint64 { return r.version }

// Issued returns when the ring was made.
func (r *Ring) Issued() time.Time { return r.issued }

// Expires returns the first instant at which the ring must no longer be used.
func (r *Ring) Expires() time.Time { return r.expires }

// Replaces reports whether r may take the place of old (nil: none): its version
// is higher, or it is the same ring. Otherwise ErrRollback.
func (r *Ring) Replaces(old *Ring) error {
	if old == nil || r.version > old.version || string(r.payload()) == string(old.payload()) {
		return nil
	}
	return fmt.Errorf("%w: version %d offered, %d in use", ErrRollback, r.version, old.version)
}
