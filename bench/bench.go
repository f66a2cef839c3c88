package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
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

const sameHeadersWorkload = "async 256 B with the headers of Signet, lazy"

// readAlongWorkload is the same with one reader of the stream, which every log needs.
const readAlongWorkload = "async 256 B with the headers of Signet, read along, lazy"

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

// lazy measures publishing where the disk does not matter.
func (p *pair) lazy(ctx context.Context, kinds []Kind) error {
	for _, size := range []int{256, 2048} {
		for _, w := range []struct{ name, stream, subject string }{
			{"plain", streamPlain, subjectPlain}, {"schema", streamChecked, subjectChecked},
		} {
			m := &nats.Msg{Subject: w.subject, Data: order(size)}
			for _, kind := range kinds {
				if err := p.async(ctx, fmt.Sprintf("async %d B %s, lazy", size, w.name), kind, w.stream, m, p.LazyWindow); err != nil {
					return err
				}
			}
		}
	}
	if err := p.sameHeaders(ctx); err != nil {
		return err
	}
	for _, kind := range kinds {
		err := p.measure(ctx, "sync 256 B schema, 1 publisher, lazy", kind, streamChecked, func() (*Figure, error) {
			return publishSync(ctx, []*nats.Conn{p.conn[kind]}, subjectChecked, order(256), 1, p.Window/2)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// async warms up and measures one workload of publishing in flight.
func (p *pair) async(ctx context.Context, name string, kind Kind, stream string, m *nats.Msg, window int) error {
	if !strings.Contains(name, p.Only) {
		return nil
	}
	if _, err := publishAsync(p.conn[kind], m, window, p.Warm); err != nil {
		return err
	}
	return p.measure(ctx, name, kind, stream, func() (*Figure, error) {
		return publishAsync(p.conn[kind], m, window, p.Window)
	})
}

// sameHeaders gives the raw server the headers that Signet makes: what they cost
// inside nats-server, and what then is left for Signet itself.
func (p *pair) sameHeaders(ctx context.Context) error {
	if !strings.Contains(sameHeadersWorkload, p.Only) && !strings.Contains(readAlongWorkload, p.Only) {
		return nil // what both are fed with
	}
	const n = 4000 // enough to be in full batches
	if err := fill(p.conn[Signet], &nats.Msg{Subject: subjectPlain, Data: order(256)}, n); err != nil {
		return err
	}
	all, _, err := streamState(ctx, p.conn[Signet], streamPlain)
	if err != nil {
		return err
	}
	m, err := typical(ctx, p.conn[Signet], streamPlain, "plain.>", 256, all-n/2)
	if err != nil {
		return err
	}
	if err := p.async(ctx, sameHeadersWorkload, Raw, streamPlain, m, p.LazyWindow); err != nil {
		return err
	}
	return p.readAlong(ctx, m)
}

// readAlong has a consumer get each event while it is published: what that costs
// nats-server is the floor of a log, which reads its stream the same way.
func (p *pair) readAlong(ctx context.Context, m *nats.Msg) error {
	if !strings.Contains(readAlongWorkload, p.Only) {
		return nil
	}
	nc, err := p.server[Raw].Connect(Cred)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := nc.JetStream()
	if err != nil {
		return err
	}
	var got atomic.Int64
	sub, err := js.Subscribe("plain.>", func(*nats.Msg) { got.Add(1) }, nats.BindStream(streamPlain), nats.DeliverNew(),
		nats.AckNone(), nats.MaxDeliver(1), nats.EnableFlowControl(), nats.IdleHeartbeat(time.Second))
	if err != nil {
		return fmt.Errorf("%w: consumer: %w", ErrLoad, err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	return p.measure(ctx, readAlongWorkload, Raw, streamPlain, func() (*Figure, error) {
		before := got.Load()
		f, err := publishAsync(p.conn[Raw], m, p.LazyWindow, p.Window)
		if err != nil {
			return nil, err
		}
		look := time.NewTicker(lagLook)
		defer look.Stop()
		for end := time.Now().Add(doneWait); got.Load()-before < int64(f.Events); <-look.C {
			if time.Now().After(end) {
				return nil, fmt.Errorf("%w: read only %d of %d events", ErrLoad, got.Load()-before, f.Events)
			}
		}
		return f, nil
	})
}

// durable measures publishing where an acknowledgement means that the disk has it.
func (p *pair) durable(ctx context.Context, kinds []Kind) error {
	payload := order(256)
	for _, kind := range kinds {
		name := fmt.Sprintf("async 256 B schema, %d in flight, fsync", p.FsyncWindow)
		if err := p.async(ctx, name, kind, streamChecked, &nats.Msg{Subject: subjectChecked, Data: payload}, p.FsyncWindow); err != nil {
			return err
		}
	}
	for _, w := range []struct {
		name              string
		publishers, conns int
	}{
		{"sync 256 B schema, 64 publishers on 1 connection, fsync", 64, 1},
		{"sync 256 B schema, 64 publishers on 64 connections, fsync", 64, 64},
		{"sync 256 B schema, 1 publisher, fsync", 1, 1},
	} {
		for _, kind := range kinds {
			conns, closeAll, err := connections(p.server[kind], w.conns)
			if err == nil {
				err = p.measure(ctx, w.name, kind, streamChecked, func() (*Figure, error) {
					return publishSync(ctx, conns, subjectChecked, payload, w.publishers, p.Window)
				})
			}
			closeAll()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func connections(s *Server, n int) (conns []*nats.Conn, closeAll func(), err error) {
	closeAll = func() {
		for _, nc := range conns {
			nc.Close()
		}
	}
	for range n {
		nc, err := s.Connect(Cred)
		if err != nil {
			return nil, closeAll, err
		}
		conns = append(conns, nc)
	}
	return conns, closeAll, nil
}

// reading fills READ of both servers with messages of the same size, headers
// included, and reads them.
func (p *pair) reading(ctx context.Context, kinds []Kind) error {
	n := p.ReadEvents
	if err := fill(p.conn[Signet], &nats.Msg{Subject: subjectRead, Data: order(256)}, n); err != nil {
		return err
	}
	// What Signet stored, headers and all, is what the raw server gets to store.
	stored, err := typical(ctx, p.conn[Signet], streamRead, filterRead, 256, uint64(n/2))
	if err != nil {
		return err
	}
	if err := fill(p.conn[Raw], stored, n); err != nil {
		return err
	}
	for _, kind := range kinds {
		msgs, bytes, err := streamState(ctx, p.conn[kind], streamRead)
		if err != nil {
			return err
		}
		p.results.Message[kind] = int64(bytes / msgs)
	}
	if raw, signet := p.results.Message[Raw], p.results.Message[Signet]; max(raw, signet)*100 > min(raw, signet)*105 {
		return fmt.Errorf("%w: messages of %d B against %d B are not of equal size", ErrLoad, raw, signet)
	}
	for _, w := range []struct {
		name string
		read func(context.Context, *nats.Conn, int) (*Figure, error)
	}{{"read, ordered consumer", readOrdered}, {"read, pull consumer with acks", readPull}} {
		for _, kind := range kinds {
			err := p.measure(ctx, w.name, kind, streamRead, func() (*Figure, error) { return w.read(ctx, p.conn[kind], n) })
			if err != nil {
				return err
			}
		}
	}
	return p.verifying(ctx, n)
}

func (p *pair) verifying(ctx context.Context, n int) error {
	c, err := p.server[Signet].SDK(ctx, Cred)
	if err != nil {
		return err
	}
	defer c.Close()
	return p.measure(ctx, "read, verifying SDK, ordered", Signet, streamRead, func() (*Figure, error) {
		return readVerified(ctx, c, n, orderedOption)
	})
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
