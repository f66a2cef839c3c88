package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// CurvePlan is how throughput against the number of streams is measured. In a cluster
// every stream is a group of its own with a leader, a log and a sync of its own.
type CurvePlan struct {
	Nodes      int           // of each cluster: 3 or 5
	Streams    []int         // how many there are at each step, ascending
	Publishers int           // connections, spread over the nodes; the same at every step
	InFlight   int           // events of one publisher without an acknowledgement
	Rounds     int           // of each step, raw and Signet in turn; the median counts
	Window     time.Duration // of one measurement
	Warm       time.Duration // of publishing before it
	Idle       time.Duration // of looking at the clusters without load, at each step
	Dir        string        // scratch
	Log        io.Writer     // progress
}

// FullCurve takes about four minutes.
func FullCurve() CurvePlan {
	return CurvePlan{
		Nodes: 3, Streams: []int{1, 2, 4, 8, 16, 32, 64, 128}, Publishers: 32, InFlight: 32,
		Rounds: 3, Window: 800 * time.Millisecond, Warm: 200 * time.Millisecond, Idle: time.Second, Log: io.Discard,
	}
}

// QuickCurve takes about a minute.
func QuickCurve() CurvePlan {
	p := FullCurve()
	p.Streams, p.Rounds = []int{1, 8, 32}, 1
	return p
}

// CurvePoint is one step of one kind.
type CurvePoint struct {
	Sync    Sync
	Streams int
	Kind    Kind
	Figure  *Figure // of the median round
	Idle    float64 // share of one core that the whole cluster uses without load
}

// Curve measures. The two clusters run side by side; only one has load at a time, and
// what the other uses meanwhile is its Idle.
func Curve(ctx context.Context, p CurvePlan) ([]CurvePoint, error) {
	var out []CurvePoint
	for _, s := range []Sync{Durable, Lazy} {
		points, err := p.run(ctx, s)
		out = append(out, points...)
		if err != nil {
			return out, fmt.Errorf("curve, %s: %w", s, err)
		}
	}
	return out, nil
}

// curve is the two clusters of one sync setting.
type curve struct {
	*CurvePlan
	server map[Kind]*Server
	conns  map[Kind][]*nats.Conn
}

func (p *CurvePlan) run(ctx context.Context, sync Sync) (points []CurvePoint, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	dir := filepath.Join(p.Dir, "curve-"+string(sync))
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	c := &curve{CurvePlan: p, server: map[Kind]*Server{}, conns: map[Kind][]*nats.Conn{}}
	defer func() { err = errors.Join(err, c.close()) }()
	if err := c.start(ctx, dir, sync); err != nil {
		return nil, err
	}
	kinds := []Kind{Raw, Signet}
	for step, n := range p.Streams {
		if err := c.grow(ctx, n); err != nil {
			return points, fmt.Errorf("%d streams: %w", n, err)
		}
		idle, err := c.idle(ctx)
		if err != nil {
			return points, err
		}
		figures := map[Kind][]*Figure{}
		for round := range p.Rounds {
			for k := range kinds {
				kind := kinds[(k+step+round)%2] // who goes first changes
				f, err := c.measure(ctx, kind, n)
				if err != nil {
					return points, fmt.Errorf("%d streams, %s: %w", n, kind, err)
				}
				figures[kind] = append(figures[kind], f)
			}
		}
		for _, kind := range kinds {
			f := median(figures[kind])
			points = append(points, CurvePoint{Sync: sync, Streams: n, Kind: kind, Figure: f, Idle: idle[kind]})
			fmt.Fprintf(p.Log, "%-8s %4d streams  %-6s %8.0f/s  cpu %6.1f us  idle %4.1f %%\n", sync, n, kind, f.Rate(), f.CPU(), 100*idle[kind])
		}
	}
	return points, nil
}

// median is the figure with the middle rate; of an even number the higher one.
func median(all []*Figure) *Figure {
	slices.SortFunc(all, func(a, b *Figure) int { return cmp.Compare(a.Rate(), b.Rate()) })
	return all[len(all)/2]
}

func (c *curve) close() error {
	var faults []error
	for _, conns := range c.conns {
		for _, nc := range conns {
			nc.Close()
		}
	}
	for _, s := range c.server {
		if err := s.Stop(); err != nil {
			faults = append(faults, fmt.Errorf("%w: stop %s: %w", ErrServer, s.Kind, err))
		}
	}
	return errors.Join(faults...)
}

func (c *curve) start(ctx context.Context, dir string, sync Sync) error {
	for _, kind := range []Kind{Signet, Raw} {
		s, err := Start(ctx, ServerConfig{Kind: kind, Sync: sync, Dir: filepath.Join(dir, string(kind)), Policy: curvePolicy(c.Streams[0]), Nodes: c.Nodes})
		if err != nil {
			return err
		}
		c.server[kind] = s
		urls := strings.Split(s.URL, ",")
		for i := range c.Publishers {
			at := s.Address
			at.URL = urls[i%len(urls)]
			nc, err := at.Connect(Cred)
			if err != nil {
				return err
			}
			c.conns[kind] = append(c.conns[kind], nc)
		}
	}
	return nil
}

// grow makes both clusters have n streams that are set up alike: Signet by its policy,
// the other by what Signet has made of it.
func (c *curve) grow(ctx context.Context, n int) error {
	for _, file := range c.server[Signet].Policies {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		_, rest, ok := strings.Cut(string(text), curveRest)
		if !ok {
			return fmt.Errorf("bench: %s has no line %q", file, curveRest)
		}
		// By renaming: the broker must not read half of it.
		if err := os.WriteFile(file+".new", []byte(curveStreams(n)+curveRest+rest), 0o600); err != nil {
			return err
		}
		if err := os.Rename(file+".new", file); err != nil {
			return err
		}
	}
	from, err := jetstream.New(c.conns[Signet][0])
	if err != nil {
		return err
	}
	to, err := jetstream.New(c.conns[Raw][0])
	if err != nil {
		return err
	}
	for i := range n {
		cfg, err := c.settled(ctx, from, curveName(i))
		if err != nil {
			return err
		}
		cfg.Metadata = nil
		if _, err := to.CreateOrUpdateStream(ctx, cfg); err != nil {
			return err
		}
		if _, err := c.settled(ctx, to, cfg.Name); err != nil {
			return err
		}
	}
	return nil
}

// settled waits until a stream is there, with a leader and all of its copies.
func (c *curve) settled(ctx context.Context, js jetstream.JetStream, name string) (jetstream.StreamConfig, error) {
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		s, err := js.Stream(ctx, name)
		if err == nil {
			info := s.CachedInfo()
			whole := info.Cluster != nil && info.Cluster.Leader != "" && len(info.Cluster.Replicas) == c.Nodes-1
			for i := 0; whole && i < len(info.Cluster.Replicas); i++ {
				whole = info.Cluster.Replicas[i].Current
			}
			if whole {
				return info.Config, nil
			}
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return jetstream.StreamConfig{}, fmt.Errorf("bench: stream %s is not whole: %w", name, cmp.Or(err, ctx.Err()))
		}
	}
}

// idle is the share of a core that each cluster uses without load.
func (c *curve) idle(ctx context.Context) (map[Kind]float64, error) {
	begin, before := time.Now(), map[Kind]Stats{}
	for kind, s := range c.server {
		st, err := s.Stats(false)
		if err != nil {
			return nil, err
		}
		before[kind] = st
	}
	select {
	case <-time.After(c.Idle):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	out := map[Kind]float64{}
	for kind, s := range c.server {
		after, err := s.Stats(false)
		if err != nil {
			return nil, err
		}
		out[kind] = float64(after.Sub(before[kind]).CPU) / float64(time.Since(begin))
	}
	return out, nil
}

func (c *curve) measure(ctx context.Context, kind Kind, n int) (*Figure, error) {
	if _, err := publishSpread(c.conns[kind], n, c.InFlight, c.Warm); err != nil {
		return nil, err
	}
	before, err := c.server[kind].Stats(false)
	if err != nil {
		return nil, err
	}
	f, err := publishSpread(c.conns[kind], n, c.InFlight, c.Window)
	if err != nil {
		return nil, err
	}
	after, err := c.server[kind].Stats(false)
	if err != nil {
		return nil, err
	}
	f.Server = after.Sub(before)
	return f, ctx.Err()
}
