package main

import (
	"context"
	"time"

	"github.com/signetbus/signet/broker/brokertest"
)

const (
	fillRate = 4 << 20         // bytes per second of each connection between nodes
	linkWait = 8 * time.Second // how long a bad link lasts
	// halfOpenWait is longer than a leader that hears nobody believes in itself: whether
	// the others go on before the link is mended is in "nobody acked".
	halfOpenWait = 30 * time.Second

	// The time-outs after which TCP sends again are 200 ms and more, doubled each time.
	lossEvery = 1500 * time.Millisecond
	lossMin   = 200 * time.Millisecond
	lossMax   = 2 * time.Second
)

// lossy lets the links of a node lose packets: what is left of that under TCP.
func lossy(ctx context.Context, r *clusterRun) error {
	i := r.any()
	return r.strike(ctx, "packet loss 8 s", r.c.Name(i), func(ctx context.Context) error {
		return r.during(ctx, i, brokertest.Link{Stalls: brokertest.Stalls{Every: lossEvery, Min: lossMin, Max: lossMax, Seed: r.rnd.Uint64()}}, linkWait)
	})
}

// halfOpen lets a node hear the others and not be heard, or the other way round; every
// second time that is the leader, which the others go on to hear although it hears nobody.
func halfOpen(ctx context.Context, r *clusterRun) error {
	i, way, kind := r.any(), brokertest.Toward, "mute"
	if r.rnd.IntN(2) == 0 {
		way, kind = brokertest.Back, "deaf"
	}
	if r.rnd.IntN(2) == 0 {
		var err error
		if i, err = r.leader(ctx); err != nil {
			return err
		}
		kind += " lead"
	}
	// With a copy that is still being fetched, two faults would be judged as one.
	if err := awaitWhole(ctx, r); err != nil {
		return err
	}
	return r.strike(ctx, "half open 30 s", r.c.Name(i)+" "+kind, func(ctx context.Context) error {
		return r.during(ctx, i, brokertest.Link{Cut: true, Only: way}, halfOpenWait)
	})
}

// slowFill takes everything that a node has stored from it, and lets it fetch that over
// slow links: whether a node is taken for gone because its answers wait behind all that.
func slowFill(ctx context.Context, r *clusterRun) error {
	i := r.any()
	if err := awaitStatus(ctx, r, "every stream is whole", allWhole); err != nil {
		return err
	}
	return r.strike(ctx, "wiped, slow link", r.c.Name(i), func(ctx context.Context) error {
		r.c.Kill(i)
		if err := r.c.Wipe(i); err != nil {
			return err
		}
		r.c.Isolate(i, brokertest.Link{Delay: 100 * time.Millisecond, BytesPerSecond: fillRate})
		defer r.c.Mend()
		// It is ready when it has what there was. Under load it is never quite level there.
		if err := r.c.Start(ctx, i); err != nil {
			return err
		}
		r.c.Mend()
		return awaitWhole(ctx, r)
	})
}

// during gives a node other links for a while.
func (r *clusterRun) during(ctx context.Context, i int, l brokertest.Link, d time.Duration) error {
	r.c.Isolate(i, l)
	defer r.c.Mend()
	if err := linger(ctx, d); err != nil {
		return err
	}
	r.c.Mend()
	return r.c.AwaitReady(ctx, i)
}
