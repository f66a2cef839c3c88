package integrity

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/s2"
)

const (
	// maxBlock bounds what is read of one block: nats-server's are at most 8 MiB and
	// one record of at most 32 MiB.
	maxBlock = 64 << 20
	// tornWindow: with the durability barrier, what was written within this time before
	// a power cut may not have been acknowledged.
	tornWindow = 30 * time.Second
	// maxFaults bounds the damage that is listed of one block.
	maxFaults = 16
	sector    = 512
)

// tail says how the last block of a store may end.
type tail struct {
	last     bool // it is the last block
	clean    bool // the server was stopped in order: nothing may be torn
	powerCut bool // the machine may have lost power: pages of the tail may be zero
	lazy     bool // and not only the very last record, since several share a sync
}

// gap is a run of sequences without a record.
type gap struct {
	Offset   int64  `json:"o,omitempty"`
	From, To uint64 `json:",omitempty"`
	// Closed by a tombstone at its end: nats-server leaves that where it moved on
	// from a tail that a power cut had taken.
	Closed bool `json:"c,omitempty"`
}

// blockSummary is what later checks need of a block that was verified.
type blockSummary struct {
	First    uint64 `json:"f,omitempty"` // first and last sequence that has a record, erased or not
	Last     uint64 `json:"l,omitempty"`
	Messages uint64 `json:"n,omitempty"`
	FirstTS  int64  `json:"ft,omitempty"`
	LastTS   int64  `json:"lt,omitempty"`
	LeadTomb uint64 `json:"lead,omitempty"` // highest tombstone before the first record
	MaxTomb  uint64 `json:"tomb,omitempty"`
	Gaps     []gap  `json:"g,omitempty"` // at most maxFaults
}

type blockScan struct {
	blockSummary
	faults []Damage
	torn   int // bytes at the end that an interrupted append has left
}

func (s *blockScan) fault(d Damage) {
	if len(s.faults) < maxFaults {
		s.faults = append(s.faults, d)
	}
}

// take enters a sound record.
func (s *blockScan) take(r record, offset int) {
	switch {
	case r.tomb:
		s.MaxTomb = max(s.MaxTomb, r.seq)
		if s.Last == 0 {
			s.LeadTomb = max(s.LeadTomb, r.seq)
		}
		return
	case r.seq == 0:
		return // erased by a server of old
	case r.seq <= s.Last:
		s.fault(Damage{Kind: KindOrder, Offset: int64(offset), From: r.seq, To: r.seq, Detail: fmt.Sprintf("after sequence %d", s.Last)})
		return
	}
	if s.Last > 0 && r.seq > s.Last+1 && len(s.Gaps) < maxFaults {
		s.Gaps = append(s.Gaps, gap{Offset: int64(offset), From: s.Last + 1, To: r.seq - 1, Closed: s.MaxTomb >= r.seq-1})
	}
	if s.First == 0 {
		s.First, s.FirstTS = r.seq, r.ts
	}
	s.Last = r.seq
	if !r.erased {
		s.Messages++
		s.LastTS = r.ts
	}
}

// scanBlock verifies a decompressed block. It never panics, whatever the bytes are,
// and its work is linear in their number: the search for the next sound record after
// a fault has a budget.
func scanBlock(h *hasher, data []byte, end tail) blockScan {
	var s blockScan
	budget := 4 * len(data)
	for at := 0; at < len(data); {
		r, kind := h.read(data[at:])
		if kind == "" {
			s.take(r, at)
			at += r.size
			continue
		}
		next, after, found := resync(h, data, at, s.Last, &budget)
		if end.last && !end.clean && s.tolerates(h, data, at, found, end) {
			s.torn = len(data) - at
			return s
		}
		d := Damage{Kind: name(kind, data[at:], found), Offset: int64(at)}
		if d.From = s.Last + 1; found && !after.tomb && after.seq > d.From {
			d.To = after.seq - 1
		} else if found {
			d.To = d.From
		}
		s.fault(d)
		if !found {
			return s
		}
		if !after.tomb && after.seq > s.Last+1 {
			s.Last = after.seq - 1 // the fault has said what is missing; it is no gap beside it
			if s.First == 0 {
				s.First = after.seq
			}
		}
		at = next
	}
	return s
}

// name refines the kind of a fault by what stands there.
func name(kind Kind, rest []byte, found bool) Kind {
	size, _, _, _ := lengths(rest)
	switch {
	case zeroRun(rest) >= min(len(rest), emptySize):
		return KindZeroed
	case !found && size >= emptySize && size <= maxRecord && size > len(rest), !found && len(rest) < recordHead:
		return KindTruncated
	}
	return kind
}

func zeroRun(b []byte) int {
	for i, c := range b {
		if c != 0 {
			return i
		}
	}
	return len(b)
}

// resync finds the next sound record after the bad one at data[at:]: where its own
// length says, or else at the first place where one can be read.
func resync(h *hasher, data []byte, at int, last uint64, budget *int) (int, record, bool) {
	if size, _, _, _ := lengths(data[at:]); size >= emptySize && size <= len(data)-at {
		if r, ok := h.probe(data[at+size:], last, budget); ok {
			return at + size, r, true
		}
	}
	for i := at + 1; i+emptySize <= len(data) && *budget > 0; i++ {
		if r, ok := h.probe(data[i:], last, budget); ok {
			return i, r, true
		}
	}
	return 0, record{}, false
}

// probe reads a record where there need not be one. Few places look like one, so
// hashing is rare.
func (h *hasher) probe(b []byte, last uint64, budget *int) (record, bool) {
	size, _, _, ok := lengths(b)
	if !ok {
		return record{}, false
	}
	raw := binary.LittleEndian.Uint64(b[4:])
	if seq := raw & seqMask; raw&tombstoneBit == 0 && (seq <= last || seq-last > 1<<32) || size > *budget {
		return record{}, false
	}
	*budget -= size
	r, kind := h.read(b)
	return r, kind == ""
}

// tolerates reports whether what stands at data[at:] may be the rest of an append that
// nobody was told of. Being wrong in one direction refuses a start, in the other it
// loses an acknowledged event; so everything that a cut cannot leave is damage.
func (s *blockScan) tolerates(h *hasher, data []byte, at int, found bool, end tail) bool {
	rest := data[at:]
	size, _, headers, _ := lengths(rest)
	if !found && (len(rest) < recordHead || size > len(rest)) {
		if len(rest) < emptySize {
			return true
		}
		// A whole record whose length alone is wrong is damage, not a cut.
		slen := int(binary.LittleEndian.Uint16(rest[20:]))
		extra := slen
		if headers {
			extra += 4
		}
		return extra > len(rest)-emptySize || !h.matches(rest, slen, headers)
	}
	if !end.powerCut || !zeroPage(data, at) {
		return false
	}
	if !found {
		return true
	}
	if !end.lazy {
		return false
	}
	// Records after the hole: they, and so the hole, must be younger than the window.
	newest, budget := int64(0), 4*len(data)
	for i := at; i < len(data); {
		r, kind := h.read(data[i:])
		if kind != "" {
			next, _, ok := resync(h, data, i, s.Last, &budget)
			if !ok {
				break
			}
			i = next
			continue
		}
		if !r.tomb && !r.erased {
			newest = r.ts
		}
		i += r.size
	}
	return s.LastTS > 0 && newest >= s.LastTS && time.Duration(newest-s.LastTS) < tornWindow
}

// zeroPage reports whether data holds, from at on and within the bad record or at its
// start, zeros up to the end of a disk sector: what an unwritten page leaves.
func zeroPage(data []byte, at int) bool {
	size, _, _, _ := lengths(data[at:])
	limit := len(data)
	if size >= emptySize && size <= len(data)-at {
		limit = at + size
	}
	if z := zeroRun(data[at:]); z > 0 && ((at+z)%sector == 0 || at+z == len(data) || z >= sector) {
		return true
	}
	for p := (at + sector - 1) / sector * sector; p < limit; p += sector {
		if e := min(p+sector, len(data)); zeroRun(data[p:e]) == e-p {
			return true
		}
	}
	return false
}

var errUndecodable = errors.New("the compressed block does not decompress")

// decompress returns the records of a block as it is on disk: "cmp", algorithm, length
// of the records, S2 stream, and the last record's hash as it was.
func decompress(raw []byte) ([]byte, bool, error) {
	if len(raw) < 5 || !bytes.Equal(raw[:3], []byte("cmp")) || raw[3] != 1 {
		return raw, false, nil
	}
	size, n := binary.Uvarint(raw[4:])
	body := raw[min(4+max(n, 0), len(raw)):]
	if n <= 0 || size < hashSize || size > maxBlock || len(body) < hashSize {
		return nil, true, errUndecodable
	}
	var out bytes.Buffer
	got, err := io.Copy(&out, io.LimitReader(s2.NewReader(bytes.NewReader(body[:len(body)-hashSize])), int64(size)))
	if err != nil {
		return nil, true, fmt.Errorf("%w: %w", errUndecodable, err)
	}
	if uint64(got) != size-hashSize {
		return nil, true, fmt.Errorf("%w: %d bytes, want %d", errUndecodable, got, size-hashSize)
	}
	out.Write(body[len(body)-hashSize:])
	return out.Bytes(), true, nil
}
