package integrity

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"strconv"

	"github.com/minio/highwayhash"
)

// A record, little endian: length of all (4, high bit: there are headers), sequence
// (8, high bits: erased, tombstone), time (8), length of the subject (2), subject,
// [length of headers (4), headers,] payload, hash (8). The hash is keyed by stream and
// block number and covers sequence to the end without the three lengths: a block in
// another's place fails, but a flipped length of subject or headers can pass. So these
// are judged by what they must delimit.
const (
	recordHead = 22
	hashSize   = 8
	emptySize  = recordHead + hashSize
	maxRecord  = 32 << 20 // nats-server takes a longer one for damage

	headerBit    = 1 << 31
	erasedBit    = 1 << 63
	tombstoneBit = 1 << 62
	seqMask      = tombstoneBit - 1
)

var (
	headerStart = []byte("NATS/1.0")
	headerEnd   = []byte("\r\n\r\n")
)

type record struct {
	seq    uint64
	ts     int64
	size   int
	erased bool // or skipped: it holds a sequence and no message
	tomb   bool // says that another sequence was deleted
}

// hasher verifies the records of one block. It is not safe for concurrent use.
type hasher struct {
	h   *highwayhash.Digest64
	sum [hashSize]byte
	// raft: a Raft log, whose records have neither subject nor headers.
	raft bool
}

func newHasher(key string, raft bool) (*hasher, error) {
	k := sha256.Sum256([]byte(key))
	h, err := highwayhash.NewDigest64(k[:])
	if err != nil {
		return nil, err
	}
	return &hasher{h: h, raft: raft}, nil
}

func blockKey(store string, index uint32) string {
	return store + "-" + strconv.FormatUint(uint64(index), 10)
}

// lengths reads the frame of the record at the start of b and reports whether it can
// be one. size is set whenever four bytes are there.
func lengths(b []byte) (size, subject int, headers, ok bool) {
	if len(b) < 4 {
		return 0, 0, false, false
	}
	rl := binary.LittleEndian.Uint32(b)
	headers = rl&headerBit != 0
	size = int(rl &^ headerBit)
	if len(b) < recordHead || size < emptySize || size > maxRecord {
		return size, 0, headers, false
	}
	subject = int(binary.LittleEndian.Uint16(b[20:]))
	need := subject
	if headers {
		need += 4
	}
	return size, subject, headers, need <= size-emptySize && size <= len(b)
}

// read verifies the record at the start of b. kind is "" if it is sound.
func (h *hasher) read(b []byte) (record, Kind) {
	size, slen, headers, ok := lengths(b)
	if !ok {
		return record{}, KindStructure
	}
	body := b[recordHead : size-hashSize]
	if !h.matches(b[:size], slen, headers) {
		return record{}, KindChecksum
	}
	raw := binary.LittleEndian.Uint64(b[4:])
	r := record{
		seq: raw & seqMask, ts: int64(binary.LittleEndian.Uint64(b[12:])), size: size,
		erased: raw&erasedBit != 0 || raw&seqMask == 0, tomb: raw&tombstoneBit != 0,
	}
	if r.erased || r.tomb {
		return r, "" // random bytes, or none
	}
	if !h.shape(body, slen, headers) {
		return r, KindStructure
	}
	return r, ""
}

// matches reports whether the record's hash is right; b is exactly one record.
func (h *hasher) matches(b []byte, slen int, headers bool) bool {
	body, end := b[recordHead:len(b)-hashSize], slen
	h.h.Reset()
	_, _ = h.h.Write(b[4:20])
	_, _ = h.h.Write(body[:slen])
	if headers {
		end += 4
	}
	_, _ = h.h.Write(body[end:])
	return bytes.Equal(h.h.Sum(h.sum[:0]), b[len(b)-hashSize:])
}

// shape judges what the hash does not cover: where the subject ends, and where the headers do.
func (h *hasher) shape(body []byte, slen int, headers bool) bool {
	if h.raft {
		return slen == 0 && !headers
	}
	if !literalSubject(body[:slen]) {
		return false
	}
	if !headers {
		return true
	}
	hlen := uint64(binary.LittleEndian.Uint32(body[slen:]))
	rest := body[slen+4:]
	if hlen > uint64(len(rest)) {
		return false
	}
	// A header block ends at its first empty line, so exactly one length is right.
	return bytes.HasPrefix(rest, headerStart) && uint64(bytes.Index(rest, headerEnd)+len(headerEnd)) == hlen
}

func literalSubject(s []byte) bool {
	if len(s) == 0 || s[0] == '.' || s[len(s)-1] == '.' {
		return false
	}
	for i, c := range s {
		if c <= ' ' || c == 0x7f || c == '.' && s[i-1] == '.' {
			return false
		}
	}
	return true
}
