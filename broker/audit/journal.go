package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/signing"
)

// Defaults and limits of a Journal.
const (
	DefaultSpoolBytes = 64 << 20
	MinSpoolBytes     = 4 << 20
	// gatherFor is how long records wait for others before they are chained, signed and
	// synced together.
	gatherFor = 100 * time.Millisecond
	// maxQueue bounds the records that wait in memory; what comes beyond is counted.
	maxQueue = 8192
	// refuseFor is how long logins and changes are refused after the spool could not be
	// written; then it is tried again.
	refuseFor = time.Second
	// reserve is the part of the queue and of the spool, in percent, that only changes
	// and successful logins may fill: a flood of refusals must not keep them out.
	reserve = 25
)

// Errors of the journal.
var (
	// ErrFull: the spool is full, so what must be on record cannot be.
	ErrFull = errors.New("audit: the spool is full")
	// ErrClosed: the journal was shut down.
	ErrClosed = errors.New("audit: closed")
)

// JournalConfig configures a Journal.
type JournalConfig struct {
	Node   string                 // as the keyring names the node; required
	Dir    string                 // of the spool; required
	Signer func() *signing.Signer // the attestation key in force; required
	Now    func() time.Time       // default time.Now
	Spool  int64                  // bytes; default DefaultSpoolBytes
	Log    zerolog.Logger         // for those who look after the broker
	Sinks  []Sink                 // beside the stream; the journal closes them
	Random func() (chain [8]byte) // default crypto/rand; the name of a new chain
}

// Journal writes the records of one node: it gathers, chains, signs and keeps them in
// a spool on disk, and brings them to the stream and to the sinks. Its methods are
// safe for concurrent use; Note never blocks on I/O.
type Journal struct {
	cfg   JournalConfig
	sinks []*sinkRunner

	mu      sync.Mutex
	queue   []queued            // what happened since the last batch
	waiting map[string][]queued // by tenant: its chain is not known yet
	lines   map[string]*chain   // by tenant
	moving  int                 // how many of worker and publisher have records in hand
	lost    map[string]uint64   // by tenant, records that were not kept and not yet told of
	closed  bool

	spool      *spool        // the worker's; done under mu by the publisher
	wake       chan struct{} // 1 buffered: somebody waits for a record to be kept
	work       chan struct{} // 1 buffered: there is something to publish
	stop       chan struct{}
	done       sync.WaitGroup
	publishing *publishing   // nil while nothing is attached
	prune      chan struct{} // 1 buffered: batches wait for room in the stream

	held    atomic.Int64 // entries in waiting
	refused atomic.Int64 // until this Unix time in ns the spool could not be written
	counted journalCounts
	trouble atomic.Pointer[error] // why the stream takes nothing; nil: it does
}

// queued is a record on its way.
type queued struct {
	entry auditlog.Entry
	kept  chan<- error // told once it is in the spool, or why not; nil: nobody waits
}

// chain is the chain of one tenant.
type chain struct {
	writer  *auditlog.Writer
	stored  auditlog.Position // that the stream has
	pending []frame           // that it has not, oldest first
	tail    uint64            // sequence of the last message on the subject, as far as known
	checked bool              // tail is known
	cut     string            // what the stream should have and has not; alarm
	dead    bool              // another chain has taken its place
	room    room
}

// publishing is the goroutine that Attach began.
type publishing struct {
	stop context.CancelFunc
	done chan struct{}
}

type journalCounts struct{ records, batches, stored, lost, repeats atomic.Uint64 }

// JournalStats are counters since the start, and the state of now.
type JournalStats struct {
	Records, Batches uint64            // kept
	Stored           uint64            // batches that the stream has taken
	Lost             uint64            // records that were not kept
	SpoolBytes       int64             // on disk now
	SpoolLimit       int64             //
	Pending          int               // batches that the stream does not have
	SinkErrors       map[string]uint64 // batches that a sink did not take, by its name; with the zeros
}

// OpenJournal opens the spool and starts the worker. Nothing goes to the stream before
// Attach.
//
// Errors: ErrSpool.
func OpenJournal(cfg JournalConfig) (*Journal, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Spool <= 0 {
		cfg.Spool = DefaultSpoolBytes
	}
	if cfg.Random == nil {
		cfg.Random = randomChain
	}
	s, chains, frames, torn, err := openSpool(cfg.Dir, cfg.Node, cfg.Spool)
	if err != nil {
		return nil, err
	}
	j := &Journal{
		cfg: cfg, spool: s, waiting: map[string][]queued{}, lines: map[string]*chain{}, lost: map[string]uint64{},
		wake: make(chan struct{}, 1), work: make(chan struct{}, 1), prune: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	for tenant, at := range chains {
		j.lines[tenant] = &chain{writer: auditlog.ResumeWriter(tenant, at), stored: at}
	}
	if err := takeSpooled(j, frames); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if torn != "" {
		cfg.Log.Warn().Str("what", torn).Msg("the spool of the audit trail was cut off where it was not whole")
		j.Note(auditlog.Entry{Kind: auditlog.KindNotice, Outcome: auditlog.OutcomeFailed, Subject: "spool", Detail: "not whole, set aside: " + torn})
	}
	for _, sink := range cfg.Sinks {
		j.sinks = append(j.sinks, newSinkRunner(sink, cfg.Log))
	}
	j.done.Go(j.gather)
	return j, nil
}

// lineOf returns the chain of a key, made if it is not there, while nobody else has j.
func lineOf(j *Journal, key, tenant string) *chain {
	l := j.lines[key]
	if l == nil {
		l = &chain{writer: auditlog.NewWriter(tenant, auditlog.ChainID{Node: j.cfg.Node})}
		j.lines[key] = l
	}
	return l
}

// Note puts an entry on record, in a moment. It never blocks; where there is no room
// the entry is counted, and a record says so later. A zero Time is now.
func (j *Journal) Note(e auditlog.Entry) { j.put(e, nil) }

// Keep puts an entry on record and returns when it is in the spool, synced.
//
// Errors: ErrFull, ErrClosed, ErrSpool, or ctx's, after which it may be kept or not.
func (j *Journal) Keep(ctx context.Context, e auditlog.Entry) error {
	if err := j.Room(); err != nil {
		return err
	}
	return keepAnyway(ctx, j, e)
}

// keepAnyway is Keep where there is no room, too: for what makes room. A disk that takes
// nothing is still an error.
func keepAnyway(ctx context.Context, j *Journal, e auditlog.Entry) error {
	kept := make(chan error, 1)
	j.put(e, kept)
	select {
	case j.wake <- struct{}{}:
	default:
	}
	select {
	case err := <-kept:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Room says whether what must be on record can be: nil, or an error that says what
// to do. It does not wait for I/O.
//
// Errors: ErrFull, ErrSpool.
func (j *Journal) Room() error {
	if j.cfg.Now().UnixNano() < j.refused.Load() {
		return fmt.Errorf("%w: %s cannot be written; see the log of the broker", ErrSpool, j.cfg.Dir)
	}
	j.mu.Lock()
	queued := len(j.queue)
	j.mu.Unlock()
	if queued >= maxQueue {
		return fmt.Errorf("%w: %d records wait in memory for the disk of %s; try again in a moment", ErrFull, queued, j.cfg.Dir)
	}
	if j.held.Load() >= maxQueue {
		return fmt.Errorf("%w: the stream AUDIT does not answer, and the chain of a tenant cannot be begun", ErrFull)
	}
	if used := j.spool.bytes.Load(); used >= j.cfg.Spool {
		why := ": a tenant's share of it is full, and makes way as fast as it can"
		if t := j.trouble.Load(); t != nil {
			why = ": " + (*t).Error()
		}
		return fmt.Errorf("%w (%d bytes, audit.spool is %d): the stream AUDIT takes nothing%s", ErrFull, used, j.cfg.Spool, why)
	}
	return nil
}

func (j *Journal) put(e auditlog.Entry, kept chan<- error) {
	if e.Time.IsZero() {
		e.Time = j.cfg.Now()
	}
	if e.Tenant == "" {
		e.Tenant = auditlog.SystemTenant
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.closed:
		if kept != nil {
			kept <- ErrClosed
		}
	case kept == nil && (len(j.queue) >= queueFor(&e) || j.fullFor(&e)):
		j.loseLocked(e.Tenant, 1)
	default:
		j.queue = append(j.queue, queued{e, kept})
	}
}

func (j *Journal) loseLocked(tenant string, n uint64) {
	j.lost[tenant] += n
	j.counted.lost.Add(n)
}

// loseEntryLocked counts an entry; one that tells of others was counted with them.
func (j *Journal) loseEntryLocked(tenant string, e *auditlog.Entry) {
	if e.Kind == auditlog.KindLost {
		j.lost[tenant] += e.Count
		return
	}
	j.loseLocked(tenant, 1)
}

// Left is how much is on its way to the stream; 0: the stream has everything that was
// noted before the call.
func (j *Journal) Left() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.leftLocked()
}

// leftLocked is how much is on its way to the stream; 0: nothing.
func (j *Journal) leftLocked() int {
	left := len(j.queue) + j.moving
	for _, l := range j.lines {
		left += len(l.pending)
	}
	for _, w := range j.waiting {
		left += len(w)
	}
	return left
}

// Shutdown keeps what is gathered, stops the worker and closes sinks and spool. Detach
// comes before it.
func (j *Journal) Shutdown(ctx context.Context) error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	j.mu.Unlock()
	close(j.stop)
	j.done.Wait()
	var faults []error
	for _, s := range j.sinks {
		faults = append(faults, s.shutdown(ctx))
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for tenant, left := range j.waiting {
		for _, q := range left {
			if q.kept != nil {
				q.kept <- ErrClosed
			}
		}
		j.cfg.Log.Warn().Str("tenant", tenant).Int("records", len(left)).Msg("records of the audit trail are lost: the stream never said how far the chain was")
	}
	clear(j.waiting)
	j.held.Store(0)
	return errors.Join(append(faults, j.spool.close())...)
}

// Stats returns counters and the state of now.
func (j *Journal) Stats() JournalStats {
	c := &j.counted
	out := JournalStats{
		Records: c.records.Load(), Batches: c.batches.Load(), Stored: c.stored.Load(), Lost: c.lost.Load(),
		SpoolBytes: j.spool.bytes.Load(), SpoolLimit: j.cfg.Spool, SinkErrors: map[string]uint64{},
	}
	for _, s := range j.sinks {
		out.SinkErrors[s.sink.Name()] = s.failed.Load()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, l := range j.lines {
		out.Pending += len(l.pending)
	}
	return out
}

// Health says what somebody must look at, or nil: the stream takes nothing or has lost
// what it had, the spool is full, a sink fails.
func (j *Journal) Health() error {
	faults := []error{j.Room()}
	if t := j.trouble.Load(); t != nil {
		faults = append(faults, fmt.Errorf("the stream AUDIT takes no records, which wait in the spool: %w", *t))
	}
	j.mu.Lock()
	for _, l := range j.lines {
		if l.cut != "" {
			faults = append(faults, errors.New(l.cut))
		}
		if since := l.room.since; !since.IsZero() && j.cfg.Now().Sub(since) > heldFor {
			faults = append(faults, fmt.Errorf("%d batches have waited since %s for room in the stream AUDIT: the oldest records do not make way (audit.maxBytes of the tenant in the policy gives more room)", len(l.pending), since.UTC().Format(time.RFC3339)))
		}
	}
	j.mu.Unlock()
	faults = append(faults, j.spool.asideHealth())
	for _, s := range j.sinks {
		faults = append(faults, s.health())
	}
	return errors.Join(faults...)
}

// Position returns how far the stream has the chain of this node for a tenant.
func (j *Journal) Position(tenant string) (auditlog.Position, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := j.lines[tenant]
	if l == nil || l.stored.Seq == 0 {
		return auditlog.Position{}, false
	}
	return l.stored, true
}

// storedLocked is what chains.json is to say.
func (j *Journal) storedLocked() map[string]auditlog.Position {
	out := make(map[string]auditlog.Position, len(j.lines))
	for tenant, l := range j.lines {
		if l.stored.Seq > 0 && l.stored.Node == j.cfg.Node {
			out[tenant] = l.stored
		}
	}
	return out
}
