package main

import (
	"context"
	"time"

	"github.com/signetbus/signet/broker/brokertest"
)

const (
	linkWait = 8 * time.Second // how long a bad link lasts

	// The time-outs after which TCP sends again are 200 ms and more, doubled each time.
	lossEvery = 1500 * time.Millisecond
	lossMin   = 200 * time.Millisecond
	lossMax   = 2 * time.Second
)

// lossy lets the links of a node lose packets: what is left of that under TCP.
func lossy(ctx context.Context, r *clusterRun) error {
	i := r.any()
	return r.strike(ctx, "packet loss 8 s", r.c.Name(i), func(ctx context.Context) error {
		return r.during(ctx, i, brokertest.Link{Stalls: brokertest.Stalls{Every: lossEvery, Min: lossMin, Max: lossMax, Seed: r.rnd.Uint64()}})
	})
}

// halfOpen lets a node hear the others and not be heard, or the other way round.
func halfOpen(ctx context.Context, r *clusterRun) error {
	i, way, kind := r.any(), brokertest.Toward, "mute"
	if r.rnd.IntN(2) == 0 {
		way, kind = brokertest.Back, "deaf"
	}
	return r.strike(ctx, "half open 8 s", r.c.Name(i)+" "+kind, func(ctx context.Context) error {
		return r.during(ctx, i, brokertest.Link{Cut: true, Only: way})
	})
}

// during gives a node other links for a while.
func (r *clusterRun) during(ctx context.Context, i int, l brokertest.Link) error {
	r.c.Isolate(i, l)
	defer r.c.Mend()
	if err := linger(ctx, linkWait); err != nil {
		return err
	}
	r.c.Mend()
	return r.c.AwaitReady(ctx, i)
}
