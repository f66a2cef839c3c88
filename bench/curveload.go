package bench

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// curveRest begins what is the same in the policy for any number of streams.
const curveRest = "schemas:\n"

// curvePolicy is Policy with n streams instead of its own.
func curvePolicy(n int) string {
	_, rest, _ := strings.Cut(Policy, curveRest)
	return curveStreams(n) + curveRest + strings.NewReplacer("plain.>, checked.>, read.>, logged.>", "curve.>", "plain.>, checked.>, read.>", "curve.>", "match: checked.>", "match: curve.>").Replace(rest)
}

// curveStreams is the beginning of the policy. The first streams take part in every
// step, and so get the most.
func curveStreams(n int) string {
	var b strings.Builder
	b.WriteString("tenant: bench\nstreams:\n")
	for i := range n {
		size := "32MiB"
		switch {
		case i < 2:
			size = "1GiB"
		case i < 16:
			size = "256MiB"
		}
		fmt.Fprintf(&b, "  - {name: %s, subjects: [curve.s%d.>], maxBytes: %s}\n", curveName(i), i, size)
	}
	return b.String()
}

func curveName(i int) string { return fmt.Sprintf("CURVE%d", i) }

// publishSpread publishes on every connection, each with up to inFlight events without an
// acknowledgement, for d: over n streams so that each has as many publishers as the
// others, or one publisher several streams in turn.
func publishSpread(conns []*nats.Conn, n, inFlight int, d time.Duration) (*Figure, error) {
	figures, faults := make([]*Figure, len(conns)), make([]error, len(conns))
	payload := order(256)
	start := time.Now()
	var wg sync.WaitGroup
	for i, nc := range conns {
		var subjects []string
		for s := i % n; s < n; s += len(conns) {
			subjects = append(subjects, fmt.Sprintf("curve.s%d.created", s))
		}
		wg.Go(func() { figures[i], faults[i] = publishTurns(nc, subjects, payload, inFlight, d) })
	}
	wg.Wait()
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	all := &Figure{Elapsed: time.Since(start)}
	for _, f := range figures {
		all.Events += f.Events
	}
	return all, nil
}

// publishTurns is publishAsync to several subjects in turn.
func publishTurns(nc *nats.Conn, subjects []string, payload []byte, inFlight int, d time.Duration) (*Figure, error) {
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(inFlight))
	if err != nil {
		return nil, err
	}
	defer js.CleanupPublisher()
	start, n := time.Now(), 0
	waiting := make([]jetstream.PubAckFuture, 0, inFlight)
	settle := func(f jetstream.PubAckFuture) error {
		select {
		case <-f.Ok():
			return nil
		case err := <-f.Err():
			return fmt.Errorf("%w: publish %s: %w", ErrLoad, f.Msg().Subject, err)
		case <-time.After(doneWait):
			return fmt.Errorf("%w: publish %s: no acknowledgement", ErrLoad, f.Msg().Subject)
		}
	}
	for ; time.Since(start) < d; n++ {
		if len(waiting) == inFlight {
			if err := settle(waiting[0]); err != nil {
				return nil, err
			}
			waiting = append(waiting[:0], waiting[1:]...)
		}
		f, err := js.PublishMsgAsync(&nats.Msg{Subject: subjects[n%len(subjects)], Data: payload}, jetstream.WithStallWait(stallWait))
		if err != nil {
			return nil, fmt.Errorf("%w: publish %s: %w", ErrLoad, subjects[n%len(subjects)], err)
		}
		waiting = append(waiting, f)
	}
	for _, f := range waiting {
		if err := settle(f); err != nil {
			return nil, err
		}
	}
	return &Figure{Events: n, Elapsed: time.Since(start)}, nil
}

// WriteCurve writes the points as text.
func WriteCurve(w io.Writer, points []CurvePoint) error {
	type key struct {
		sync Sync
		n    int
	}
	at, order := map[key]map[Kind]CurvePoint{}, []key{}
	for _, p := range points {
		k := key{p.Sync, p.Streams}
		if at[k] == nil {
			at[k] = map[Kind]CurvePoint{}
			order = append(order, k)
		}
		at[k][p.Kind] = p
	}
	const row = "%-9s %7s %12s %12s %8s %14s %14s %10s %10s\n"
	_, err := fmt.Fprintf(w, row, "sync", "streams", "raw", "signet", "ratio", "raw cpu", "signet cpu", "raw idle", "signet idle")
	for _, k := range order {
		raw, signet := at[k][Raw], at[k][Signet]
		if err != nil || raw.Figure == nil || signet.Figure == nil {
			continue // a run that failed halfway
		}
		us := func(f *Figure) string { return fmt.Sprintf("%.1f us/event", f.CPU()) }
		rate := func(f *Figure) string { return fmt.Sprintf("%.0f/s", f.Rate()) }
		idle := func(p CurvePoint) string { return fmt.Sprintf("%.1f %%", 100*p.Idle) }
		_, err = fmt.Fprintf(w, row, k.sync, fmt.Sprint(k.n), rate(raw.Figure), rate(signet.Figure),
			fmt.Sprintf("%.0f %%", 100*signet.Figure.Rate()/raw.Figure.Rate()), us(raw.Figure), us(signet.Figure), idle(raw), idle(signet))
	}
	return err
}
