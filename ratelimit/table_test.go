package ratelimit

import (
	"runtime"
	"sync"
	"testing"
	"time"
)

func TestTableShares(t *testing.T) {
	var table Table
	l := Limit{Name: "writer", Messages: 1}
	a := table.Bucket("shop/checkout", "writer", l)
	if !a.Take(0, 0).OK {
		t.Fatal("first take refused")
	}
	if b := table.Bucket("shop/checkout", "writer", l); b != a {
		t.Error("a second connection got its own bucket")
	}
	if b := table.Bucket("shop/billing", "writer", l); b == a {
		t.Error("two principals share a bucket")
	}
	changed := l
	changed.Messages = 2
	b := table.Bucket("shop/checkout", "writer", changed)
	if b == a || b.Limit() != changed {
		t.Error("a changed limit kept the old bucket")
	}
	if got := table.Len(); got != 2 {
		t.Errorf("got %d buckets, want 2", got)
	}
}

func TestTableSweep(t *testing.T) {
	var table Table
	l := Limit{Messages: 1.0 / 3600, Burst: time.Hour}
	held := table.Bucket("t/held", "r", Limit{Messages: 1})
	held.Take(0, 0)
	owing := table.Bucket("t/owing", "r", l)
	owing.Take(0, 0)
	table.Bucket("t/idle", "r", l)

	now := int64(IdleAfter)
	table.Sweep(now)
	collect()
	if removed := table.Sweep(now); removed != 1 {
		t.Errorf("removed %d entries, want 1 (t/idle)", removed)
	}
	if table.Bucket("t/held", "r", Limit{Messages: 1}) != held {
		t.Error("a bucket that a connection holds was replaced: the principal gained a second one")
	}
	if b := table.Bucket("t/owing", "r", l); b != owing || b.Take(now, 0).OK {
		t.Error("a bucket that owes was dropped")
	}
	runtime.KeepAlive(held)
	runtime.KeepAlive(owing)
}

// collect runs the collector twice: a weak pointer is cleared by the first cycle
// that finds its target unreachable.
func collect() {
	runtime.GC()
	runtime.GC()
}

func TestTableConcurrent(t *testing.T) {
	var table Table
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 500 {
				table.Bucket("t/p", "r", Limit{Messages: 1e9}).Take(int64(n), i)
				if n%50 == 0 {
					table.Sweep(int64(n))
				}
			}
		})
	}
	wg.Wait()
	if got := table.Len(); got != 1 {
		t.Fatalf("got %d buckets, want 1", got)
	}
}
