package signing

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/signing/keyring"
)

// Signer holds an attestation key. It never changes and may be shared. It prints
// as its key id.
type Signer struct {
	private ed25519.PrivateKey
	id      string
	hint    [keyring.HintBytes]byte
}

// NewSigner decodes an nkeys seed of type server ("SN...") or account ("SA...").
// User seeds are refused: the key of a connection must never sign events, because
// a server can have a client sign any nonce. The seed is not kept; the caller may
// wipe it.
//
// Errors: ErrSeed.
func NewSigner(seed []byte) (*Signer, error) {
	return newSigner(seed, ErrSeed, nkeys.PrefixByteServer, nkeys.PrefixByteAccount)
}

// newSigner decodes a seed of one of types. What it refuses wraps refused and never
// echoes what may be a secret.
func newSigner(seed []byte, refused error, types ...nkeys.PrefixByte) (*Signer, error) {
	prefix, raw, err := nkeys.DecodeSeed(seed)
	if err != nil || !slices.Contains(types, prefix) {
		return nil, refused
	}
	defer clear(raw)
	s := &Signer{private: ed25519.NewKeyFromSeed(raw)}
	public := s.private[ed25519.SeedSize:]
	id, err := nkeys.Encode(prefix, public)
	if err != nil || !nkeys.IsValidPublicKey(string(id)) {
		return nil, fmt.Errorf("%w: its public key is refused", refused)
	}
	s.id, s.hint = string(id), [keyring.HintBytes]byte(public)
	return s, nil
}

// KeyID returns the nkeys public key.
func (s *Signer) KeyID() string { return s.id }

// String returns the key id. It exists so that no log can print the private key.
func (s *Signer) String() string { return s.id }

// GoString is String.
func (s *Signer) GoString() string { return s.id }

// signedTree is one tree of a batch and the signature over its root (over the PAE
// of the event, if it has one leaf).
type signedTree struct {
	tree
	sig [ed25519.SignatureSize]byte
}

// Batch attests events. Use: Reset, Add for each event, Sign once, then
// AppendAttestation for each. It may be used again and again and then allocates
// nothing of its own; the zero value works. Not safe for concurrent use. It holds
// about 4 KiB, and 2.3 KiB per 32 events of the largest batch so far.
type Batch struct {
	d      digester
	trees  []signedTree // the last may be partly filled, all others have maxLeaves
	single []byte       // PAE of the first event of the last tree
	n      int
	hint   [keyring.HintBytes]byte
	signed bool
}

// Reset empties b and keeps its memory.
func (b *Batch) Reset() {
	b.trees = b.trees[:0]
	b.n, b.signed = 0, false
}

// Len returns the number of events added since Reset.
func (b *Batch) Len() int { return b.n }

// Add hashes e as published on natsSubject and returns its index. It keeps no
// reference to either. The attributes authid, authtype and recordedtime (see
// AppendRecordedTime) must be set, and e must not change between Add and the
// moment it is written; only attestation itself is set afterwards.
//
// It returns -1, and adds nothing, for an event that no verifier would accept: one
// that lacks id, source, type or one of the three; whose time or extension names
// could not pass Event.Validate (values are not looked at); or that has a
// dssematerial that is not in the form of one, an attestationmaterial, or a
// natssubject or exacttime other than what is signed under that name. The caller
// must refuse such an event; whether a dssematerial holds is the caller's to check.
func (b *Batch) Add(e *cloudevent.Event, natsSubject []byte) int {
	if _, err := b.d.digest(e, natsSubject); err != nil {
		return -1
	}
	slot := b.n % maxLeaves
	if slot == 0 {
		b.grow()
		b.single = append(b.single[:0], b.d.pae[1:]...)
	}
	t := &b.trees[len(b.trees)-1]
	t.nodes[slot] = sha256.Sum256(b.d.pae)
	t.n = slot + 1
	b.n++
	b.signed = false
	return b.n - 1
}

// grow appends one tree, without clearing it: n says what counts.
func (b *Batch) grow() {
	if len(b.trees) < cap(b.trees) {
		b.trees = b.trees[:len(b.trees)+1]
		return
	}
	b.trees = append(b.trees, signedTree{})
}

// Sign makes one Ed25519 signature per tree of up to 32 events.
func (b *Batch) Sign(s *Signer) {
	var note [maxNote]byte
	for i := range b.trees {
		t := &b.trees[i]
		text := b.single
		if t.n > 1 {
			text = appendNote(note[:0], t.n, t.build())
		}
		copy(t.sig[:], ed25519.Sign(s.private, text))
	}
	b.hint, b.signed = s.hint, true
}

// AppendAttestation appends the value of the attestation attribute of event i, at
// most MaxAttestationBytes. It panics if i is no index that Add returned since
// Reset, or if Sign was not called after the last Add.
func (b *Batch) AppendAttestation(dst []byte, i int) []byte {
	if !b.signed || i < 0 || i >= b.n {
		panic("signing: AppendAttestation of an event that was not added and signed")
	}
	t := &b.trees[i/maxLeaves]
	var path [maxPath * sumBytes]byte
	c := compact{hint: b.hint, index: i % maxLeaves, size: t.n, sig: t.sig[:]}
	c.path = t.appendPath(path[:0], c.index)
	return c.appendText(dst)
}
