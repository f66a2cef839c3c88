package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/bench"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
)

// plan is how often each fault comes.
type plan struct {
	kills, leaders, pairs, pauses, partitions, slow, wipes, rolling, all int
	halfOpen, loss, flips, cuts                                          int
}

var quickPlan = plan{kills: 6, leaders: 2, pairs: 1, pauses: 1, partitions: 1, slow: 1, wipes: 1, rolling: 1, all: 1, halfOpen: 1, loss: 1, flips: 1, cuts: 1}

// longPlan has n kills altogether.
func longPlan(n int) plan {
	return plan{
		kills: n - n/5 - n/10 - n/20, leaders: n / 5, pairs: n / 10, pauses: 5, partitions: 5, slow: 3, wipes: 3, rolling: 3, all: n / 20,
		halfOpen: 4, loss: 4, flips: 4, cuts: 4, // no node sets more than eight copies aside
	}
}

// chaos runs the faults of the plan in one cluster, in an order that the seed gives.
func (r *clusterRun) chaos(ctx context.Context, p plan) error {
	var todo []func(context.Context) error
	add := func(n int, do func(context.Context) error) {
		for range n {
			todo = append(todo, do)
		}
	}
	of := func(do func(context.Context, *clusterRun) error) func(context.Context) error {
		return func(ctx context.Context) error { return do(ctx, r) }
	}
	add(p.kills, r.kill)
	add(p.leaders, r.killLeader)
	add(p.pairs, r.killTwo)
	add(p.pauses, r.pause)
	add(p.partitions, r.partition)
	add(p.slow, r.slowLink)
	add(p.wipes, r.wipe)
	add(p.rolling, r.rolling)
	add(p.all, r.killAll)
	add(p.halfOpen, of(halfOpen))
	add(p.loss, of(lossy))
	add(p.flips, of(flipBit))
	add(p.cuts, of(truncate))
	r.rnd.Shuffle(len(todo), func(i, j int) { todo[i], todo[j] = todo[j], todo[i] })
	// Once, somewhere in the middle: a node misses a change of the policy.
	todo[len(todo)/2] = both(todo[len(todo)/2], r.policyChange)
	wide("fault", "node", "whole after", "nobody acked", "slowest", "acked", "total acked")
	for n, do := range todo {
		if err := do(ctx); err != nil {
			return fmt.Errorf("fault %d: %w", n+1, err)
		}
	}
	return nil
}

func both(a, b func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := a(ctx); err != nil {
			return err
		}
		return b(ctx)
	}
}

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

// wipe takes everything that a node has stored from it.
func (r *clusterRun) wipe(ctx context.Context) error {
	i := r.any()
	return r.strike(ctx, "wiped node", r.c.Name(i), func(ctx context.Context) error {
		r.c.Kill(i)
		if err := r.c.Wipe(i); err != nil {
			return err
		}
		return r.c.Start(ctx, i)
	})
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

// policyChange gives all nodes a policy with one more principal while one of them is
// down; afterwards that principal can publish at every node.
func (r *clusterRun) policyChange(ctx context.Context) error {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return err
	}
	seed, err := pair.Seed()
	if err != nil {
		return err
	}
	public, err := pair.PublicKey()
	if err != nil {
		return err
	}
	file := filepath.Join(filepath.Dir(r.at.CA), "newcomer.nk")
	if err := os.WriteFile(file, seed, 0o600); err != nil {
		return err
	}
	i := r.any()
	err = r.strike(ctx, "policy change", r.c.Name(i)+" down", func(ctx context.Context) error {
		r.c.Kill(i)
		for k := range r.c.Len() {
			if err := r.grant(k, public); err != nil {
				return err
			}
		}
		return r.c.Start(ctx, i)
	})
	if err != nil {
		return err
	}
	for k := range r.c.Len() {
		if err := r.newcomer(ctx, k, file); err != nil {
			return fmt.Errorf("the new principal at %s: %w", r.c.Name(k), err)
		}
	}
	return nil
}

// grant adds a principal to the policy of a node.
func (r *clusterRun) grant(node int, public string) error {
	name := r.c.State(node).Policy
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	text = fmt.Appendf(text, "  - {name: newcomer, identities: [{nkey: %s}], publish: [faults.newcomer]}\n", public)
	if err := os.WriteFile(name, text, 0o600); err != nil {
		return err
	}
	if !r.c.Running(node) {
		return nil
	}
	return r.c.Reload(node)
}

// newcomer proves that a principal may act at one node: the answer comes from there,
// and says that what it sent breaks the schema.
func (r *clusterRun) newcomer(ctx context.Context, node int, seed string) error {
	at := bench.Address{URL: r.c.URL(node), CA: r.at.CA, Root: r.at.Root, Creds: map[string]string{"newcomer": seed}}
	ctx, cancel := context.WithTimeout(ctx, backWait)
	defer cancel()
	for {
		c, err := at.SDK(ctx, "newcomer")
		if err == nil {
			ev := client.NewEvent("faults.entry", []byte(`{}`))
			ev.DataContentType = client.ContentTypeJSON
			_, err = c.Publish(ctx, "faults.newcomer", ev)
			c.Close()
			if errors.Is(err, client.ErrSchemaViolation) {
				return nil
			}
			if err == nil {
				return fmt.Errorf("%w: an event that breaks its schema was accepted", errBroken)
			}
		}
		if linger(ctx, 100*time.Millisecond) != nil { // the reload takes a moment
			return err
		}
	}
}
