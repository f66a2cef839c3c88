package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// inProcess is how long tries may be answered with "duplicate message id is in process" before
// the node that leads the stream is started anew. nats-server 2.15.2 forgets, when a node loses the
// lead of a stream, the event ids that were on their way only as far as nothing was stored after
// them: when that node leads again it takes the rest for on its way until duplicateWindow is over.
const inProcess = 20 * time.Second

// goOn waits until every publisher goes on. Publishers that only wait for an id that a leader
// falsely takes for on its way are freed as docs/reliability.md says, and counted.
func goOn(ctx context.Context, r *clusterRun) error {
	for {
		begin := time.Now()
		try, cancel := context.WithTimeout(ctx, inProcess)
		err := r.w.beats.allBeat(try, r.w.fault)
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		waiting := r.w.beats.silent(begin)
		if len(waiting) == 0 || slices.ContainsFunc(waiting, func(id int) bool { return !r.w.waitsForID(id) }) {
			continue
		}
		i, err := r.leader(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("publishers %v: %s takes their event ids for on their way: it is started anew\n", waiting, r.c.Name(i))
		r.freed += len(waiting)
		term, cancel := context.WithTimeout(ctx, termWait)
		err = r.c.Term(term, i)
		cancel()
		if err == nil {
			err = r.c.Start(ctx, i)
		}
		if err != nil {
			return err
		}
	}
}

// waitsForID reports whether a publisher's latest try was answered with "in process".
func (w *workload) waitsForID(id int) bool {
	why, ok := w.why.Load(id)
	return ok && strings.Contains(fmt.Sprint(why), "duplicate message id is in process")
}

// silent lists the publishers without an acknowledgement since then.
func (p *pulse) silent(since time.Time) []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []int
	for i, t := range p.last {
		if !t.After(since) {
			out = append(out, i)
		}
	}
	return out
}
