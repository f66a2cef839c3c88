package signing

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"

	"github.com/signetbus/signet/internal/cloudevent"
)

// LogOriginPrefix begins the first line of every checkpoint of a log. A key of a
// broker also signs events ("DSSEv1 "), trees of events ("signet/merkle-ed25519/v1")
// and node tokens ("signet/node/v1"): no text of one kind begins like one of another,
// so no signature passes for another.
const LogOriginPrefix = "signet/log/v1/"

// ErrNote: a text that is no checkpoint's was to be signed as one.
var ErrNote = errors.New("signing: not the text of a checkpoint")

// SignNote signs the text of a checkpoint of the log (C2SP signed note: the bytes are
// signed as they are). It signs nothing else.
//
// Errors: ErrNote.
func (s *Signer) SignNote(text []byte) ([]byte, error) {
	if !bytes.HasPrefix(text, []byte(LogOriginPrefix)) || !bytes.HasSuffix(text, []byte("\n")) {
		return nil, ErrNote
	}
	return ed25519.Sign(s.private, text), nil
}

// Public returns the raw public key. The caller owns it.
func (s *Signer) Public() ed25519.PublicKey {
	return append(ed25519.PublicKey(nil), s.private[ed25519.SeedSize:]...)
}

// Hasher computes what the log keeps of an event: the SHA-256 of the bytes that its
// attestation signs. The zero value works; it is reusable and not safe for concurrent
// use.
type Hasher struct{ d digester }

// Sum returns SHA-256 of the PAE of e as published on natsSubject. It verifies no
// signature. e must be complete (see Restore).
//
// Errors: ErrMalformed.
func (h *Hasher) Sum(e *cloudevent.Event, natsSubject []byte) ([sha256.Size]byte, error) {
	if _, err := h.d.digest(e, natsSubject); err != nil {
		return [sha256.Size]byte{}, err
	}
	return sha256.Sum256(h.d.pae[1:]), nil
}
