package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/signetbus/signet/bench"
)

// measureCurve writes the table of throughput against the number of streams.
func measureCurve(ctx context.Context, quick bool, dir, out string) (err error) {
	plan := bench.FullCurve()
	if quick {
		plan = bench.QuickCurve()
	}
	if plan.Dir, err = os.MkdirTemp(dir, "signet-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(plan.Dir)) }()
	plan.Log = os.Stderr
	env, begin := environment(bench.Plan{Dir: plan.Dir}), time.Now()
	points, err := bench.Curve(ctx, plan)
	if err != nil {
		return err
	}
	var w io.Writer = os.Stdout
	if out != "-" {
		f, err := os.Create(out)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		w = f
	}
	_, err = fmt.Fprintf(w, `Throughput against the number of streams: %s
%s, %s
%s, volume %s, took %s

Clusters of %d, all nodes of a kind in one process, every stream with a copy on each: raw nats-server and Signet, side by side, one of
them loaded at a time. %d publishers with %d events of 256 B in flight each, the same at every step;
each figure is the median of %d measurements of %v, raw and Signet in turn.
durable: an acknowledgement means that a majority of the disks has it (Signet's default); lazy: the default of nats-server.
cpu: of all nodes together. idle: share of one core that a cluster uses with this many streams and no load.

`, env.Command, env.Date.UTC().Format("2006-01-02T15:04Z"), env.Machine, env.Versions, env.Volume, time.Since(begin).Round(time.Second),
		plan.Nodes, plan.Publishers, plan.InFlight, plan.Rounds, plan.Window)
	if err != nil {
		return err
	}
	return bench.WriteCurve(w, points)
}
