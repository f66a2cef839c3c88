package main

import (
	"context"
	"slices"
	"time"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client/admin"
)

// down kills nodes, leaves them down for a random time up to 2 s, and starts them.
func (r *clusterRun) down(ctx context.Context, nodes ...int) error {
	stay := time.Duration(r.rnd.Int64N(int64(2 * time.Second)))
	r.c.KillAll(nodes...)
	if err := linger(ctx, stay); err != nil {
		return err
	}
	return r.c.StartNodes(ctx, nodes...)
}

// linger lets a fault last.
func linger(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *clusterRun) kill(ctx context.Context) error {
	i := r.any()
	return r.strike(ctx, "kill -9", r.c.Name(i), func(ctx context.Context) error { return r.down(ctx, i) })
}

func (r *clusterRun) killLeader(ctx context.Context) error {
	i, err := r.leader(ctx)
	if err != nil {
		return err
	}
	return r.strike(ctx, "kill -9 leader", r.c.Name(i), func(ctx context.Context) error { return r.down(ctx, i) })
}

func (r *clusterRun) killTwo(ctx context.Context) error {
	nodes := r.rnd.Perm(r.c.Len())[:2]
	return r.strike(ctx, "kill -9 of two", r.c.Name(nodes[0])+" "+r.c.Name(nodes[1]), func(ctx context.Context) error { return r.down(ctx, nodes...) })
}

func (r *clusterRun) killAll(ctx context.Context) error {
	return r.strike(ctx, "kill -9 of all", "all", func(ctx context.Context) error { return r.down(ctx, r.rnd.Perm(r.c.Len())...) })
}

func (r *clusterRun) pause(ctx context.Context) error {
	i := r.any()
	return r.strike(ctx, "pause 5 s", r.c.Name(i), func(ctx context.Context) error {
		if err := r.c.Pause(i); err != nil {
			return err
		}
		if err := linger(ctx, 5*time.Second); err != nil {
			return err
		}
		if err := r.c.Resume(i); err != nil {
			return err
		}
		return r.c.AwaitReady(ctx, i)
	})
}

func (r *clusterRun) partition(ctx context.Context) error {
	i := r.any()
	return r.strike(ctx, "partition 8 s", r.c.Name(i), func(ctx context.Context) error {
		return r.during(ctx, i, brokertest.Link{Cut: true}, linkWait)
	})
}

func (r *clusterRun) slowLink(ctx context.Context) error {
	i := r.any()
	return r.strike(ctx, "slow link 6 s", r.c.Name(i), func(ctx context.Context) error {
		r.c.Isolate(i, brokertest.Link{Delay: 100 * time.Millisecond, BytesPerSecond: 1 << 20})
		defer r.c.Mend()
		return linger(ctx, 6*time.Second)
	})
}

// wipe takes everything that a node has stored from it, and lets the others fill it: two
// lost volumes of three are more than is promised, and a node that is being filled counts as
// lost (docs/adr/0009-empty-stores.md).
func (r *clusterRun) wipe(ctx context.Context) error {
	i := r.any()
	if err := r.strike(ctx, "wiped node", r.c.Name(i), func(ctx context.Context) error {
		r.c.Kill(i)
		if err := r.c.Wipe(i); err != nil {
			return err
		}
		return r.c.Start(ctx, i)
	}); err != nil {
		return err
	}
	return awaitStatus(ctx, r, "every node is filled", allFilled)
}

func allFilled(s *admin.ClusterStatus) bool {
	return !slices.ContainsFunc(s.Nodes, func(n admin.ClusterNode) bool { return !n.Answers || n.Store == "filling" || n.Store == "empty" })
}

// rolling restarts one node after the other with SIGTERM; the next one goes when the
// last one is ready.
func (r *clusterRun) rolling(ctx context.Context) error {
	for i := range r.c.Len() {
		if err := r.strike(ctx, "rolling restart", r.c.Name(i), func(ctx context.Context) error {
			term, cancel := context.WithTimeout(ctx, termWait)
			defer cancel()
			if err := r.c.Term(term, i); err != nil {
				return err
			}
			return r.c.Start(ctx, i)
		}); err != nil {
			return err
		}
	}
	return nil
}
