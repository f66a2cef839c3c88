package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/signetbus/signet/broker/brokertest"
)

// jumps are by how much the clock of a running node is set, in turn, every second time
// that of the node that leads the stream. After each it is set back, which is a jump, too.
var jumps = []time.Duration{10 * time.Minute, -time.Minute, time.Minute, -10 * time.Minute}

const (
	quickJumps = 2
	// jumpBound is what a node may be off and still be ready.
	jumpBound = 3 * time.Minute
	// jumpFor is how long the clock is wrong.
	jumpFor = 8 * time.Second
	// jumpTold is within what the node has to say so.
	jumpTold = 15 * time.Second
)

// clusterJumps sets the clocks of nodes while they run. What was acknowledged must be
// there, in order and attested. Beyond jumpBound nothing is promised of what is tried again: the
// window in which an event id is known is by the clock, so that an event may be there twice.
func clusterJumps(ctx context.Context, o options) error {
	fmt.Printf("clocks of a cluster of %d that are set while it runs, seed %d\n", clusterNodes, o.seed)
	r, err := newClusterRun(ctx, o, "jumps", ground{clocks: true})
	if err != nil {
		return err
	}
	defer r.close()
	r.w.l.clocks, r.w.l.far = 10*time.Minute, true
	n := len(jumps)
	if o.quick {
		n = quickJumps
	}
	wide("fault", "node", "whole after", "nobody acked", "slowest", "acked", "total acked")
	for k := 0; k < n && err == nil; k++ {
		i := r.any()
		if k%2 == 0 {
			if i, err = r.leader(ctx); err != nil {
				break
			}
		}
		err = jump(ctx, r, i, jumps[k])
	}
	if err == nil {
		err = r.judge(ctx, "clocks that are set")
	}
	if err != nil {
		r.logs()
	}
	return err
}

// jump sets the clock of a node that runs, and sets it right again. The node must say so
// both times, and must not be ready while it is far off; the others go on.
func jump(ctx context.Context, r *clusterRun, i int, by time.Duration) error {
	return r.strike(ctx, "jump "+signed(by), r.c.Name(i), func(ctx context.Context) error {
		if err := setRunning(ctx, r, i, by); err != nil {
			return err
		}
		if by.Abs() > jumpBound {
			if err := awaitReadiness(ctx, r, i, "this node's clock is wrong"); err != nil {
				return err
			}
		}
		before := r.w.l.acked()
		if err := linger(ctx, jumpFor); err != nil {
			return err
		}
		if r.w.l.acked() == before {
			return fmt.Errorf("%w: nobody had an acknowledgement for %v while the clock of one node was wrong", errBroken, jumpFor)
		}
		if err := setRunning(ctx, r, i, 0); err != nil {
			return err
		}
		return r.c.AwaitReady(ctx, i)
	})
}

// setRunning sets a clock and waits until the node has noticed.
func setRunning(ctx context.Context, r *clusterRun, i int, off time.Duration) error {
	told := func() int { return strings.Count(r.c.Log(i, 1<<20), "this node's clock was set") }
	before := told()
	if err := setOffset(r, i, off); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, jumpTold)
	defer cancel()
	for told() == before {
		if err := linger(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("%w: the clock of %s was set to %s and it does not say so: %w", errBroken, r.c.Name(i), signed(off), err)
		}
	}
	return nil
}

// awaitReadiness waits until a node is not ready, and says why.
func awaitReadiness(ctx context.Context, r *clusterRun, i int, why string) error {
	ctx, cancel := context.WithTimeout(ctx, jumpTold)
	defer cancel()
	for {
		ready, said := brokertest.Probe(ctx, r.c, i)
		if !ready && strings.Contains(said, why) {
			return nil
		}
		if err := linger(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("%w: %s says %q (ready %t), want %q: %w", errBroken, r.c.Name(i), said, ready, why, err)
		}
	}
}
