package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// chaosFault is a kind of fault of the run that needs neither volumes nor builds of its own.
type chaosFault struct {
	name  string
	quick int
	long  func(kills int) int // of so many kills altogether
	do    func(context.Context, *clusterRun) error
}

// chaosFaults are all of them. -plan knows them by these names.
func chaosFaults() []chaosFault {
	n := func(times int) func(int) int { return func(int) int { return times } }
	of := func(do func(*clusterRun, context.Context) error) func(context.Context, *clusterRun) error {
		return func(ctx context.Context, r *clusterRun) error { return do(r, ctx) }
	}
	return []chaosFault{
		{"kill", 4, func(k int) int { return k - k/5 - k/10 - k/20 }, of((*clusterRun).kill)},
		{"kill-leader", 2, func(k int) int { return k / 5 }, of((*clusterRun).killLeader)},
		{"kill-two", 1, func(k int) int { return k / 10 }, of((*clusterRun).killTwo)},
		{"kill-all", 1, func(k int) int { return k / 20 }, of((*clusterRun).killAll)},
		{"pause", 1, n(5), of((*clusterRun).pause)},
		{"partition", 1, n(5), of((*clusterRun).partition)},
		{"slow", 1, n(3), of((*clusterRun).slowLink)},
		{"slow-fill", 0, n(1), slowFill},
		{"wipe", 1, n(3), of((*clusterRun).wipe)},
		{"replace", 1, n(3), replaceNode},
		{"rolling", 1, n(3), of((*clusterRun).rolling)},
		{"half-open", 1, n(4), halfOpen},
		{"loss", 1, n(4), lossy},
		{"flip", 1, n(4), flipBit}, // no node sets more than eight copies aside
		{"truncate", 1, n(4), truncate},
		{"policy-down", 1, n(3), policyDown},
		{"policy-kill", 1, n(3), policyKill},
		{"policy-pause", 1, n(3), policyPause},
		{"policy-cut", 1, n(3), policyCut},
	}
}

// chosen reads -plan: how often each fault comes, as in "kill=2,half-open=4"; those that
// it does not name do not come.
func chosen(text string) (map[string]int, error) {
	out := map[string]int{}
	for part := range strings.SplitSeq(text, ",") {
		name, times, _ := strings.Cut(part, "=")
		n, err := strconv.Atoi(times)
		if err != nil || n < 0 || !slices.ContainsFunc(chaosFaults(), func(f chaosFault) bool { return f.name == name }) {
			var names []string
			for _, f := range chaosFaults() {
				names = append(names, f.name)
			}
			return nil, fmt.Errorf("%q: want NAME=TIMES, with a name of %s", part, strings.Join(names, " "))
		}
		out[name] = n
	}
	return out, nil
}

// plan is what comes in a run, each as often as it comes, in an order that the seed gives.
func plan(r *clusterRun, o options) []chaosFault {
	var todo []chaosFault
	for _, f := range chaosFaults() {
		times := f.long(o.kills)
		switch {
		case o.plan != nil:
			times = o.plan[f.name]
		case o.quick:
			times = f.quick
		}
		for range times {
			todo = append(todo, f)
		}
	}
	r.rnd.Shuffle(len(todo), func(i, j int) { todo[i], todo[j] = todo[j], todo[i] })
	return todo
}

// chaos runs the faults of the plan in one cluster. At its begin, in its middle and at its
// end there is a time without a fault.
func chaos(ctx context.Context, r *clusterRun, todo []chaosFault) error {
	wide("fault", "node", "whole after", "nobody acked", "slowest", "acked", "total acked")
	if err := calmly(ctx, r); err != nil {
		return err
	}
	for n, f := range todo {
		if err := f.do(ctx, r); err != nil {
			return fmt.Errorf("fault %d (%s): %w", n+1, f.name, err)
		}
		if n == len(todo)/2 || n == len(todo)-1 {
			if err := calmly(ctx, r); err != nil {
				return fmt.Errorf("after fault %d (%s): %w", n+1, f.name, err)
			}
		}
	}
	return nil
}
