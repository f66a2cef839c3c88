package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
)

// oversee asks the cluster as its overseer.
func oversee(ctx context.Context, r *clusterRun, do func(*admin.API) error) error {
	c, err := r.at.SDK(ctx, "overseer", client.WithReconnectWait(50*time.Millisecond))
	if err != nil {
		return err
	}
	defer c.Close()
	return do(admin.New(c))
}

// awaitStatus waits until the status of the cluster is as it should be.
func awaitStatus(ctx context.Context, r *clusterRun, what string, ok func(*admin.ClusterStatus) bool) error {
	ctx, cancel := context.WithTimeout(ctx, backWait)
	defer cancel()
	var last *admin.ClusterStatus
	for {
		err := oversee(ctx, r, func(api *admin.API) error {
			for {
				s, err := api.ClusterStatus(ctx)
				if err != nil {
					return err
				}
				if last = s; ok(s) {
					return nil
				}
				if err := linger(ctx, 100*time.Millisecond); err != nil {
					return err
				}
			}
		})
		if err == nil {
			return nil
		}
		if linger(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("%w: it does not come to it that %s; status: %+v: %w", errBroken, what, last, err)
		}
	}
}

// allWhole: every node is ready, and every stream has a leader and all of its copies.
func allWhole(s *admin.ClusterStatus) bool {
	return s.Leader != "" && s.Others.Whole == s.Others.Streams &&
		!slices.ContainsFunc(s.Streams, func(t admin.ClusterStream) bool { return !t.Whole }) &&
		!slices.ContainsFunc(s.Nodes, func(n admin.ClusterNode) bool { return !n.Answers || n.Phase != "ready" })
}
