package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/bench"
	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
)

const (
	clusterNodes = 3
	backWait     = 90 * time.Second // for a node to be ready, and for all publishers to go on
	termWait     = 60 * time.Second // for an orderly end: the drain time of 30 s and as much again

	// The targets, for the 99th of 100 faults.
	targetKill    = 10 * time.Second
	targetRolling = 5 * time.Second
)

// clusterChaos is the run without power cuts, other clocks and other builds.
func clusterChaos(ctx context.Context, o options) (err error) {
	fmt.Printf("cluster of %d, seed %d\n", clusterNodes, o.seed)
	r, err := newClusterRun(ctx, o, "chaos", ground{log: true})
	if err != nil {
		return err
	}
	defer r.close()
	if err = chaos(ctx, r, plan(r, o)); err == nil {
		err = r.judge(ctx, "cluster")
	}
	if err != nil {
		r.logs()
	}
	return err
}

// clusterRun is a cluster under load that gets hurt.
type clusterRun struct {
	c       *brokertest.Processes
	w       *workload
	at      bench.Address
	load    time.Duration
	readers time.Duration
	rnd     *rand.Rand
	begin   time.Time
	dir     string
	binary  string   // of signet
	logged  bool     // the stream has a log
	stores  []string // folders of the nodes' states
	launch  []launch // how each node starts

	faults  int
	still   map[string]spread // by kind: nobody had an acknowledgement
	slowest map[string]spread // by kind: one publisher had none
	aside   int               // damaged copies that were set aside
	ends    int               // copies that had lost their end and got it again
	freed   int               // publishers whose event id was falsely taken for on its way
	changes policies
}

// ground is where a cluster of a run stands.
type ground struct {
	stores []string // folders of the nodes' states; empty: in the run's own
	small  bool     // volumes of diskImage
	clocks bool     // that can be set while a node runs
	log    bool     // the stream has one
}

// overseer is a principal that may look at nodes and dead letters.
const overseer = `  - name: overseer
    identities: [{nkey: {{nkey "overseer"}}}]
    admin: [cluster, dlq]
`

// policy is that of all nodes.
func (g *ground) policy() string {
	text, letters := policyWith("1GiB"), "96MiB"
	if g.small {
		text, letters = policyWith("250MiB"), "16MiB"
	}
	if !g.log {
		text = unlogged(text)
	}
	return strings.Replace(text, "deadLetter: {maxBytes: 1MiB}", "deadLetter: {maxBytes: "+letters+"}", 1) + overseer
}

// launch is how a node starts. It changes only while the node does not run.
type launch struct {
	binary string // empty: that of the run
	env    []string
	off    time.Duration // of its clock
}

// newClusterRun starts a cluster with its load.
func newClusterRun(ctx context.Context, o options, name string, g ground) (*clusterRun, error) {
	dir := filepath.Join(o.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	stores := g.stores
	for i := len(stores); i < clusterNodes; i++ {
		stores = append(stores, filepath.Join(dir, fmt.Sprintf("store%d", i+1)))
	}
	if o.binary == "" {
		o.binary = filepath.Join(dir, "signet")
		if err := brokertest.BuildSignet(ctx, o.binary); err != nil {
			return nil, err
		}
	}
	r := &clusterRun{
		load: o.load, readers: o.readers, begin: time.Now(), dir: dir, binary: o.binary, logged: g.log, stores: stores, launch: make([]launch, clusterNodes),
		rnd:   rand.New(rand.NewPCG(o.seed, 0)),
		still: map[string]spread{}, slowest: map[string]spread{},
	}
	c, err := brokertest.NewProcesses(ctx, brokertest.ProcessOptions{
		Nodes: clusterNodes, Dir: dir, Binary: o.binary, Policy: g.policy(), Stores: stores,
		Command: func(i int) (string, []string) { return r.launch[i].binary, r.launch[i].env },
		Change: func(_ int, cfg *broker.Config) {
			cfg.Log.Level = "info"
			cfg.Gate.APIRate = 100000 // all dead letters are read one by one
			if g.small {
				cfg.Storage.MaxBytes = diskMax
			}
		},
	})
	if err != nil {
		return nil, err
	}
	r.c = c
	for i := range c.Len() {
		if err := setOffset(r, i, 0); g.clocks && err != nil {
			return nil, err
		}
	}
	st := c.State(0)
	r.at = bench.Address{URL: c.URLs(), CA: st.CA, Creds: st.Creds, Root: st.Root}
	start, cancel := context.WithTimeout(ctx, backWait)
	defer cancel()
	if err = c.StartAll(start); err == nil {
		if r.w, err = newWorkload(start, r.at); err == nil {
			err = r.w.beats.allBeat(start, r.w.fault)
		}
	}
	if err != nil {
		r.logs()
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *clusterRun) close() {
	if r.w != nil {
		r.w.close()
	}
	r.c.Close()
}

// logs are the last lines of all nodes, for a run that failed.
func (r *clusterRun) logs() {
	for i := range r.c.Len() {
		fmt.Printf("the log of %s ends with\n%s\n", r.c.Name(i), r.c.Log(i, 30))
	}
}

// strike lets the load run, does something to the cluster, waits until every publisher
// goes on, and notes how long that took. do returns when the cluster is whole again.
func (r *clusterRun) strike(ctx context.Context, kind, target string, do func(context.Context) error) error {
	select {
	case <-time.After(r.load + time.Duration(r.rnd.Int64N(int64(r.load)))):
	case <-ctx.Done():
		return ctx.Err()
	case err := <-r.w.fault:
		return err
	}
	before, begin := r.w.l.acked(), time.Now()
	r.faults++
	r.w.beats.begin()
	limit, cancel := context.WithTimeout(ctx, 2*backWait)
	defer cancel()
	if err := do(limit); err != nil {
		return fmt.Errorf("%s of %s: %w", kind, target, err)
	}
	if err := goOn(limit, r); err != nil {
		return fmt.Errorf("%s of %s: %w", kind, target, r.w.stuck(err))
	}
	still, slowest := r.w.beats.end()
	r.still[kind], r.slowest[kind] = append(r.still[kind], still), append(r.slowest[kind], slowest)
	wide(kind, target, time.Since(begin), still, slowest, r.w.l.acked()-before, r.w.l.acked())
	return r.w.failed()
}

// leader is the node that leads the stream.
func (r *clusterRun) leader(ctx context.Context) (int, error) {
	nc, err := r.at.Connect("reader")
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, err
	}
	for {
		s, err := js.Stream(ctx, stream)
		if err == nil {
			for i := range r.c.Len() {
				if info := s.CachedInfo(); info.Cluster != nil && r.c.Name(i) == info.Cluster.Leader {
					return i, nil
				}
			}
		}
		if ctx.Err() != nil {
			return 0, fmt.Errorf("the stream has no leader: %w", errors.Join(err, ctx.Err()))
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (r *clusterRun) any() int { return r.rnd.IntN(r.c.Len()) }

// judge ends the load, reads everything back from every node and every copy, and
// prints the verdict.
func (r *clusterRun) judge(ctx context.Context, what string) error {
	ctx, cancel := context.WithTimeout(ctx, r.readers)
	defer cancel()
	if err := r.w.finish(ctx); err != nil {
		return err
	}
	last, err := lastSequence(ctx, r.at)
	if err != nil {
		return err
	}
	if err := r.w.seen.complete(ctx, last); err != nil {
		return err
	}
	if err := r.w.seen.beyond(last); err != nil {
		return err
	}
	fmt.Printf("durable consumer: %d events handled, %d of them more than once\n", len(r.w.seen.seen), r.w.seen.again)
	for i := range r.c.Len() {
		node := r.at
		node.URL = r.c.URL(i)
		v, err := readBack(ctx, node, r.w.l, r.begin, r.readers)
		if err != nil {
			return fmt.Errorf("reading back at %s: %w", r.c.Name(i), err)
		}
		v.print(what+", read at "+r.c.Name(i), r.faults)
		if i == 0 {
			v.tellTimes(what)
		}
		if err := v.err(); err != nil {
			return err
		}
	}
	if err := r.copies(ctx, what, last); err != nil {
		return err
	}
	if err := judgeLetters(ctx, r, what); err != nil {
		return err
	}
	if r.logged {
		if err := judgeLog(ctx, r.at, what, r.readers); err != nil {
			return err
		}
	}
	tellDamage(r, what)
	fmt.Printf("%s: %d tries were repeated under the same event id, %d starts were repeated, %d publishers waited for an event id that was not on its way\n",
		what, r.w.retries.Load(), r.c.Restarts(), r.freed)
	for _, kind := range slices.Sorted(maps.Keys(r.still)) {
		fmt.Printf("%-16s nobody acknowledged for: %v; slowest publisher: %v\n", kind, r.still[kind], r.slowest[kind])
	}
	return r.targets()
}

// targetSamples is how many times are enough to hold them against a target.
const targetSamples = 20

var errSlow = errors.New("a target was missed")

// targets holds the times against what is promised.
func (r *clusterRun) targets() error {
	var errs []error
	for kind, most := range map[string]time.Duration{"kill -9": targetKill, "kill -9 leader": targetKill, "rolling restart": targetRolling} {
		got := r.still[kind].quantile(0.99)
		if len(r.still[kind]) == 0 {
			continue
		}
		fmt.Printf("target: writable within %v of a %s (p99): %v\n", most, kind, got.Round(time.Millisecond))
		// A few samples on a machine that does other things are no percentile.
		if got > most && len(r.still[kind]) >= targetSamples {
			errs = append(errs, fmt.Errorf("%w: %s: %v, want at most %v", errSlow, kind, got, most))
		}
	}
	return errors.Join(errs...)
}

func wide(cells ...any) { columns(18, 15, cells) }
