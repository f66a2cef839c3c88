package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// LosesQuorum lists the streams of a tenant in s that could not be written any more if
// node went now: too few of its other copies are up and have everything. A stream
// with one copy is not in the list: it can only be lost. One without a leader is.
//
// Errors: ErrNoAccount, ErrServer, ErrClosed, or the connection's.
func LosesQuorum(ctx context.Context, s *Store, tenant, node string) ([]string, error) {
	a, err := s.account(tenant)
	if err != nil {
		return nil, err
	}
	l, err := a.list(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for name, cfg := range l.silent {
		if cfg == nil || cfg.Replicas > 1 {
			out = append(out, fmt.Sprintf("%s/%s", tenant, name)) // it has no quorum as it is
		}
	}
	for name, info := range l.infos {
		if !keepsQuorum(info, node) {
			out = append(out, fmt.Sprintf("%s/%s", tenant, name))
		}
	}
	slices.Sort(out)
	return out, nil
}

func keepsQuorum(info *jetstream.StreamInfo, node string) bool {
	c := info.Cluster
	if info.Config.Replicas <= 1 || c == nil {
		return true
	}
	member, good := c.Leader == node, 0
	if c.Leader != "" && c.Leader != node {
		good++
	}
	for _, r := range c.Replicas {
		switch {
		case r.Name == node:
			member = true
		case r.Current && !r.Offline:
			good++
		}
	}
	return !member || good > info.Config.Replicas/2
}
