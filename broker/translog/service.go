package translog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/tlog"
)

// Source is one stream that has a log.
type Source struct {
	// Tenant and Stream name the log; Account is where the stream is, which for a
	// tenant's stream has its name.
	Tenant, Stream, Account string
	// Filter is the subject of what is logged; other messages of the stream are absent
	// to the log. Empty: every message.
	Filter string
	// Room is the most that the log may take in LOG, in bytes; 0: as much as there is.
	Room int64
}

// Config is what New needs. All functions are safe for concurrent use.
type Config struct {
	Cluster  string // of the cluster, or the node without one
	Upstream Upstream
	// Tenant returns the broker's own connection into an account, System that into the
	// account of the streams AUDIT and LOG.
	Tenant func(account string) (*nats.Conn, error)
	System func() (*nats.Conn, error)
	// Leads says whether this node leads a stream.
	Leads  func(account, stream string) bool
	Signer func() *signing.Signer
	Ring   func() *keyring.Ring
	// RingDocument is the signed keyring that goes into proofs.
	RingDocument func() []byte
	// Durable waits until what was acknowledged is on stable storage; nil where every
	// write is synced before its acknowledgement.
	Durable func(ctx context.Context) error
	// Lacks returns how many sequences within a stream this node knows to be empty for
	// good: accepted damage, or never acknowledged; all ones: any. nil: none.
	Lacks func(account, stream string) uint64
	// Follow opens a follower of the files that this node has of a stream, which begins
	// at a sequence. nil: every log is read from the server.
	Follow func(account, stream string, from uint64) (Follower, error)
	// Sink is a file, or a folder in which each log has one, to which the last checkpoint
	// of each log is appended every SinkEvery. Empty: none.
	Sink string
	// SinkEvery defaults to one minute.
	SinkEvery time.Duration
	// HistoryEvery is how often a checkpoint goes to AUDIT, which keeps them for good;
	// default one hour, with which the room for a log lasts for years.
	HistoryEvery time.Duration
	// Attested has the digests that the gates of this node have computed. nil: none.
	Attested *Attested
	Now      func() time.Time // default time.Now
	// retryFiles is retryFiles, but in tests.
	retryFiles time.Duration
	Log        zerolog.Logger
}

// State is what this node knows of one log.
type State struct {
	Tenant, Stream string
	Leading        bool // this node writes it
	Origin         tlog.Origin
	First          uint64
	Size           int64
	Time           time.Time // of the last checkpoint that this node has published
	LastSeq        uint64    // of the stream, as far as it is known
	Absent         uint64    // sequences that this node has logged as absent
	Attested       uint64    // leaves that it did not compute whole: Config.Attested had the digest
	Checkpoints    uint64
	Failures       uint64
	// ByServer: the files of the stream cannot be read, or it has holes, so its log is read
	// from the server.
	ByServer bool
	// Behind is since when something stored waits for a checkpoint; zero: nothing does.
	Behind time.Time
	// Used and Room are what the log takes in LOG and what it may, in bytes; 0 before this
	// node has written it, and Room also where nothing is set.
	Used, Room int64
	// Fault is why the log stands still; nil while it goes on. ErrDisagrees needs
	// somebody to look; anything else is tried again.
	Fault error
	// Unkept is why AUDIT does not have the last checkpoint that it should, since
	// UnkeptSince; nil: it has.
	Unkept      error
	UnkeptSince time.Time
}

// Lag is how many sequences are stored and not in a checkpoint.
func (s *State) Lag() uint64 {
	if next := s.First + uint64(s.Size); s.First > 0 && s.LastSeq+1 > next {
		return s.LastSeq + 1 - next
	}
	return 0
}

// Service keeps logs.
type Service struct {
	cfg     Config
	archive archive
	sink    *sink
	life    context.Context // ends with Shutdown; the only context kept, for the workers
	stop    context.CancelFunc
	work    sync.WaitGroup
	proofs  proofs

	mu   sync.Mutex
	logs map[Source]*log
}

// New returns a service without logs.
func New(cfg Config) (*Service, error) {
	if cfg.Cluster == "" || cfg.Upstream == nil || cfg.Tenant == nil || cfg.System == nil || cfg.Leads == nil || cfg.Signer == nil || cfg.Ring == nil || cfg.RingDocument == nil {
		return nil, errors.New("translog: cluster, upstream, tenant, system, leads, signer, ring and ring document are required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.SinkEvery = cmp.Or(cfg.SinkEvery, time.Minute)
	cfg.HistoryEvery = cmp.Or(cfg.HistoryEvery, time.Hour)
	cfg.retryFiles = cmp.Or(cfg.retryFiles, retryFiles)
	s := &Service{cfg: cfg, archive: archive{conn: cfg.System, durable: cfg.Durable}, logs: map[Source]*log{}}
	s.archive.letGo = s.letGo
	s.life, s.stop = context.WithCancel(context.Background())
	var err error
	if s.sink, err = newSink(cfg.Sink, cfg.SinkEvery, func(err error) {
		cfg.Log.Error().Err(err).Msg("checkpoints not written to the sink")
	}); err != nil {
		s.stop()
		return nil, err
	}
	s.work.Go(func() { s.sink.run(s.life) })
	return s, nil
}

// Set makes sources the streams that have a log. A log that is not among them stands
// still; nothing of it is deleted. It does not wait.
func (s *Service) Set(sources []Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil {
		return
	}
	for src, l := range s.logs {
		if !slices.Contains(sources, src) {
			l.stop()
			delete(s.logs, src)
		}
	}
	for _, src := range sources {
		if s.logs[src] != nil {
			continue
		}
		l := &log{s: s, src: src, state: State{Tenant: src.Tenant, Stream: src.Stream}}
		var ctx context.Context
		ctx, l.stop = context.WithCancel(s.life)
		s.logs[src] = l
		s.work.Go(func() { l.run(ctx) })
	}
}

// Shutdown stops all logs and waits for them within ctx. What was not in a checkpoint
// is logged by the next writer.
func (s *Service) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stop() // Set starts nothing from here on, so what is waited for does not grow
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { s.work.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// States returns what this node knows of its logs, by tenant and stream.
func (s *Service) States() []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]State, 0, len(s.logs))
	for _, l := range s.logs {
		out = append(out, l.snapshot())
	}
	slices.SortFunc(out, func(a, b State) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Stream, b.Stream))
	})
	return out
}

// Fault joins why logs of this node need somebody to look at: State.Trouble of each.
func (s *Service) Fault() error {
	var faults []error
	for _, st := range s.States() {
		if err := st.Trouble(time.Now()); err != nil {
			faults = append(faults, fmt.Errorf("log of %s/%s: %w", st.Tenant, st.Stream, err))
		}
	}
	return errors.Join(faults...)
}

// Streams returns the logged streams of a tenant, sorted.
func (s *Service) Streams(tenant string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for src := range s.logs {
		if src.Tenant == tenant {
			out = append(out, src.Stream)
		}
	}
	slices.Sort(out)
	return out
}

// find returns the log of a tenant's stream.
//
// Errors: ErrNotLogged.
func (s *Service) find(tenant, stream string) (*log, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for src, l := range s.logs {
		if src.Tenant == tenant && src.Stream == stream {
			return l, nil
		}
	}
	return nil, fmt.Errorf("%w: %s; give the stream log: true in the policy", ErrNotLogged, stream)
}

// log is one log, whether this node writes it or not.
type log struct {
	s    *Service
	src  Source
	stop context.CancelFunc

	// Of the goroutine: when this node last handed the stream on, and when what the log
	// takes in LOG was last counted.
	stepped, counted time.Time
	used             int64
	filesAgain       time.Time // before which the files of the stream are not tried again

	mu    sync.Mutex
	state State
	began time.Time // when this node last began to write it
}

func (l *log) update(change func(*State)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.state)
}

func (l *log) snapshot() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Between two tries to write a log.
const (
	retrySoon     = 100 * time.Millisecond
	retryLater    = time.Second
	retryDisagree = 10 * time.Second
)

// run writes the log whenever this node leads the stream.
func (l *log) run(ctx context.Context) {
	for ctx.Err() == nil {
		wait := pollLeader
		if l.s.cfg.Leads(l.src.Account, l.src.Stream) {
			l.update(func(s *State) {
				if l.began = time.Now(); s.Behind.IsZero() {
					s.Behind = l.began // until it is known that nothing waits
				}
			})
			wait = l.settle(ctx, l.write(ctx))
		} else {
			l.update(func(s *State) { // it is another node's
				s.Leading, s.ByServer, s.Fault, s.Behind, s.Unkept, s.Used, s.Room = false, false, nil, time.Time{}, nil, 0, 0
			})
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

func (l *log) write(ctx context.Context) error {
	w, err := l.open(ctx)
	if err != nil {
		return err
	}
	defer w.close()
	l.update(func(s *State) {
		s.Leading = true
		s.Origin, s.First, s.Size, s.Time = w.cp.Origin, w.cp.First, w.cp.Size, w.cp.Time
	})
	return w.run(ctx)
}

// settle notes how a try ended, and says when the next is due.
func (l *log) settle(ctx context.Context, err error) time.Duration {
	if err == nil || ctx.Err() != nil {
		l.update(func(s *State) { s.Leading = false })
		return retrySoon
	}
	known := l.snapshot().Fault
	l.update(func(s *State) {
		s.Fault, s.Leading = err, false
		s.Failures++
		if s.Behind.IsZero() {
			s.Behind = time.Now()
		}
	})
	level, wait := zerolog.WarnLevel, retryLater
	switch {
	case errors.Is(err, ErrDisagrees) || errors.Is(err, ErrDamaged) || errors.Is(err, errRoom):
		level, wait = zerolog.ErrorLevel, retryDisagree
	case errors.Is(err, errFenced) || errors.Is(err, errFeed):
		level, wait = zerolog.InfoLevel, retrySoon
	}
	if known == nil || known.Error() != err.Error() && !(errors.Is(known, tlog.ErrFuture) && errors.Is(err, tlog.ErrFuture)) { // whose text has the clock in it
		l.s.cfg.Log.WithLevel(level).Err(err).Str("tenant", l.src.Tenant).Str("stream", l.src.Stream).Msg("the log does not go on")
	}
	return wait
}
