package translog

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/signetbus/signet/signing/tlog"
)

// Held is a stored message of a logged stream.
type Held struct {
	Sequence    uint64
	Stored      int64 // nanoseconds since 1970
	Subject     string
	Block, Data []byte
	// Since is when the first one behind the checkpoint was stored that has the same key; 0
	// where Covered.
	Since int64
	// Covered: the checkpoint covers it, and Hashes lead from its leaf to the root.
	Covered bool
	Hashes  []tlog.Hash
}

// Newest returns, for each key that keyOf makes of the messages on subjects that match
// filter, the newest message that the last checkpoint covers, with its proof, and the newest
// one behind the checkpoint, if there are such. Messages with the key "" are passed over, and
// so is one that is not as the log has it: Verify names it. Its order is that of the
// stream; beyond most, the oldest are left out.
//
// Errors: ErrNotLogged, ErrLetGo, ErrDisagrees, or the connection's.
func (s *Service) Newest(ctx context.Context, tenant, stream, filter string, most int, keyOf func(subject string, data []byte) string) (*tlog.Note, []Held, error) {
	ctx, cancel := context.WithTimeout(ctx, chunkLimit)
	defer cancel()
	note, _, err := s.Last(ctx, tenant, stream)
	if err != nil {
		return nil, nil, err
	}
	l, err := s.find(tenant, stream)
	if err != nil {
		return nil, nil, err
	}
	held, err := l.newest(ctx, note, filter, keyOf)
	if err != nil {
		return nil, nil, err
	}
	held = held[max(len(held)-most, 0):]
	out := held[:0]
	r := tlog.NewHashReader(note.Size, note.Root, s.archive.reader(ctx, &note.Origin))
	for i := range held {
		same, err := held[i].prove(note, r)
		if err != nil {
			return nil, nil, disagrees(err)
		}
		if same {
			out = append(out, held[i])
		}
	}
	return note, out, nil
}

// newest reads the messages on subjects that match filter.
func (l *log) newest(ctx context.Context, note *tlog.Note, filter string, keyOf func(string, []byte) string) ([]Held, error) {
	nc, err := l.s.cfg.Tenant(l.src.Account)
	if err != nil {
		return nil, err
	}
	f, err := openFeed(ctx, l.s.cfg.Upstream, l.src.Account, l.src.Stream, filter, note.First)
	if err != nil {
		return nil, err
	}
	defer f.close()
	part := &log{s: l.s, src: l.src} // whose end is that of the filter
	part.src.Filter = filter
	v := &walk{l: part, nc: nc, from: note.First}
	type slot struct {
		key    string
		behind bool
	}
	newest := map[slot]Held{}
	var m message
	for {
		ok, err := v.nextMessage(ctx, f, &m)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		key := slot{keyOf(m.subject, m.data), m.seq >= note.Next()}
		if key.key == "" {
			continue
		}
		since := newest[key].Since
		if key.behind && since == 0 {
			since = m.stored
		}
		newest[key] = Held{
			Sequence: m.seq, Stored: m.stored, Subject: m.subject, Block: bytes.Clone(m.block), Data: bytes.Clone(m.data), Since: since, Covered: !key.behind,
		}
	}
	return slices.SortedFunc(maps.Values(newest), func(a, b Held) int { return cmp.Compare(a.Sequence, b.Sequence) }), nil
}

// hashReader reads hashes of a log that lead to its root.
type hashReader = interface {
	ReadHashes(indexes []int64) ([]tlog.Hash, error)
}

// prove adds the path of a message that the checkpoint covers, and says whether it is the
// one of the log.
func (h *Held) prove(note *tlog.Note, r hashReader) (same bool, err error) {
	if !h.Covered {
		return true, nil
	}
	at, err := note.Index(h.Sequence)
	if err != nil {
		return false, fmt.Errorf("sequence %d: %w", h.Sequence, err)
	}
	want, err := tlog.LeafHashes(note.Size, at, at+1, r)
	if err != nil {
		return false, err
	}
	var hasher tlog.Hasher
	leaf := hasher.Stored(h.Sequence, h.Stored, h.Subject, h.Block, h.Data)
	if leaf.Hash() != want[0] {
		return false, nil
	}
	h.Hashes, err = tlog.RangeHashes(note.Size, at, at+1, r)
	return true, err
}
