package translog

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/signetbus/signet/signing/tlog"
)

// maxProof bounds a proof that the service makes: it is held in memory until it was
// fetched.
const maxProof = 16 << 20

// findChunk is how many messages one call of Find reads.
const findChunk = 50_000

// Prove returns the document that proves the sequences from first to last under the
// last checkpoint.
//
// Errors: ErrNotLogged, tlog.ErrSize for sequences that the log does not cover,
// tlog.ErrMalformed for none of them or more than tlog.MaxRange, ErrLetGo for what is no
// longer stored, ErrDisagrees where the stream no longer has what the log has.
func (s *Service) Prove(ctx context.Context, tenant, stream string, first, last uint64) ([]byte, error) {
	l, err := s.find(tenant, stream)
	if err != nil {
		return nil, err
	}
	if last < first || last-first >= tlog.MaxRange {
		return nil, fmt.Errorf("%w: sequences %d to %d, want 1 to %d of them in one proof", tlog.ErrMalformed, first, last, tlog.MaxRange)
	}
	note, _, err := s.archive.last(ctx, tenant, stream)
	if err != nil {
		return nil, err
	}
	if note == nil {
		return nil, fmt.Errorf("%w: no checkpoint of %s yet", ErrNotLogged, stream)
	}
	from, err := note.Index(first)
	if err != nil {
		return nil, err
	}
	if _, err := note.Index(last); err != nil {
		return nil, err
	}
	p := &tlog.Proof{First: first, Checkpoint: note.Bytes(), Keyring: s.cfg.RingDocument()}
	to := from + int64(last-first) + 1
	r := tlog.NewHashReader(note.Size, note.Root, s.archive.reader(ctx, &note.Origin))
	if p.Hashes, err = tlog.RangeHashes(note.Size, from, to, r); err != nil {
		return nil, disagrees(err)
	}
	want, err := tlog.LeafHashes(note.Size, from, to, r)
	if err != nil {
		return nil, disagrees(err)
	}
	if err := l.leaves(ctx, p, want); err != nil {
		return nil, err
	}
	return p.Encode()
}

// leaves reads the events of a proof, and checks each against its leaf.
func (l *log) leaves(ctx context.Context, p *tlog.Proof, want []tlog.Hash) error {
	nc, err := l.s.cfg.Tenant(l.src.Account)
	if err != nil {
		return err
	}
	f, err := openFeed(ctx, l.s.cfg.Upstream, l.src.Account, l.src.Stream, l.src.Filter, p.First)
	if err != nil {
		return err
	}
	defer f.close()
	v := &walk{l: l, nc: nc, from: p.First}
	var h tlog.Hasher
	var m message
	size := 0
	have := func() uint64 { return p.First + uint64(len(p.Leaves)) }
	for len(p.Leaves) < len(want) {
		for len(p.Leaves) < len(want) && want[len(p.Leaves)] == tlog.AbsentHash() {
			p.Leaves = append(p.Leaves, tlog.ProofLeaf{})
		}
		if len(p.Leaves) == len(want) {
			return nil
		}
		ok, err := v.nextMessage(ctx, f, &m)
		if err != nil {
			return err
		}
		leaf := h.Stored(m.seq, m.stored, m.subject, m.block, m.data)
		if !ok || m.seq > have() {
			if state, err := stateOf(ctx, nc, l.src.Stream); err != nil || have() < state.State.FirstSeq {
				return cmp.Or(err, fmt.Errorf("%w: sequence %d", ErrLetGo, have()))
			}
		}
		if !ok || m.seq != have() || leaf.Hash() != want[len(p.Leaves)] {
			return fmt.Errorf("%w: the event of sequence %d is not in the stream as it was logged: run signet log verify", ErrDisagrees, have())
		}
		if size += len(m.block) + len(m.data); size > maxProof/2 {
			return fmt.Errorf("%w: the events up to sequence %d are too large for one proof; ask for fewer", tlog.ErrSize, m.seq)
		}
		p.Leaves = append(p.Leaves, tlog.LeafOf(&h, m.stored, m.subject, bytes.Clone(m.block), bytes.Clone(m.data)))
	}
	return nil
}

// Find looks for the event with an id, from the sequence from on. It reads some
// thousands of events: next says where to go on, 0 at the end of the stream. seq is 0
// when it was not found.
//
// Errors: ErrNotLogged, or the connection's.
func (s *Service) Find(ctx context.Context, tenant, stream, id string, from uint64) (seq, next uint64, err error) {
	l, err := s.find(tenant, stream)
	if err != nil {
		return 0, 0, err
	}
	nc, err := s.cfg.Tenant(l.src.Account)
	if err != nil {
		return 0, 0, err
	}
	f, err := openFeed(ctx, s.cfg.Upstream, l.src.Account, stream, l.src.Filter, from)
	if err != nil {
		return 0, 0, err
	}
	defer f.close()
	v := &walk{l: l, nc: nc, from: max(from, 1)}
	var h tlog.Hasher
	var m message
	for range findChunk {
		ok, err := v.nextMessage(ctx, f, &m)
		if err != nil || !ok {
			return 0, 0, err
		}
		if !bytes.Contains(m.block, []byte("ce-id: ")) {
			continue
		}
		if e, _, ok := h.Decode(m.subject, m.block, m.data); ok && string(e.ID) == id {
			return m.seq, 0, nil
		}
	}
	return 0, m.seq + 1, nil
}

// Consistency returns the proof that a log only grew from older to its last checkpoint,
// or to newer if that is given.
//
// Errors: ErrNotLogged, ErrDisagrees, tlog.ErrSize.
func (s *Service) Consistency(ctx context.Context, tenant, stream string, older, newer *tlog.Checkpoint) ([]tlog.Hash, error) {
	if _, err := s.find(tenant, stream); err != nil {
		return nil, err
	}
	r := tlog.NewHashReader(newer.Size, newer.Root, s.archive.reader(ctx, &newer.Origin))
	proof, err := tlog.ProveConsistency(older.Size, newer.Size, r)
	return proof, disagrees(err)
}

// proofs keeps proofs until they were fetched in parts.
type proofs struct {
	mu   sync.Mutex
	docs []keptProof // the oldest first
}

type keptProof struct {
	id, tenant string
	doc        []byte
	made       time.Time
}

// Limits of kept proofs.
const (
	maxKeptProofs = 4
	proofLife     = time.Minute
)

// KeepProof keeps a proof for a minute, for Proof to be called with id; the oldest goes
// when there are more than a few.
func (s *Service) KeepProof(tenant, id string, doc []byte) {
	s.proofs.mu.Lock()
	defer s.proofs.mu.Unlock()
	d := append(s.proofs.docs, keptProof{id: id, tenant: tenant, doc: doc, made: time.Now()})
	for len(d) > maxKeptProofs || len(d) > 0 && time.Since(d[0].made) > proofLife {
		d[0] = keptProof{}
		d = d[1:]
	}
	s.proofs.docs = d
}

// KeptProof returns a kept proof of a tenant, nil if there is none.
func (s *Service) KeptProof(tenant, id string) []byte {
	s.proofs.mu.Lock()
	defer s.proofs.mu.Unlock()
	for _, p := range s.proofs.docs {
		if p.id == id && p.tenant == tenant {
			return p.doc
		}
	}
	return nil
}
