package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
)

// clusterCuts cuts the power of all nodes at once, again and again. Each node has a
// volume of its own.
func clusterCuts(ctx context.Context, o options) (err error) {
	fmt.Printf("power cuts of a cluster of %d, seed %d\n", clusterNodes, o.seed)
	var volumes []*volume
	var stores []string
	defer func() {
		for _, v := range volumes {
			err = errors.Join(err, v.close())
		}
	}()
	for i := range clusterNodes {
		v, err := newVolume(filepath.Join(o.dir, fmt.Sprintf("disk%d", i+1)), cutImage)
		if err != nil {
			return err
		}
		volumes, stores = append(volumes, v), append(stores, v.mount)
	}
	r, err := newClusterRun(ctx, o, "cuts", stores)
	if err != nil {
		return err
	}
	defer r.close() // before the volumes go
	wide("fault", "node", "whole after", "nobody acked", "slowest", "acked", "total acked")
	for range o.cuts {
		if err = r.strike(ctx, "power cut", "all", func(ctx context.Context) error { return r.cut(ctx, volumes) }); err != nil {
			break
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

// cut kills all nodes at the same moment, goes on with what reached the devices, and
// starts them.
func (r *clusterRun) cut(ctx context.Context, volumes []*volume) error {
	all := r.rnd.Perm(r.c.Len())
	r.c.KillAll(all...)
	faults := make([]error, len(volumes))
	var wg sync.WaitGroup
	for i, v := range volumes {
		wg.Go(func() { faults[i] = v.cut() })
	}
	wg.Wait()
	if err := errors.Join(faults...); err != nil {
		return err
	}
	return r.c.StartNodes(ctx, all...)
}
