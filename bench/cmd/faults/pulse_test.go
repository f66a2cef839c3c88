package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestPulse: one publisher waits longer than all together, and a wait that goes on
// counts.
func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pulse{}
		a, b := p.join(), p.join()
		pass := func(d time.Duration) {
			t.Helper()
			<-time.After(d)
		}
		p.beat(a)
		p.beat(b)
		pass(time.Hour) // before begin: a wait that ends before it is of no interest
		p.beat(a)
		p.beat(b)
		p.begin()
		pass(2 * time.Second)
		p.beat(a)
		pass(3 * time.Second)
		p.beat(a)
		pass(time.Second)
		if still, slowest := p.end(); still != 3*time.Second || slowest != 6*time.Second {
			t.Errorf("nobody for %v, slowest %v; want 3s and 6s", still, slowest)
		}
		go func() {
			pass(time.Second)
			p.beat(a)
			pass(time.Second)
			p.beat(b)
		}()
		begin := time.Now()
		if err := p.allBeat(t.Context(), nil); err != nil || time.Since(begin) < 2*time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		failed := make(chan error, 1)
		failed <- errBroken
		if err := p.allBeat(t.Context(), failed); !errors.Is(err, errBroken) {
			t.Errorf("a publisher that failed: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.allBeat(ctx, nil); !errors.Is(err, errBroken) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("publishers that stay silent: %v", err)
		}
	})
}

func TestSpread(t *testing.T) {
	var s spread
	for i := range 100 {
		s = append(s, time.Duration(100-i)*time.Second)
	}
	if s.quantile(0.99) != 99*time.Second || s.String() != "p50 50s, p99 1m39s, max 1m40s of 100" {
		t.Errorf("%v, %v", s.quantile(0.99), s)
	}
	if spread(nil).quantile(0.99) != 0 || spread(nil).String() != "none" {
		t.Errorf("of nothing: %v", spread(nil))
	}
}
