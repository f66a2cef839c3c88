package tlog

import (
	"bytes"
	"crypto/sha256"

	"github.com/signetbus/signet/internal/wire"
)

// Lines that hold a signature, as brokers write them. What begins alike in any other
// form is left to Stored.
const (
	lineAttestation = wire.PrefixAttribute + wire.AttrAttestation
	lineDSSE        = wire.PrefixAttribute + wire.AttrDSSE
)

// noHeaders is the digest of no other headers, which most events have.
var noHeaders = sha256.Sum256(nil)

// StoredAs is Stored for a message of which the caller knows the content: that Stored
// would find an event there, and what it would compute as Leaf.Content, by far the most
// of its work. The caller vouches for that for exactly these bytes of subject, block and
// data; the signatures and the other headers are read from the bytes all the same. A
// content that is not that of the bytes makes a leaf that no reader can make again, so
// whoever cannot vouch calls Stored.
func (h *Hasher) StoredAs(seq uint64, stored int64, natsSubject string, block, data []byte, content Hash) Leaf {
	if proof, headers, ok := h.unsigned(block); ok {
		return Leaf{Kind: Event, Sequence: seq, Stored: stored, Content: content, Proof: proof, Headers: headers}
	}
	return h.Stored(seq, stored, natsSubject, block, data)
}

// unsigned returns the digests of what an attestation does not cover: the signatures and
// the other headers. ok is false for a block that is not as brokers write it.
func (h *Hasher) unsigned(block []byte) (proof, headers Hash, ok bool) {
	var attestation, dsse []byte
	h.buf = h.buf[:0]
	rest, ok := bytes.CutPrefix(block, []byte(wire.HeaderLine))
	for ok {
		var line []byte
		if line, rest, ok = cutLine(rest); !ok {
			break
		}
		switch {
		case len(line) == 0:
			if len(rest) > 0 || attestation == nil {
				return proof, headers, false
			}
			headers = noHeaders
			if len(h.buf) > 0 {
				headers = sha256.Sum256(h.buf)
			}
			h.buf = appendText(h.buf[:0], attestation)
			h.buf = appendText(h.buf, dsse)
			h.buf = appendText(h.buf, nil)
			return sha256.Sum256(h.buf), headers, true
		case !wire.HasPrefixFold(line, wire.PrefixAttribute):
			var name, value []byte
			if name, value, ok = cutHeader(line); ok {
				h.buf = appendText(h.buf, name)
				h.buf = appendText(h.buf, value)
			}
		case wire.HasPrefixFold(line, lineAttestation):
			ok = takeSignature(&attestation, line, lineAttestation)
		case wire.HasPrefixFold(line, lineDSSE):
			ok = takeSignature(&dsse, line, lineDSSE)
		}
	}
	return proof, headers, false
}

// takeSignature reads the value of a line into v, where there is none yet. Its value
// stands as it is: what is percent-encoded needs the decoder.
func takeSignature(v *[]byte, line []byte, name string) bool {
	value, ok := bytes.CutPrefix(line[len(name):], []byte(": "))
	if !ok || *v != nil || len(value) == 0 || string(line[:len(name)]) != name || bytes.IndexByte(value, '%') >= 0 {
		return false
	}
	*v = value
	return true
}

// cutLine cuts a header block after its first line.
func cutLine(block []byte) (line, rest []byte, ok bool) {
	end := bytes.IndexByte(block, '\r')
	if end < 0 || end+1 >= len(block) || block[end+1] != '\n' {
		return nil, nil, false
	}
	return block[:end], block[end+2:], true
}

// cutHeader cuts a line into name and value, without the one space that servers write
// before the value.
func cutHeader(line []byte) (name, value []byte, ok bool) {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		return nil, nil, false
	}
	value = line[colon+1:]
	if len(value) > 0 && value[0] == ' ' {
		value = value[1:]
	}
	return line[:colon:colon], value[:len(value):len(value)], true
}
