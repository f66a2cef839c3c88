package audit

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/internal/wire"
)

const (
	// settleFor bounds the wait of Detach: what is left is safe in the spool, and the
	// rest of a shutdown needs its time.
	settleFor = time.Second

	// Waits between attempts to store a batch.
	retryFirst = 100 * time.Millisecond
	retryLast  = 5 * time.Second
)

// ErrNoRoom: the stream is full. Nothing was stored.
var ErrNoRoom = errors.New("audit: the stream is full")

// ErrMoved: the subject of a batch does not end with the message that its writer
// expected. Nothing was stored.
var ErrMoved = errors.New("audit: the stream is not where the writer left it")

// PrefixRecord begins the subjects of batches: audit.record.<tenant>.<node>.
const PrefixRecord = "audit.record."

// RecordSubject is the subject of a node's batches for a tenant.
func RecordSubject(tenant, node string) string { return wire.AtNode(PrefixRecord+tenant, node) }

// Stream is where the batches go: the stream AUDIT of the broker's own account.
// Safe for concurrent use.
type Stream interface {
	// Publish stores a batch on subject and returns its sequence once it is on stable
	// storage, if the last message on the subject has the sequence expect (0: there is
	// none); else ErrMoved.
	Publish(ctx context.Context, subject string, expect uint64, data []byte) (seq uint64, err error)
	// Durable returns once everything that the stream has shown is on stable storage here.
	Durable(ctx context.Context) error
	// Next returns the first message at or after seq whose subject matches filter, nil
	// if there is none.
	Next(ctx context.Context, filter string, seq uint64) (*Message, error)
	// Last returns the last message on a literal subject, nil if there is none.
	Last(ctx context.Context, subject string) (*Message, error)
	// Subjects returns the subjects that match filter and have messages.
	Subjects(ctx context.Context, filter string) ([]string, error)
	// Purge takes the messages on a literal subject away whose sequence is at most upTo.
	Purge(ctx context.Context, subject string, upTo uint64) error
	// Used returns the bytes that the stream has, and may have.
	Used(ctx context.Context) (used, limit int64, err error)
}

// Message is one message of the stream.
type Message struct {
	Seq     uint64
	Time    time.Time
	Subject string
	Data    []byte
}

// Attach begins to bring batches to the stream, until Detach.
func (j *Journal) Attach(s Stream) {
	ctx, cancel := context.WithCancel(context.Background())
	j.mu.Lock()
	done := make(chan struct{})
	j.publishing = &publishing{cancel, done}
	j.mu.Unlock()
	go func() {
		defer close(done)
		publisher{j, s}.publish(ctx)
	}()
	j.poke()
}

// Detach brings what it can to the stream within a second and ctx, and stops. What is left stays in
// the spool for the next start.
func (j *Journal) Detach(ctx context.Context) error {
	j.mu.Lock()
	p := j.publishing
	j.publishing = nil
	j.mu.Unlock()
	if p == nil {
		return nil
	}
	within, end := context.WithTimeout(ctx, settleFor)
	settle(within, j)
	end()
	p.stop()
	<-p.done
	return nil
}

// settle waits until nothing of j is on its way to the stream, it is in trouble, or ctx
// ends.
func settle(ctx context.Context, j *Journal) {
	tick := time.NewTicker(gatherFor / 10)
	defer tick.Stop()
	for j.trouble.Load() == nil {
		if j.Left() == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// publisher brings the batches of a journal to a stream. Its methods run in one
// goroutine.
type publisher struct {
	*Journal
	stream Stream
}

// publish is the goroutine: it opens chains and stores batches in order, and tries
// again for as long as it takes.
func (j publisher) publish(ctx context.Context) {
	wait := retryFirst
	for {
		err := j.publishAll(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			if j.trouble.Swap(nil) != nil {
				j.cfg.Log.Info().Msg("the audit trail is in its stream again")
			}
			wait = retryFirst
			select {
			case <-ctx.Done():
				return
			case <-j.work:
			}
			continue
		}
		if j.trouble.Swap(&err) == nil {
			j.cfg.Log.Error().Err(err).Msg("the stream AUDIT takes no records: they wait in the spool")
		}
		var freed <-chan struct{}
		if errors.Is(err, ErrNoRoom) {
			freed = j.work // the pruner says so there
			signal(j.prune)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		case <-freed:
		}
		wait = min(2*wait, retryLast)
	}
}

// publishAll opens the chains that are waited for and stores what is pending.
func (j publisher) publishAll(ctx context.Context) error {
	j.mu.Lock()
	var open []string
	for tenant := range j.waiting {
		open = append(open, tenant)
	}
	lines := make(map[string]*chain, len(j.lines))
	for key, l := range j.lines {
		lines[key] = l
	}
	j.mu.Unlock()
	for _, tenant := range open {
		if err := j.open(ctx, tenant, ""); err != nil {
			return err
		}
	}
	for key, l := range lines {
		if err := j.publishLine(ctx, key, l); err != nil {
			return err
		}
	}
	return nil
}

// open begins a chain of this node for a tenant, after the last one that the stream
// knows.
func (j publisher) open(ctx context.Context, tenant, why string) error {
	first := auditlog.Entry{Time: j.cfg.Now(), Tenant: tenant, Kind: auditlog.KindChain, Outcome: auditlog.OutcomeOK, Detail: "the first chain of this node"}
	m, err := j.stream.Last(ctx, RecordSubject(tenant, j.cfg.Node))
	if err != nil {
		return err
	}
	l := &chain{checked: true}
	if m != nil {
		l.tail = m.Seq
		if why == "" {
			why = "the node had no state of the audit trail: its volume is new, or was emptied"
		}
		first.Detail = why
		if b, err := auditlog.ParseBatch(m.Data); err == nil {
			last := b.Last()
			first.Ref, first.Before = auditlog.RefOf(last), last.Hash
		}
		j.cfg.Log.Warn().Str("tenant", tenant).Str("why", why).Str("after", first.Ref).Msg("a new chain of the audit trail")
	}
	id := j.cfg.Random()
	l.writer = auditlog.NewWriter(tenant, auditlog.ChainID{Node: j.cfg.Node, Chain: hex.EncodeToString(id[:])})
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines[tenant] = l
	j.held.Add(-int64(len(j.waiting[tenant])))
	j.queue = append(append([]queued{{entry: first}}, j.waiting[tenant]...), j.queue...)
	delete(j.waiting, tenant)
	select {
	case j.wake <- struct{}{}:
	default:
	}
	return nil
}

func randomChain() (id [8]byte) {
	_, _ = rand.Read(id[:]) // crypto/rand.Read never fails
	return id
}

// publishLine stores the pending batches of one chain.
func (j publisher) publishLine(ctx context.Context, key string, l *chain) error {
	for {
		j.mu.Lock()
		if l.dead || len(l.pending) == 0 && (l.checked || l.stored.Seq == 0) {
			j.mu.Unlock()
			return nil
		}
		checked, tail := l.checked, l.tail
		var f frame
		if len(l.pending) > 0 {
			f = l.pending[0]
		}
		j.mu.Unlock()
		if !checked {
			if err := j.reconcile(ctx, key, l); err != nil {
				return err
			}
			continue
		}
		data, err := j.spool.read(&f)
		if err != nil {
			return err
		}
		if !fits(j.Journal, l, len(data)) {
			return nil // the pruner makes room and says so; the others' batches go on
		}
		seq, err := j.stream.Publish(ctx, RecordSubject(f.tenant, f.to.Node), tail, data)
		if err != nil {
			j.mu.Lock()
			l.checked = false // it may be stored or not
			j.mu.Unlock()
			return err
		}
		j.counted.stored.Add(1)
		j.mu.Lock()
		l.room.add(seq, len(data))
		j.mu.Unlock()
		if streamFull(j.Journal) {
			j.trouble.Store(nil) // the pruner need not free more
		}
		j.settled(l, 1, seq, f.to)
	}
}

// settled notes that the stream has the first n pending batches of a chain.
func (j publisher) settled(l *chain, n int, tail uint64, at auditlog.Position) {
	j.mu.Lock()
	for i := range n {
		l.pending[i].seg.pending.Add(-1)
	}
	l.pending = append([]frame(nil), l.pending[n:]...)
	l.tail, l.stored, l.checked = tail, at, true
	stored := j.storedLocked()
	j.mu.Unlock()
	if err := j.spool.drop(j.cfg.Node, stored); err != nil {
		j.cfg.Log.Error().Err(err).Msg("the spool of the audit trail was not cleaned up")
	}
}

// reconcile compares a chain with what the stream has of it: after a start, and after
// an answer that did not come.
func (j publisher) reconcile(ctx context.Context, key string, l *chain) error {
	j.mu.Lock()
	node, tenant := l.writer.Position().Node, tenantOf(key)
	if len(l.pending) > 0 {
		node = l.pending[0].to.Node
	}
	j.mu.Unlock()
	m, err := j.stream.Last(ctx, RecordSubject(tenant, node))
	if err != nil {
		return err
	}
	var at auditlog.Position
	var tail uint64
	if m != nil {
		tail = m.Seq
		b, err := auditlog.ParseBatch(m.Data)
		if err != nil {
			return j.rebase(ctx, key, l, fmt.Sprintf("message %d of the stream is no batch", m.Seq))
		}
		at = b.Last()
	}
	done, known := j.match(l, at)
	switch {
	case known:
		if done > 0 {
			if err := j.stream.Durable(ctx); err != nil { // it is shown, not acknowledged
				return err
			}
			j.counted.repeats.Add(uint64(done))
			j.settled(l, done, tail, at)
			return nil
		}
	case j.foreign(l, at):
		return j.disown(key, l, at)
	case j.knowsLess(l, at):
		return j.rebase(ctx, key, l, fmt.Sprintf("the stream has record %d of chain %s, and this node does not know it: its state is older than the stream", at.Seq, at.Chain))
	default:
		j.alarm(l, tenant, at)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	l.tail, l.checked = tail, true
	return nil
}

// tenantOf takes the name of another node, which the chains of an earlier name have,
// from the key of a chain.
func tenantOf(key string) string {
	tenant, _, _ := strings.Cut(key, "\x00")
	return tenant
}

// match says whether the stream ends where this node knows a batch to end, and how many
// of the pending batches it has then.
func (j publisher) match(l *chain, at auditlog.Position) (done int, known bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, f := range l.pending { // first: a batch that is stored and pending goes out once
		if f.to == at {
			return i + 1, true
		}
	}
	if at == l.stored { // both zero: nothing was ever stored
		return 0, true
	}
	if len(l.pending) > 0 { // a new chain follows on an older one
		return 0, l.pending[0].after == at
	}
	return 0, l.stored.Seq == 0
}

// alarm notes that the stream has lost what it had. What comes next goes on from where
// the chain is, so the hole stays visible.
func (j publisher) alarm(l *chain, tenant string, at auditlog.Position) {
	j.mu.Lock()
	have := "nothing"
	if at.Seq > 0 {
		have = fmt.Sprintf("record %d of chain %s", at.Seq, at.Chain)
	}
	what := fmt.Sprintf("the trail of tenant %s was cut: this node had stored up to record %d of chain %s, the stream ends with %s; run signet audit verify", tenant, l.stored.Seq, l.stored.Chain, have)
	l.cut = what
	j.mu.Unlock()
	j.cfg.Log.Error().Str("tenant", tenant).Msg(what)
	j.Note(auditlog.Entry{Tenant: tenant, Kind: auditlog.KindNotice, Outcome: auditlog.OutcomeFailed, Subject: "stream AUDIT", Detail: what})
}

// rebase begins a new chain and puts what the old one had pending on record there: the
// stream has something else in its place.
func (j publisher) rebase(ctx context.Context, key string, l *chain, why string) error {
	j.mu.Lock()
	frames := l.pending
	l.dead, l.pending = true, nil
	delete(j.lines, key) // from here on its entries wait for the new chain
	j.moving++
	j.mu.Unlock()
	defer j.moved()
	tenant := tenantOf(key)
	again, err := j.entriesOf(frames)
	if err != nil {
		return err
	}
	j.mu.Lock()
	if key != tenant { // of an earlier name of the node, which has a chain
		j.queue = append(j.queue, again...)
	} else {
		j.waiting[tenant] = append(again, j.waiting[tenant]...)
		j.held.Add(int64(len(again)))
	}
	j.mu.Unlock()
	if key == tenant {
		if err := j.open(ctx, tenant, why); err != nil {
			return err // what waits for a chain is opened with the next attempt
		}
	}
	for i := range frames {
		frames[i].seg.pending.Add(-1)
	}
	return nil
}

// knowsLess says whether the stream has more of a chain than this node remembers.
func (j publisher) knowsLess(l *chain, at auditlog.Position) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	same := at.ChainID == l.writer.Position().ChainID || len(l.pending) > 0 && at.ChainID == l.pending[0].to.ChainID
	return same && at.Seq > l.stored.Seq
}

// entriesOf reads the entries of batches in the spool, but the first ones of chains.
func (j publisher) entriesOf(frames []frame) (out []queued, err error) {
	for i := range frames {
		data, err := j.spool.read(&frames[i])
		if err != nil {
			return nil, err
		}
		b, err := auditlog.ParseBatch(data)
		if err != nil {
			return nil, err
		}
		for k := range b.Records {
			if b.Records[k].Kind != auditlog.KindChain {
				out = append(out, queued{entry: b.Records[k].Entry})
			}
		}
	}
	return out, nil
}
