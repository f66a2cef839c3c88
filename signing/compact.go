package signing

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"

	"github.com/signetbus/signet/signing/keyring"
)

// The first byte of a compact attestation: format version 1 in the high half, the
// kind of signature in the low half.
const (
	kindSingle = 0x10 // Ed25519 over the PAE of the event
	kindMerkle = 0x11 // Ed25519 over the note of a Merkle root
)

// Lengths of the binary form; docs/spec/envelope.md has the byte table.
const (
	singleBytes   = 1 + keyring.HintBytes + ed25519.SignatureSize
	merkleBytes   = 1 + keyring.HintBytes + 2 + ed25519.SignatureSize // without the path
	maxCompact    = merkleBytes + maxPath*sumBytes
	maxCompactB64 = (maxCompact*8 + 5) / 6
)

// MaxAttestationBytes is the length of the longest attestation text.
const MaxAttestationBytes = maxCompactB64

// compact is a decoded attestation. Size 1 is a bare signature; its path is empty.
type compact struct {
	hint        [keyring.HintBytes]byte
	index, size int
	path        []byte // views of the buffer it was parsed into
	sig         []byte
}

// appendBinary appends the binary form; the hint is left out for the sig of a
// DSSE envelope, which names its key.
func (c *compact) appendBinary(dst []byte, withHint bool) []byte {
	kind := byte(kindMerkle)
	if c.size == 1 {
		kind = kindSingle
	}
	dst = append(dst, kind)
	if withHint {
		dst = append(dst, c.hint[:]...)
	}
	if kind == kindMerkle {
		dst = append(dst, byte(c.index), byte(c.size))
	}
	dst = append(dst, c.path...)
	return append(dst, c.sig...)
}

// appendText appends the text of the attestation attribute.
func (c *compact) appendText(dst []byte) []byte {
	var b [maxCompact]byte
	return textEncoding.AppendEncode(dst, c.appendBinary(b[:0], true))
}

// textEncoding is base64url (RFC 4648 section 5) without padding, with "." in the
// place of "N". nats-server looks for some twenty names that start with N in the
// headers of every message, and each N elsewhere makes it stop and look (ADR 0005).
var textEncoding = base64.NewEncoding("ABCDEFGHIJKLM.OPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_").
	WithPadding(base64.NoPadding).Strict()

// hasLineEnd is bytes.ContainsAny of "\r\n", which takes a tenth of a verification.
func hasLineEnd(text []byte) bool {
	return bytes.IndexByte(text, '\n') >= 0 || bytes.IndexByte(text, '\r') >= 0
}

// parseText decodes an attestation into buf. Each attestation has exactly one
// text: textEncoding without line ends, with zero spare bits.
func parseText(text []byte, buf *[maxCompact]byte) (compact, error) {
	if len(text) > maxCompactB64 {
		return compact{}, fmt.Errorf("%w: attestation of %d bytes, limit %d", ErrMalformed, len(text), maxCompactB64)
	}
	if hasLineEnd(text) { // the decoder would skip them
		return compact{}, fmt.Errorf("%w: attestation is not in its alphabet", ErrMalformed)
	}
	n, err := textEncoding.Decode(buf[:], text)
	if err != nil {
		return compact{}, fmt.Errorf("%w: attestation is not in its alphabet", ErrMalformed)
	}
	b := buf[:n]
	if n < singleBytes {
		return compact{}, fmt.Errorf("%w: attestation is cut", ErrMalformed)
	}
	c := compact{hint: [keyring.HintBytes]byte(b[1:]), size: 1}
	switch b[0] {
	case kindSingle:
		if n != singleBytes {
			return compact{}, fmt.Errorf("%w: attestation has trailing bytes", ErrMalformed)
		}
		c.sig = b[1+keyring.HintBytes:]
		return c, nil
	case kindMerkle:
		return c, c.parseMerkle(b[1+keyring.HintBytes:])
	}
	return compact{}, fmt.Errorf("%w: unknown attestation kind %#02x", ErrMalformed, b[0])
}

// parseMerkle decodes index, size, path and root signature. It keeps views of b.
func (c *compact) parseMerkle(b []byte) error {
	if len(b) < 2 {
		return fmt.Errorf("%w: attestation is cut", ErrMalformed)
	}
	c.index, c.size = int(b[0]), int(b[1])
	if c.size < 2 || c.size > maxLeaves || c.index >= c.size {
		return fmt.Errorf("%w: leaf %d of %d", ErrMalformed, c.index, c.size)
	}
	end := 2 + sumBytes*pathLength(c.index, c.size)
	if len(b) != end+ed25519.SignatureSize {
		return fmt.Errorf("%w: attestation path has the wrong length", ErrMalformed)
	}
	c.path, c.sig = b[2:end], b[end:]
	return nil
}
