package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/signetbus/signet/broker/brokertest"
)

const (
	quickDisks = 1
	// fullFor is how long the disk of one node stays full.
	fullFor = 10 * time.Second
)

// clusterDisks fills the disk of one node after the other: in turn up to just below the hard
// watermark and to the last block, each of any node and of the one that leads the stream,
// of which the last block comes first.
func clusterDisks(ctx context.Context, n int, o options) (err error) {
	if o.quick {
		n = min(n, quickDisks)
	}
	fmt.Printf("full disks in a cluster of %d, seed %d\n", clusterNodes, o.seed)
	volumes, stores, err := nodeVolumes(o.dir, "full", diskImage)
	defer func() {
		for _, v := range volumes {
			err = errors.Join(err, v.close())
		}
	}()
	if err != nil {
		return err
	}
	r, err := newClusterRun(ctx, o, "disks", ground{stores: stores, small: true})
	if err != nil {
		return err
	}
	defer r.close() // before the volumes go
	wide("fault", "node", "whole after", "nobody acked", "slowest", "acked", "total acked")
	for i := 0; i < n && err == nil; i++ {
		if err = fullNode(ctx, r, volumes, i%2 == 0, i%4 == 0 || i%4 == 3); err == nil && i == n-1 {
			err = calmly(ctx, r)
		}
	}
	if err == nil {
		err = r.judge(ctx, "full disk of one")
	}
	if err != nil {
		r.logs()
	}
	return err
}

// nodeVolumes makes a volume for each node. Those that it made are returned with an error, too.
func nodeVolumes(dir, name string, size int64) (volumes []*volume, stores []string, err error) {
	for i := range clusterNodes {
		v, err := newVolume(filepath.Join(dir, fmt.Sprintf("%s%d", name, i+1)), size)
		if v != nil {
			volumes, stores = append(volumes, v), append(stores, v.mount)
		}
		if err != nil {
			return volumes, stores, err
		}
	}
	return volumes, stores, nil
}

// fullNode fills the disk of a node and frees it after a while. Meanwhile the others go on,
// and the node says what it lacks; then it comes back by itself.
func fullNode(ctx context.Context, r *clusterRun, volumes []*volume, lead, atOnce bool) error {
	i, kind, target := r.any(), "disk nearly full", ""
	if lead {
		var err error
		if i, err = r.leader(ctx); err != nil {
			return err
		}
		target = " lead"
	}
	if atOnce {
		kind = "disk full"
	}
	if err := awaitStatus(ctx, r, "every stream is whole", allWhole); err != nil {
		return err
	}
	return r.strike(ctx, kind, r.c.Name(i)+target, func(ctx context.Context) error {
		ballast := filepath.Join(volumes[i].mount, "ballast")
		if err := fill(volumes[i].mount, ballast, atOnce); err != nil {
			return err
		}
		defer os.Remove(ballast)
		if err := awaitTold(ctx, r, i); err != nil {
			return err
		}
		before := r.w.l.acked()
		if err := linger(ctx, fullFor); err != nil {
			return err
		}
		if r.w.l.acked() == before {
			return fmt.Errorf("%w: nobody had an acknowledgement for %v while the disk of one node was full", errBroken, fullFor)
		}
		if err := os.Remove(ballast); err != nil {
			return err
		}
		return back(ctx, r, i)
	})
}

// awaitTold waits until a node says that its volume is what it lacks.
func awaitTold(ctx context.Context, r *clusterRun, i int) error {
	for {
		ready, said := brokertest.Probe(ctx, r.c, i)
		if !ready && (strings.Contains(said, "the volume of the store") || strings.Contains(said, "space")) {
			return nil
		}
		if linger(ctx, 50*time.Millisecond) != nil {
			return fmt.Errorf("%w: %s has a full disk and says %q", errBroken, r.c.Name(i), said)
		}
	}
}

// back waits until a node whose disk has space again is ready and has everything. It may end
// to be started anew, by the service manager that AwaitReady is.
func back(ctx context.Context, r *clusterRun, i int) error {
	for {
		if err := r.c.AwaitReady(ctx, i); err != nil {
			return err
		}
		whole, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := awaitWhole(whole, r)
		cancel()
		switch ready, _ := brokertest.Probe(ctx, r.c, i); {
		case err == nil && ready:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s does not come back: %w", r.c.Name(i), err)
		}
	}
}
