package store

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("timed out: %s", what)
		}
	}
}

// disk is a sync that the test steps through.
type disk struct {
	began  chan struct{}
	finish chan error
}

func steppedBarrier(t *testing.T) (*Barrier, *disk) {
	t.Helper()
	d := &disk{began: make(chan struct{}), finish: make(chan error)}
	b := newBarrier(func() error {
		d.began <- struct{}{}
		return <-d.finish
	}, func() error { return nil })
	return b, d
}

func closeBarrier(t *testing.T, b *Barrier) {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func wait(ctx context.Context, b *Barrier) <-chan error {
	out := make(chan error, 1)
	go func() { out <- b.Wait(ctx) }()
	return out
}

func TestWaitDuringASyncIsReleasedByTheNext(t *testing.T) {
	b, d := steppedBarrier(t)
	ctx := testContext(t)
	first := wait(ctx, b)
	<-d.began
	second := wait(ctx, b)
	third := wait(ctx, b)
	eventually(t, "all three wait", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.next != nil && b.waiting.Load() == 3
	})
	d.finish <- nil
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	<-d.began // the second sync has begun, so the first is over
	select {
	case err := <-second:
		t.Fatalf("released by a sync that began before it: %v", err)
	case err := <-third:
		t.Fatalf("released by a sync that began before it: %v", err)
	default:
	}
	d.finish <- nil
	if err := errors.Join(<-second, <-third); err != nil {
		t.Fatal(err)
	}
	if st := b.Stats(); st != (BarrierStats{Syncs: 2, Waits: 3}) {
		t.Errorf("stats: %+v", st)
	}
	closeBarrier(t, b)
}

func TestSyncErrorFailsForEver(t *testing.T) {
	b, d := steppedBarrier(t)
	ctx := testContext(t)
	first := wait(ctx, b)
	<-d.began
	during := wait(ctx, b)
	eventually(t, "the second caller waits", func() bool { return b.waiting.Load() == 2 })
	d.finish <- syscall.EIO
	for _, err := range []error{<-first, <-during, b.Wait(ctx), b.Wait(ctx)} {
		if !errors.Is(err, ErrSyncFailed) || !errors.Is(err, syscall.EIO) {
			t.Errorf("got %v, want ErrSyncFailed with EIO", err)
		}
	}
	if st := b.Stats(); !st.Failed || st.Syncs != 1 || st.Waiting != 0 {
		t.Errorf("stats: %+v", st)
	}
	closeBarrier(t, b)
	if err := b.Wait(ctx); !errors.Is(err, ErrSyncFailed) {
		t.Errorf("after Close: got %v, want ErrSyncFailed", err)
	}
}

func TestWaitContext(t *testing.T) {
	b, d := steppedBarrier(t)
	ctx := testContext(t)
	first := wait(ctx, b)
	<-d.began
	short, cancel := context.WithCancel(ctx)
	abandoned := wait(short, b)
	stays := wait(ctx, b)
	eventually(t, "all wait", func() bool { return b.waiting.Load() == 3 })
	cancel()
	if err := <-abandoned; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	d.finish <- nil
	<-d.began
	d.finish <- nil
	if err := errors.Join(<-first, <-stays); err != nil {
		t.Errorf("the others: %v", err)
	}
	closeBarrier(t, b)
}

func TestCloseReleasesWaiters(t *testing.T) {
	b, d := steppedBarrier(t)
	ctx := testContext(t)
	first := wait(ctx, b)
	<-d.began
	second := wait(ctx, b)
	eventually(t, "both wait", func() bool { return b.waiting.Load() == 2 })
	closed := make(chan error, 2)
	go func() { closed <- b.Close() }()
	go func() { closed <- b.Close() }()
	eventually(t, "Close has begun", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.closed })
	d.finish <- nil
	if err := <-first; err != nil {
		t.Errorf("the sync under way: %v", err)
	}
	select {
	case err := <-second: // Close or one more sync: both are right
		if !errors.Is(err, ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	case <-d.began:
		d.finish <- nil
		if err := <-second; err != nil {
			t.Error(err)
		}
	}
	if err := errors.Join(<-closed, <-closed); err != nil {
		t.Error(err)
	}
	if err := b.Wait(ctx); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: got %v, want ErrClosed", err)
	}
}

func TestManyWaitersShareFewSyncs(t *testing.T) {
	const n = 1000
	b, d := steppedBarrier(t)
	ctx := testContext(t)
	first := wait(ctx, b)
	<-d.began
	var wg sync.WaitGroup
	errs := make(chan error, n)
	for range n {
		wg.Go(func() { errs <- b.Wait(ctx) })
	}
	eventually(t, "all wait", func() bool { return b.waiting.Load() == n+1 })
	d.finish <- nil
	<-d.began
	d.finish <- nil
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := <-first; err != nil {
		t.Error(err)
	}
	if st := b.Stats(); st.Syncs != 2 {
		t.Errorf("%d waiters took %d syncs, want 2", n+1, st.Syncs)
	}
	closeBarrier(t, b)
}

// The promise itself, under load: what was written before Wait was called has been
// synced when Wait returns.
func TestWaitPromise(t *testing.T) {
	var mu sync.Mutex
	written, synced := 0, 0
	b := newBarrier(func() error {
		mu.Lock()
		at := written
		mu.Unlock()
		mu.Lock()
		defer mu.Unlock()
		synced = at
		return nil
	}, func() error { return nil })
	ctx := testContext(t)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 500 {
				mu.Lock()
				written++
				mine := written
				mu.Unlock()
				if err := b.Wait(ctx); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				ok := synced >= mine
				mu.Unlock()
				if !ok {
					t.Error("released before its write was synced")
					return
				}
			}
		})
	}
	wg.Wait()
	closeBarrier(t, b)
}

func TestBarrierOnAVolume(t *testing.T) {
	b, err := NewBarrier(t.TempDir())
	if errors.Is(err, ErrUnsupported) {
		t.Logf("no barrier here, which is a right answer: %v", err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Wait(testContext(t)); err != nil {
		t.Error(err)
	}
	closeBarrier(t, b)
	if _, err := NewBarrier(t.TempDir() + "/missing"); err == nil || errors.Is(err, ErrUnsupported) {
		t.Errorf("missing directory: %v", err)
	}
}

func BenchmarkBarrier(b *testing.B) {
	bar := newBarrier(func() error { return nil }, func() error { return nil })
	defer bar.Close()
	ctx := b.Context()
	b.SetParallelism(32)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := bar.Wait(ctx); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/float64(bar.Stats().Syncs), "waits/sync")
}
