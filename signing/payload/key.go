package payload

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"sync/atomic"
)

// MaxEvents is how many events one key encrypts. The nonce is a counter, which never
// comes near its end; the limit bounds what one key that leaks gives away.
const MaxEvents = 1 << 32

// KeyIDLength is the length of a key id: 32 bytes in base32.
const KeyIDLength = 52

// keyBytes is the length of an AES-256 key.
const keyBytes = 32

// keyDomain comes before the key in the digest that is its id.
const keyDomain = "signet-enc-v1\x00"

// Errors of keys and frames. ErrAltered covers every failure of the decryption itself.
var (
	ErrSpent       = errors.New("payload: the key has encrypted as many events as it may: begin a new epoch")
	ErrKeyID       = errors.New("payload: the key id is not 52 characters of a-z 2-7, or not that of the key")
	ErrFrame       = errors.New("payload: the data is not an encrypted payload of version 1")
	ErrAltered     = errors.New("payload: the encrypted payload was altered, or belongs to another event or subject")
	ErrContentType = errors.New("payload: the content type is longer than 1024 bytes")
)

// keyText is lower-case base32: fit for subjects, and without the letter N
// (docs/adr/0005-attestation-text.md).
var keyText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Key encrypts, or decrypts, the events of one epoch. The bytes of the key are not kept
// beside the cipher.
type Key struct {
	id   string
	aead cipher.AEAD
	used atomic.Uint64 // nonces given out
}

func newKey(raw []byte) (*Key, error) {
	if len(raw) != keyBytes {
		return nil, fmt.Errorf("%w: %d bytes", ErrKeyID, len(raw))
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &Key{id: idOf(raw), aead: aead}, nil
}

// idOf commits to the key: 256 bits, since whoever makes two keys with one id shows
// two recipients two payloads in one signed event.
func idOf(raw []byte) string {
	h := sha256.New()
	h.Write([]byte(keyDomain))
	h.Write(raw)
	return keyText.EncodeToString(h.Sum(nil))
}

// ID returns the key id.
func (k *Key) ID() string { return k.id }

// Used returns how many events the key has encrypted.
func (k *Key) Used() uint64 { return k.used.Load() }

// CheckKeyID reports whether id has the one form of a key id. Errors: ErrKeyID. It does
// not allocate where the id is good.
func CheckKeyID[T string | []byte](id T) error {
	if len(id) != KeyIDLength {
		return ErrKeyID
	}
	for i := range len(id) {
		if c := id[i]; (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return ErrKeyID
		}
	}
	// 52 characters have 260 bits: the last four are spare, so the last one is a or q.
	if last := id[KeyIDLength-1]; last != 'a' && last != 'q' {
		return ErrKeyID
	}
	return nil
}
