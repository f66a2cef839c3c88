package memguard

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

const (
	lookEvery = 250 * time.Millisecond
	// collectEvery is how often the guard collects garbage above the mark, where the
	// runtime has not done so itself.
	collectEvery = 5 * time.Second
)

// Guard compares the memory in use with a mark. Make it with New.
type Guard struct {
	most    int64
	changed func(over bool, inUse int64)
	inUse   atomic.Int64
	over    atomic.Bool
	cancel  context.CancelFunc
	done    chan struct{}

	// Of the goroutine.
	samples   []metrics.Sample
	cycles    uint64    // garbage collections at the latest look
	collected time.Time // when cycles last grew
}

// New returns a guard with the mark at most bytes; 0 means that nothing is ever over
// it. changed is told when the mark is passed, up and down, from the guard's
// goroutine; nil: nobody is.
func New(most int64, changed func(over bool, inUse int64)) *Guard {
	g := &Guard{most: most, changed: changed, done: make(chan struct{})}
	for _, name := range []string{"/gc/heap/live:bytes", "/memory/classes/heap/stacks:bytes", "/gc/cycles/total:gc-cycles"} {
		g.samples = append(g.samples, metrics.Sample{Name: name})
	}
	return g
}

// Start looks once and then again and again until Shutdown.
func (g *Guard) Start(ctx context.Context) {
	ctx, g.cancel = context.WithCancel(context.WithoutCancel(ctx))
	g.collected = time.Now()
	g.look(g.collected)
	go func() {
		defer close(g.done)
		t := time.NewTicker(lookEvery)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-t.C:
				g.look(now)
			}
		}
	}()
}

// Shutdown ends the goroutine of Start and waits for it.
func (g *Guard) Shutdown(context.Context) error {
	g.cancel()
	<-g.done
	return nil
}

// InUse returns the bytes in use at the latest look.
func (g *Guard) InUse() int64 { return g.inUse.Load() }

// Most returns the mark, 0 for none.
func (g *Guard) Most() int64 { return g.most }

// Over returns nil below the mark, else what is wrong in one line. It does not block.
func (g *Guard) Over() error {
	if !g.over.Load() {
		return nil
	}
	return fmt.Errorf("%d MiB of memory are in use, gate.maxMemory is %d MiB: no new connections until some are closed; raise the limit, or give the broker more memory",
		g.inUse.Load()>>20, g.most>>20)
}

func (g *Guard) look(now time.Time) {
	metrics.Read(g.samples)
	if n := value(g.samples[2]); n != g.cycles {
		g.cycles, g.collected = n, now
	}
	inUse := int64(min(value(g.samples[0])+value(g.samples[1]), math.MaxInt64))
	over := g.most > 0 && inUse > g.most
	g.inUse.Store(inUse)
	if g.over.Swap(over) != over && g.changed != nil {
		g.changed(over, inUse)
	}
	if over && now.Sub(g.collected) >= collectEvery {
		runtime.GC()
	}
}

// value is 0 for a metric that this version of Go does not have.
func value(s metrics.Sample) uint64 {
	if s.Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return s.Value.Uint64()
}
