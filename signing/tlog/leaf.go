package tlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
)

// Hash is a SHA-256.
type Hash = tlog.Hash

// Kind says what a leaf stands for.
type Kind byte

const (
	// Absent: the stream held no message of this log at the sequence when the log
	// reached it.
	Absent Kind = 0
	// Event: an attested CloudEvent in binary mode.
	Event Kind = 1
	// Message: anything else that is stored, byte for byte.
	Message Kind = 2
)

// leafVersion is the first byte of every leaf.
const leafVersion = 0x01

// leafBytes is the length of the record of an event or a message.
const leafBytes = 2 + 8 + 8 + 3*sha256.Size

// Leaf is what the log keeps of one sequence of a stream.
type Leaf struct {
	Kind     Kind
	Sequence uint64
	Stored   int64 // JetStream's time of storing, nanoseconds since 1970
	// Content of an event is SHA-256 of what its attestation signs; of a message,
	// SHA-256 of the subject.
	Content Hash
	// Proof of an event is SHA-256 of its signatures: attestation, dssematerial and
	// the expanded form of the attestation, each behind its length; of a message,
	// SHA-256 of the payload.
	Proof Hash
	// Headers of an event is SHA-256 of the headers that are no attributes; of a
	// message, SHA-256 of the header block.
	Headers Hash
}

// AppendBinary appends the record of l. The absent leaf is the same at each sequence:
// its place in the tree says which it is.
func (l *Leaf) AppendBinary(dst []byte) []byte {
	dst = append(dst, leafVersion, byte(l.Kind))
	if l.Kind == Absent {
		return dst
	}
	dst = binary.BigEndian.AppendUint64(dst, l.Sequence)
	dst = binary.BigEndian.AppendUint64(dst, uint64(l.Stored))
	dst = append(dst, l.Content[:]...)
	dst = append(dst, l.Proof[:]...)
	return append(dst, l.Headers[:]...)
}

// Hash returns the leaf hash of RFC 6962: SHA-256 of 0x00 and the record.
func (l *Leaf) Hash() Hash {
	var b [1 + leafBytes]byte
	return sha256.Sum256(l.AppendBinary(b[:1]))
}

// absent is the leaf hash of an absent sequence.
var absent = (&Leaf{}).Hash()

// AbsentHash returns the leaf hash of a sequence without a message.
func AbsentHash() Hash { return absent }

// Hasher makes leaves. The zero value works. It keeps no reference to its arguments
// and belongs to one goroutine.
type Hasher struct {
	pae     signing.Hasher
	list    []wire.Header
	headers wire.Headers
	event   cloudevent.Event
	scratch cloudevent.Scratch
	buf     []byte
}

// Stored returns the leaf of a message as a stream holds it: block is the whole header
// block, empty for a message without headers. Every message has a leaf: what is not an
// attested event is taken byte for byte.
func (h *Hasher) Stored(seq uint64, stored int64, natsSubject string, block, data []byte) Leaf {
	if e, ok := h.decode(block, data); ok {
		if l, err := h.OfEvent(seq, stored, e, natsSubject, h.otherHeaders()); err == nil {
			return l
		}
	}
	return Leaf{
		Kind: Message, Sequence: seq, Stored: stored,
		Content: sha256.Sum256([]byte(natsSubject)), Proof: sha256.Sum256(data), Headers: sha256.Sum256(block),
	}
}

// OfEvent returns the leaf of an event that is complete (signing.Restore); headers is
// the digest of its other headers.
//
// Errors: signing.ErrMalformed.
func (h *Hasher) OfEvent(seq uint64, stored int64, e *cloudevent.Event, natsSubject string, headers Hash) (Leaf, error) {
	h.buf = append(h.buf[:0], natsSubject...)
	content, err := h.pae.Sum(e, h.buf)
	if err != nil {
		return Leaf{}, fmt.Errorf("tlog: %w", err)
	}
	h.buf = appendText(h.buf[:0], e.Get(wire.AttrAttestation))
	h.buf = appendText(h.buf, e.Get(wire.AttrDSSE))
	h.buf = appendText(h.buf, e.Get(wire.AttrExpanded))
	return Leaf{
		Kind: Event, Sequence: seq, Stored: stored,
		Content: content, Proof: sha256.Sum256(h.buf), Headers: headers,
	}, nil
}

// Decode reads an attested event as a stream holds it, completed, and the digest of its
// other headers. ok is false for what has a leaf of the kind Message. The event has
// views into block, data and h.
func (h *Hasher) Decode(natsSubject string, block, data []byte) (e *cloudevent.Event, headers Hash, ok bool) {
	e, ok = h.decode(block, data)
	if !ok {
		return nil, Hash{}, false
	}
	h.buf = append(h.buf[:0], natsSubject...)
	if _, err := h.pae.Sum(e, h.buf); err != nil {
		return nil, Hash{}, false
	}
	return e, h.otherHeaders(), true
}

func (h *Hasher) decode(block, data []byte) (*cloudevent.Event, bool) {
	var ok bool
	if h.list, ok = split(h.list[:0], block); !ok || len(h.list) == 0 {
		return nil, false
	}
	e := &h.event
	if len(h.list) <= len(h.headers.List) {
		h.headers.N = copy(h.headers.List[:], h.list)
		if e.FromHeaders(&h.headers, data, &h.scratch) != nil {
			return nil, false
		}
	} else {
		named := make(map[string][]string, len(h.list))
		for _, l := range h.list {
			named[string(l.Name)] = append(named[string(l.Name)], string(l.Value))
		}
		if e.FromHeaderMap(named, data) != nil {
			return nil, false
		}
	}
	if len(e.Get(wire.AttrAttestation)) == 0 || !h.canonical() {
		return nil, false
	}
	signing.Restore(e)
	return e, true
}

// canonical says whether the attributes are percent-encoded as brokers write them, with
// upper-case digits: else a changed letter would leave the leaf as it was.
func (h *Hasher) canonical() bool {
	for i := range h.list {
		v := h.list[i].Value
		for at := bytes.IndexByte(v, '%'); at >= 0 && wire.HasPrefixFold(h.list[i].Name, wire.PrefixAttribute); at = bytes.IndexByte(v, '%') {
			if at+2 >= len(v) || v[at+1] >= 'a' || v[at+2] >= 'a' {
				return false
			}
			v = v[at+3:]
		}
	}
	return true
}

// otherHeaders returns the digest of the headers that are not attributes, as they
// stand: names and values, each behind its length.
func (h *Hasher) otherHeaders() Hash {
	h.buf = h.buf[:0]
	for i := range h.list {
		if wire.HasPrefixFold(h.list[i].Name, wire.PrefixAttribute) {
			continue
		}
		h.buf = appendText(h.buf, h.list[i].Name)
		h.buf = appendText(h.buf, h.list[i].Value)
	}
	if len(h.buf) == 0 {
		return noHeaders
	}
	return sha256.Sum256(h.buf)
}

// split cuts a header block into lines, appended to list as views of block. It is no
// validator: whoever let the message in was.
func split(list []wire.Header, block []byte) ([]wire.Header, bool) {
	rest, ok := bytes.CutPrefix(block, []byte(wire.HeaderLine))
	for ok {
		var line []byte
		if line, rest, ok = cutLine(rest); !ok {
			break
		}
		if len(line) == 0 {
			return list, len(rest) == 0
		}
		var l wire.Header
		if l.Name, l.Value, ok = cutHeader(line); ok {
			list = append(list, l)
		}
	}
	return list, false
}

// appendText appends a length of four bytes, big endian, and the text.
func appendText(dst, text []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(text)))
	return append(dst, text...)
}
