package payload

import (
	"encoding/binary"
	"fmt"
)

// The frame: version, nonce, ciphertext with tag. In clear, the ciphertext is the
// length of the content type, the content type, and the data.
const (
	frameVersion = 1
	nonceBytes   = 12
	tagBytes     = 16
	lengthBytes  = 2
	headBytes    = 1 + nonceBytes

	// Overhead is what a frame is longer than content type and data together.
	Overhead = headBytes + lengthBytes + tagBytes
)

// maxContentType bounds the content type inside a frame.
const maxContentType = 1024

// Bound is what a ciphertext is bound to beside its key: it opens for these values and
// no others.
type Bound struct {
	Principal   string // tenant/name that publishes
	NATSSubject string // that the event is published on
	Source      string
	ID          string
	Type        string
}

// appendAAD appends the additional data: version, then key id, principal, subject,
// source, id and type, each after its length.
func (b *Bound) appendAAD(dst []byte, keyID string) []byte {
	dst = append(dst, frameVersion)
	for _, s := range [...]string{keyID, b.Principal, b.NATSSubject, b.Source, b.ID, b.Type} {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(s)))
		dst = append(dst, s...)
	}
	return dst
}

func (b *Bound) aadBytes(keyID string) int {
	return 1 + 6*4 + len(keyID) + len(b.Principal) + len(b.NATSSubject) + len(b.Source) + len(b.ID) + len(b.Type)
}

// Encrypt returns the frame of an event. data is neither changed nor kept. No two
// frames of a key have the same nonce, whoever calls.
//
// Errors: ErrSpent, ErrContentType.
func (k *Key) Encrypt(b Bound, contentType string, data []byte) ([]byte, error) {
	if len(contentType) > maxContentType {
		return nil, ErrContentType
	}
	n := k.used.Add(1)
	if n > MaxEvents {
		k.used.Store(MaxEvents + 1) // never comes round
		return nil, ErrSpent
	}
	// The additional data lies behind the frame, in the same memory.
	size := Overhead + len(contentType) + len(data)
	buf := make([]byte, headBytes, size+b.aadBytes(k.id))
	buf[0] = frameVersion
	binary.BigEndian.PutUint64(buf[headBytes-8:], n)
	buf = binary.BigEndian.AppendUint16(buf, uint16(len(contentType)))
	buf = append(buf, contentType...)
	buf = append(buf, data...)
	aad := b.appendAAD(buf[size:size], k.id)
	k.aead.Seal(buf[:headBytes], buf[1:headBytes], buf[headBytes:], aad)
	return buf[:size:size], nil
}

// CheckFrame reports whether data has the head and the least length of a frame. It
// tells nothing about what is inside. Errors: ErrFrame.
func CheckFrame(data []byte) error {
	switch {
	case len(data) < Overhead:
		return fmt.Errorf("%w: %d bytes, at least %d are wanted", ErrFrame, len(data), Overhead)
	case data[0] != frameVersion:
		return fmt.Errorf("%w: version %d", ErrFrame, data[0])
	}
	return nil
}

// Decrypt returns what Encrypt was given, in memory of its own.
//
// Errors: ErrFrame, ErrAltered.
func (k *Key) Decrypt(b Bound, frame []byte) (contentType string, data []byte, err error) {
	if err := CheckFrame(frame); err != nil {
		return "", nil, err
	}
	size := len(frame) - headBytes - tagBytes
	buf := make([]byte, size, size+b.aadBytes(k.id))
	aad := b.appendAAD(buf[size:size], k.id)
	clear, err := k.aead.Open(buf[:0:size], frame[1:headBytes], frame[headBytes:], aad)
	if err != nil {
		return "", nil, ErrAltered // the cause says nothing more
	}
	n := int(binary.BigEndian.Uint16(clear))
	if n > maxContentType || n > len(clear)-lengthBytes {
		return "", nil, fmt.Errorf("%w: content type of %d bytes", ErrFrame, n)
	}
	rest := clear[lengthBytes:]
	return string(rest[:n]), rest[n:len(rest):len(rest)], nil
}
