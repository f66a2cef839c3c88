package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// clusterCuts cuts the power of all nodes at once, again and again, and now and then of
// one of them. Each node has a volume of its own.
func clusterCuts(ctx context.Context, o options) (err error) {
	fmt.Printf("power cuts of a cluster of %d, seed %d\n", clusterNodes, o.seed)
	volumes, stores, err := nodeVolumes(o.dir, "disk", cutImage)
	defer func() {
		for _, v := range volumes {
			err = errors.Join(err, v.close())
		}
	}()
	if err != nil {
		return err
	}
	r, err := newClusterRun(ctx, o, "cuts", ground{stores: stores, log: true})
	if err != nil {
		return err
	}
	defer r.close() // before the volumes go
	wide("fault", "node", "whole after", "nobody acked", "slowest", "acked", "total acked")
	for i := 0; i < o.cuts && err == nil; i++ {
		if err = r.cut(ctx, volumes, r.rnd.Perm(r.c.Len())...); err == nil && i%cutsPerOne == 0 {
			err = r.cut(ctx, volumes, r.rnd.IntN(r.c.Len()))
		}
	}
	if err == nil {
		err = r.judge(ctx, "power cut of all")
	}
	if err != nil {
		r.logs()
	}
	return err
}

// cutsPerOne is how many power cuts of all nodes there are for one of a single node.
const cutsPerOne = 4

// cut kills nodes at the same moment, goes on with what reached their devices, and
// starts them.
func (r *clusterRun) cut(ctx context.Context, volumes []*volume, nodes ...int) error {
	kind, target := "power cut", "all"
	if len(nodes) == 1 {
		kind, target = "power cut of one", r.c.Name(nodes[0])
	}
	return r.strike(ctx, kind, target, func(ctx context.Context) error {
		r.c.KillAll(nodes...)
		faults := make([]error, len(nodes))
		var wg sync.WaitGroup
		for i, n := range nodes {
			wg.Go(func() { faults[i] = volumes[n].cut() })
		}
		wg.Wait()
		if err := errors.Join(faults...); err != nil {
			return err
		}
		return r.c.StartNodes(ctx, nodes...)
	})
}
