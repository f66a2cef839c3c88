package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// pulse measures how long publishers went without an acknowledgement. Safe for
// concurrent use.
type pulse struct {
	mu    sync.Mutex
	last  []time.Time     // by publisher: its latest acknowledgement
	worst []time.Duration // by publisher: its longest wait since begin
	any   time.Time
	still time.Duration // the longest wait of all publishers together since begin
}

// join opens a publisher and returns its number here.
func (p *pulse) join() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last, p.worst = append(p.last, time.Now()), append(p.worst, 0)
	return len(p.last) - 1
}

func (p *pulse) beat(publisher int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.worst[publisher] = max(p.worst[publisher], now.Sub(p.last[publisher]))
	p.still = max(p.still, now.Sub(p.any))
	p.last[publisher], p.any = now, now
}

// begin starts a measurement: a wait that has begun before it counts from there.
func (p *pulse) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.still = 0
	clear(p.worst)
}

// end returns the longest time since begin in which nobody got an acknowledgement, and
// the longest in which some one publisher got none.
func (p *pulse) end() (still, slowest time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	still = max(p.still, now.Sub(p.any))
	for i, w := range p.worst {
		slowest = max(slowest, w, now.Sub(p.last[i]))
	}
	return still, slowest
}

// allBeat waits until every publisher has had an acknowledgement after the call, or
// one has failed.
func (p *pulse) allBeat(ctx context.Context, failed <-chan error) error {
	since := time.Now()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		p.mu.Lock()
		waiting := slices.IndexFunc(p.last, func(t time.Time) bool { return !t.After(since) })
		p.mu.Unlock()
		if waiting < 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: publisher %d has had no acknowledgement for %v: %w",
				errBroken, waiting, time.Since(since).Round(time.Millisecond), ctx.Err())
		case err := <-failed:
			return err
		case <-poll.C:
		}
	}
}

// spread is what is told of many durations.
type spread []time.Duration

func (s spread) String() string {
	if len(s) == 0 {
		return "none"
	}
	round := func(q float64) time.Duration { return s.quantile(q).Round(time.Millisecond) }
	return fmt.Sprintf("p50 %v, p99 %v, max %v of %d", round(0.5), round(0.99), round(1), len(s))
}

// quantile is the shortest duration that a share q of all does not exceed; 0 of none.
func (s spread) quantile(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(s))[max(0, int(math.Ceil(q*float64(len(s))))-1)]
}
