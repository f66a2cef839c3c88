package auditlog

import (
	"bytes"
	"fmt"
	"time"

	"github.com/signetbus/signet/signing"
)

// Limits of a batch.
const (
	MaxBatchRecords = 256
	MaxBatchBytes   = 256 << 10
)

// Writer appends to one chain. The zero Writer is not usable: see NewWriter and
// ResumeWriter. It is not safe for concurrent use.
type Writer struct {
	id     ChainID
	tenant string
	seq    uint64
	hash   string
}

// NewWriter begins a chain. id.Chain must be 16 hex digits that no other chain of the
// node has.
func NewWriter(tenant string, id ChainID) *Writer {
	return &Writer{id: id, tenant: tenant, hash: NoHash}
}

// ResumeWriter goes on with a chain after the position.
func ResumeWriter(tenant string, at Position) *Writer {
	return &Writer{id: at.ChainID, tenant: tenant, seq: at.Seq, hash: at.Hash}
}

// Position is that of the last record; Seq is 0 before the first.
func (w *Writer) Position() Position { return Position{w.id, w.seq, w.hash} }

// Batch returns entries as records of the chain, with a head that s signs, and the
// position that the chain is at then. The writer itself moves only with Advance, so
// that a batch that could not be kept was never there. It cleans the entries, takes as
// many as fit (at least one), and returns how many.
//
// Errors: ErrRecord, ErrHead, signing.ErrStatement.
func (w *Writer) Batch(entries []Entry, now time.Time, s *signing.Signer) (data []byte, taken int, next Position, err error) {
	next = w.Position()
	for taken < len(entries) && taken < MaxBatchRecords && len(data) <= MaxBatchBytes/2 {
		e := entries[taken]
		e.Tenant = w.tenant
		e.Clean()
		r := Record{V: Version, Node: w.id.Node, Chain: w.id.Chain, Seq: next.Seq + 1, Prev: next.Hash, Entry: e}
		line, err := r.Encode()
		if err != nil {
			return nil, 0, next, err
		}
		data = append(append(data, line...), '\n')
		next.Seq, next.Hash = r.Seq, HashOf(line)
		taken++
	}
	h := Head{Tenant: w.tenant, Node: w.id.Node, Time: now, Chains: []Position{next}}
	doc, err := h.Sign(s)
	if err != nil {
		return nil, 0, next, err
	}
	return append(append(data, doc...), '\n'), taken, next, nil
}

// Advance moves the writer to a position that Batch returned.
func (w *Writer) Advance(to Position) { w.seq, w.hash = to.Seq, to.Hash }

// Batch is one message of the trail: records of one chain and the head after them.
type Batch struct {
	Records []Record
	Hashes  []string // of each record
	Head    []byte   // the signed head; its signature is not checked here
}

// ParseBatch reads a batch. The records are each in their one encoding and of one
// node, chain and tenant; whether they follow one another is the verifier's to say.
//
// Errors: ErrBatch, ErrRecord.
func ParseBatch(data []byte) (*Batch, error) {
	if len(data) > MaxBatchBytes {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrBatch, len(data), MaxBatchBytes)
	}
	var b Batch
	for len(data) > 0 {
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			return nil, fmt.Errorf("%w: the last line is not whole", ErrBatch)
		}
		if isEnvelope(line) {
			b.Head = line
			if len(rest) > 0 {
				return nil, fmt.Errorf("%w: something follows the head", ErrBatch)
			}
			break
		}
		r, err := Decode(line)
		if err != nil {
			return nil, fmt.Errorf("record %d of the batch: %w", len(b.Records)+1, err)
		}
		if len(b.Records) > 0 {
			if f := &b.Records[0]; r.Node != f.Node || r.Chain != f.Chain || r.Tenant != f.Tenant {
				return nil, fmt.Errorf("%w: records of two chains", ErrBatch)
			}
		}
		b.Records = append(b.Records, *r)
		b.Hashes = append(b.Hashes, HashOf(line))
		data = rest
	}
	if b.Head == nil || len(b.Records) == 0 || len(b.Records) > MaxBatchRecords {
		return nil, fmt.Errorf("%w: it needs 1 to %d records and a head", ErrBatch, MaxBatchRecords)
	}
	return &b, nil
}

// ID names the chain of the batch.
func (b *Batch) ID() ChainID { return ChainID{b.Records[0].Node, b.Records[0].Chain} }

// Last is the position after the batch, as its records say.
func (b *Batch) Last() Position {
	n := len(b.Records) - 1
	return Position{b.ID(), b.Records[n].Seq, b.Hashes[n]}
}
