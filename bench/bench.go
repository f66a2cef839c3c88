package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Plan is how much to measure.
type Plan struct {
	Rounds      int           // of each workload, raw and Signet in turn
	Window      time.Duration // of one publishing run
	Warm        time.Duration // of publishing before it
	ReadEvents  int           // of one reading run
	Idle        int           // connections
	Dir         string        // scratch; each round gets a new folder in it
	ProfileDir  string        // CPU profiles of Signet's server in the last round; empty: none
	Only        string        // measure only workloads whose name contains it; the checks are then incomplete
	Log         io.Writer     // progress
	LazyWindow  int           // events in flight, lazy
	FsyncWindow int           // events in flight, fsync before acknowledgement
}

// FullPlan takes about four minutes.
func FullPlan() Plan {
	return Plan{
		Rounds: 5, Window: 1500 * time.Millisecond, Warm: 400 * time.Millisecond, ReadEvents: 120_000, Idle: 1000,
		Log: io.Discard, LazyWindow: 4096, FsyncWindow: 1024,
	}
}

// QuickPlan takes about a minute.
func QuickPlan() Plan {
	p := FullPlan()
	p.Rounds, p.Window, p.Warm, p.ReadEvents, p.Idle = 3, 500*time.Millisecond, 200*time.Millisecond, 30_000, 200
	return p
}

// Key names one series of figures.
type Key struct {
	Workload string
	Kind     Kind
}

// Results are the figures of all rounds.
type Results struct {
	Order   []string // workloads as first measured
	Figures map[Key][]*Figure
	Message map[Kind]int64 // stored bytes per message in the reading workloads
	Idle    map[Kind]Idle
	Steps   []Step // of the work on signatures
	Took    time.Duration
}

// Idle is what idle connections cost a server, each.
type Idle struct {
	Connections int
	RSS         float64 // bytes
	Heap        float64 // of them: objects
	Stacks      float64 // of them: goroutine stacks
	Goroutines  float64
}

func (r *Results) add(workload string, kind Kind, f *Figure) {
	known := false
	for _, w := range r.Order {
		known = known || w == workload
	}
	if !known {
		r.Order = append(r.Order, workload)
	}
	k := Key{workload, kind}
	r.Figures[k] = append(r.Figures[k], f)
}

// Run measures everything.
func Run(ctx context.Context, p Plan) (*Results, error) {
	start := time.Now()
	r := &Results{Figures: map[Key][]*Figure{}, Message: map[Kind]int64{}, Idle: map[Kind]Idle{}}
	for round := range p.Rounds {
		for _, s := range []Sync{Lazy, Durable} {
			if err := runRound(ctx, &p, r, round, s); err != nil {
				return r, fmt.Errorf("round %d, %s: %w", round+1, s, err)
			}
		}
	}
	if strings.Contains("signatures", p.Only) {
		var err error
		if r.Steps, err = Signatures(p.Rounds); err != nil {
			return r, err
		}
	}
	if !strings.Contains("idle", p.Only) {
		r.Took = time.Since(start)
		return r, nil
	}
	for _, kind := range []Kind{Raw, Signet} {
		idle, err := measureIdle(ctx, &p, kind)
		if err != nil {
			return r, fmt.Errorf("idle connections, %s: %w", kind, err)
		}
		r.Idle[kind] = idle
	}
	r.Took = time.Since(start)
	return r, nil
}

// pair is one server of each kind, with new streams that are set up alike.
type pair struct {
	*Plan
	results *Results
	profile bool
	server  map[Kind]*Server
	conn    map[Kind]*nats.Conn
}

func (p *pair) close() error {
	var faults []error
	for _, nc := range p.conn {
		nc.Close()
	}
	for _, s := range p.server {
		if err := s.Stop(); err != nil {
			faults = append(faults, fmt.Errorf("%w: stop %s: %w", ErrServer, s.Kind, err))
		}
	}
	return errors.Join(faults...)
}

func startPair(ctx context.Context, plan *Plan, r *Results, dir string, sync Sync) (*pair, error) {
	p := &pair{Plan: plan, results: r, server: map[Kind]*Server{}, conn: map[Kind]*nats.Conn{}}
	for _, kind := range []Kind{Signet, Raw} {
		s, err := Start(ctx, ServerConfig{Kind: kind, Sync: sync, Dir: filepath.Join(dir, string(kind)), Policy: pairPolicy})
		if err != nil {
			return p, err
		}
		p.server[kind] = s
		if p.conn[kind], err = s.Connect(Cred); err != nil {
			return p, err
		}
	}
	return p, p.copyStreams(ctx)
}

// copyStreams makes the streams of the raw server with the settings of Signet's.
func (p *pair) copyStreams(ctx context.Context) error {
	from, err := jetstream.New(p.conn[Signet])
	if err != nil {
		return err
	}
	to, err := jetstream.New(p.conn[Raw])
	if err != nil {
		return err
	}
	for _, name := range []string{streamPlain, streamChecked, streamRead} {
		s, err := from.Stream(ctx, name)
		if err != nil {
			return err
		}
		cfg := s.CachedInfo().Config
		cfg.Metadata = nil
		if _, err := to.CreateStream(ctx, cfg); err != nil {
			return err
		}
	}
	return nil
}

func runRound(ctx context.Context, plan *Plan, r *Results, round int, sync Sync) (err error) {
	dir := filepath.Join(plan.Dir, fmt.Sprintf("%d-%s", round, sync))
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	p, err := startPair(ctx, plan, r, dir, sync)
	defer func() { err = errors.Join(err, p.close()) }()
	if err != nil {
		return err
	}
	p.profile = plan.ProfileDir != "" && round == plan.Rounds-1
	// Who goes first changes every round.
	kinds := []Kind{Raw, Signet}
	if round%2 == 1 {
		kinds = []Kind{Signet, Raw}
	}
	if sync == Durable {
		if err := p.durable(ctx, kinds); err != nil {
			return err
		}
		if err := p.fairness(ctx); err != nil {
			return err
		}
		return p.withLog(ctx, lagWorkload, p.lag)
	}
	for _, part := range []func() error{
		func() error { return p.lazy(ctx, kinds) },
		func() error { return p.withLog(ctx, loggedWorkload, p.logged) },
		func() error { return p.reading(ctx, kinds) },
	} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// measure runs one workload and records it with what the server used.
func (p *pair) measure(ctx context.Context, name string, kind Kind, stream string, run func() (*Figure, error)) error {
	if !strings.Contains(name, p.Only) {
		return nil
	}
	s := p.server[kind]
	_, bytes, err := streamState(ctx, p.conn[kind], stream)
	if err != nil {
		return err
	}
	profile := p.profile && kind == Signet
	if profile {
		if err := s.Profile(filepath.Join(p.ProfileDir, fileName(name)+".pprof")); err != nil {
			return err
		}
	}
	before, err := s.Stats(false)
	if err != nil {
		return err
	}
	f, err := run()
	if err != nil {
		return fmt.Errorf("%s, %s: %w", name, kind, err)
	}
	after, err := s.Stats(false)
	if err != nil {
		return err
	}
	if profile {
		if err := s.Profile(""); err != nil {
			return err
		}
	}
	f.Server = after.Sub(before)
	_, now, err := streamState(ctx, p.conn[kind], stream)
	if err != nil {
		return err
	}
	f.Stored = int64(now - bytes)
	p.results.add(name, kind, f)
	fmt.Fprintf(p.Log, "%-62s %-6s %8.0f/s  cpu %5.1f us  p50 %v\n", name, kind, f.Rate(), f.CPU(), f.P50)
	return nil
}

// measureIdle connects to a new server and does nothing.
func measureIdle(ctx context.Context, p *Plan, kind Kind) (idle Idle, err error) {
	dir := filepath.Join(p.Dir, "idle-"+string(kind))
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := Start(ctx, ServerConfig{Kind: kind, Sync: Lazy, Dir: dir, Policy: Policy})
	if err != nil {
		return Idle{}, err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	// A few connections first, so that what the first one costs is not counted.
	_, closeFirst, err := connections(s, 8)
	defer closeFirst()
	if err != nil {
		return Idle{}, err
	}
	before, err := s.Stats(true)
	if err != nil {
		return Idle{}, err
	}
	_, closeAll, err := connections(s, p.Idle)
	defer closeAll()
	if err != nil {
		return Idle{}, err
	}
	time.Sleep(2 * time.Second) // what a handshake leaves behind ends by time-outs
	after, err := s.Stats(true)
	if err != nil {
		return Idle{}, err
	}
	if p.ProfileDir != "" {
		file := filepath.Join(p.ProfileDir, "idle-"+string(kind)+".pprof")
		if err := errors.Join(s.Profile(file), s.Profile("")); err != nil {
			return Idle{}, err
		}
	}
	d := after.Sub(before)
	n := float64(p.Idle)
	return Idle{Connections: p.Idle, RSS: float64(d.RSS) / n, Heap: float64(d.Heap) / n, Stacks: float64(d.Stacks) / n, Goroutines: float64(d.Goroutines) / n}, nil
}
