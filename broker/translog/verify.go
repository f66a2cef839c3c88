package translog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/signing/tlog"
)

const (
	// verifyChunk is how many sequences one call of Verify walks at most.
	verifyChunk = 20_000
	// reorderWindow is how far an event is looked for from where it is.
	reorderWindow = 256
	// agedSlack is how long before its time an event may be gone, for want of exact
	// clocks; at most a tenth of that time. See slack.
	agedSlack = 2 * time.Minute
	// chunkLimit bounds one walk.
	chunkLimit = 50 * time.Second
)

// What can be wrong at a sequence.
const (
	Dropped   = "dropped"
	Altered   = "altered"
	Reordered = "reordered"
	Added     = "added"
)

// Finding is the first sequence at which a stream is not as its log has it.
type Finding struct {
	Sequence uint64
	What     string // Dropped, Altered, Reordered, Added
	Detail   string
}

// Result is what one walk has found.
type Result struct {
	Checkpoint *tlog.Checkpoint // what was compared with
	Next       uint64           // where the next walk begins
	Compared   uint64           // events that are as the log has them
	Absent     uint64           // sequences that were absent from the beginning
	Aged       uint64           // sequences whose events were old enough for the stream to let them go
	// Unproven are sequences that the stream has let go and of which nothing signed says
	// that they were old enough; Doubt says why.
	Unproven uint64
	Doubt    string
	Finding  *Finding
}

// Last returns the last checkpoint of a log, and the last sequence of its stream.
//
// Errors: ErrNotLogged, ErrDisagrees, or the connection's.
func (s *Service) Last(ctx context.Context, tenant, stream string) (*tlog.Note, uint64, error) {
	l, err := s.find(tenant, stream)
	if err != nil {
		return nil, 0, err
	}
	note, _, err := s.archive.last(ctx, tenant, stream)
	if err != nil {
		return nil, 0, err
	}
	if note == nil {
		return nil, 0, fmt.Errorf("%w: no checkpoint of %s yet", ErrNotLogged, stream)
	}
	nc, err := s.cfg.Tenant(l.src.Account)
	if err != nil {
		return nil, 0, err
	}
	state, err := stateOf(ctx, nc, stream)
	if err != nil {
		return nil, 0, err
	}
	return note, state.State.LastSeq, nil
}

// Verify compares what a stream has stored from the sequence from on with its log, up to
// the end of the checkpoint at, and stops at the first difference or after some
// thousands of sequences: Next says where to go on. at may be older than the last
// checkpoint and come from outside; its signature is the caller's to check. The tiles
// must be those of its root.
//
// Errors: ErrNotLogged, ErrDisagrees, or the connection's.
func (s *Service) Verify(ctx context.Context, tenant, stream string, at *tlog.Checkpoint, from uint64) (*Result, error) {
	l, err := s.find(tenant, stream)
	if err != nil {
		return nil, err
	}
	return l.verify(ctx, at, from, verifyChunk)
}

func (l *log) verify(ctx context.Context, at *tlog.Checkpoint, from uint64, limit int64) (*Result, error) {
	ctx, cancel := context.WithTimeout(ctx, chunkLimit)
	defer cancel()
	nc, err := l.s.cfg.Tenant(l.src.Account)
	if err != nil {
		return nil, err
	}
	state, err := stateOf(ctx, nc, l.src.Stream)
	if err != nil {
		return nil, err
	}
	v := &walk{l: l, cp: at, state: state, nc: nc, r: &Result{Checkpoint: at}}
	from = max(from, at.First)
	if from < at.Next() && from < state.State.FirstSeq {
		to := min(state.State.FirstSeq, at.Next())
		if err := v.agedOut(ctx, from, to); err != nil || v.r.Finding != nil {
			return v.r, err
		}
		from = to
	}
	to := min(at.Next(), from+uint64(limit))
	if v.r.Next = to; from >= to {
		return v.r, nil
	}
	first := int64(from - at.First)
	r := tlog.NewHashReader(at.Size, at.Root, l.s.archive.reader(ctx, &at.Origin))
	if v.want, err = tlog.LeafHashes(at.Size, first, first+int64(to-from), r); err != nil {
		return nil, disagrees(err)
	}
	v.from = from
	return v.r, v.compare(ctx)
}

// walk compares one chunk.
type walk struct {
	l     *log
	nc    *nats.Conn
	cp    *tlog.Checkpoint
	state *streamState
	from  uint64
	want  []tlog.Hash
	r     *Result
}

type kept struct {
	message
	own []byte
}

func (v *walk) compare(ctx context.Context) error {
	f, err := openFeed(ctx, v.l.s.cfg.Upstream, v.l.src.Account, v.l.src.Stream, v.l.src.Filter, v.from)
	if err != nil {
		return err
	}
	defer f.close()
	var h tlog.Hasher
	var m message
	seq, end := v.from, v.from+uint64(len(v.want))
	for seq < end {
		ok, err := v.nextMessage(ctx, f, &m)
		if err != nil {
			return err
		}
		upTo := end
		if ok {
			upTo = min(m.seq, end)
		}
		for ; seq < upTo; seq++ {
			if v.want[seq-v.from] != tlog.AbsentHash() {
				return v.missing(ctx, seq)
			}
			v.r.Absent++
		}
		if !ok || m.seq >= end {
			return nil
		}
		leaf := h.Stored(m.seq, m.stored, m.subject, m.block, m.data)
		switch hash := leaf.Hash(); {
		case hash == v.want[seq-v.from]:
			v.r.Compared++
		case v.want[seq-v.from] == tlog.AbsentHash():
			v.r.Finding = &Finding{Sequence: seq, What: Added, Detail: fmt.Sprintf("an event on %s that was not there when the log reached the sequence", m.subject)}
			return nil
		default:
			return v.differs(ctx, f, &m)
		}
		seq++
	}
	return nil
}

// nextMessage waits for a message as long as the stream says that there is one.
func (v *walk) nextMessage(ctx context.Context, f *feed, m *message) (bool, error) {
	for {
		if f.deliver > 0 && m.pending == 0 && m.seq > 0 {
			return false, nil
		}
		ok, err := f.next(pollLeader, m)
		if ok || err != nil {
			return ok, err
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if f.deliver == 0 {
			found, err := nextAfter(ctx, v.nc, v.l.src.Stream, v.l.src.Filter, v.from)
			if err != nil || found == 0 {
				return false, err
			}
		}
	}
}

// missing judges a sequence that the log has an event at and the stream has not.
func (v *walk) missing(ctx context.Context, seq uint64) error {
	state, err := stateOf(ctx, v.nc, v.l.src.Stream)
	if err != nil {
		return err
	}
	if seq < state.State.FirstSeq { // aged out during the walk
		v.r.Next = min(state.State.FirstSeq, v.cp.Next())
		v.state = state
		return v.agedOut(ctx, seq, v.r.Next)
	}
	detail := "the log has an event here, the stream has none"
	if seq > state.State.LastSeq {
		detail = fmt.Sprintf("the stream ends at sequence %d, the log has events up to %d", state.State.LastSeq, v.cp.Next()-1)
	}
	v.r.Finding = &Finding{Sequence: seq, What: Dropped, Detail: detail}
	return nil
}

// differs says what happened to an event that is not the one of the log: it may be the
// one of a sequence near by.
func (v *walk) differs(ctx context.Context, f *feed, m *message) error {
	around := []kept{}
	add := func(m *message) {
		own := append(bytes.Clone(m.block), m.data...)
		k := kept{message: *m, own: own}
		k.block, k.data = own[:len(m.block):len(m.block)], own[len(m.block):]
		around = append(around, k)
	}
	add(m)
	for len(around) < reorderWindow {
		ok, err := v.nextMessage(ctx, f, m)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		add(m)
	}
	bad := &around[0]
	v.r.Finding = &Finding{Sequence: bad.seq, What: Altered, Detail: fmt.Sprintf("the event on %s, stored at %s, is not the one of the log", bad.subject, time.Unix(0, bad.stored).UTC().Format(time.RFC3339Nano))}
	if at, ok := v.home(bad, around); ok {
		v.r.Finding.What, v.r.Finding.Detail = Reordered, fmt.Sprintf("here is the event of sequence %d", at)
	} else if from, ok := v.movedTo(bad.seq, around); ok {
		v.r.Finding.What, v.r.Finding.Detail = Reordered, fmt.Sprintf("the event of the log is at sequence %d now", from)
	}
	return nil
}

// home looks for the sequence at which the log has the event k.
func (v *walk) home(k *kept, around []kept) (uint64, bool) {
	var h tlog.Hasher
	for i := range around[1:] {
		other := &around[1+i]
		at := other.seq - v.from
		if at >= uint64(len(v.want)) {
			continue
		}
		for _, stored := range []int64{k.stored, other.stored} {
			if leaf := h.Stored(other.seq, stored, k.subject, k.block, k.data); leaf.Hash() == v.want[at] {
				return other.seq, true
			}
		}
	}
	return 0, false
}

// movedTo looks for the event that the log has at seq among those that come behind.
func (v *walk) movedTo(seq uint64, around []kept) (uint64, bool) {
	var h tlog.Hasher
	for i := range around[1:] {
		other := &around[1+i]
		for _, stored := range []int64{around[0].stored, other.stored} {
			if leaf := h.Stored(seq, stored, other.subject, other.block, other.data); leaf.Hash() == v.want[seq-v.from] {
				return other.seq, true
			}
		}
	}
	return 0, false
}

// agedOut judges that the sequences from up to, not including, to are no longer stored:
// an event may be gone when it is older than the stream keeps events, and when it was
// stored, the writer of the log has signed.
func (v *walk) agedOut(ctx context.Context, from, to uint64) error {
	keep, now := v.state.Config.MaxAge, v.l.s.cfg.Now()
	a, _, err := v.l.s.ages(ctx, &v.cp.Origin)
	switch {
	case errors.Is(err, errAges):
		v.r.Doubt = err.Error()
		a = new(ages)
	case err != nil:
		return err
	}
	aged, young := a.judge(keep, now)
	aged, young = min(max(aged, from), to), min(max(young, from), to)
	v.r.Aged += aged - from
	if v.r.Unproven += young - aged; young > aged && v.r.Doubt == "" {
		v.r.Doubt = "the signed record of when events were stored does not tell whether they were old enough"
	}
	if young < to {
		v.r.Finding = &Finding{Sequence: young, What: Dropped, Detail: fmt.Sprintf("the stream keeps events for %s and begins at %d; this one was not old enough to go", age(keep), to)}
	}
	return nil
}

func age(d time.Duration) string {
	if d == 0 {
		return "ever"
	}
	return d.String()
}
