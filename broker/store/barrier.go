package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// Errors of the durability barrier.
var (
	// ErrUnsupported: this system or file system gives no barrier; run the server
	// with SyncAlways instead.
	ErrUnsupported = errors.New("store: no durability barrier here")
	// ErrSyncFailed: a sync failed once. The kernel may have dropped the pages that
	// it could not write, so that a later sync that succeeds proves nothing: every
	// Wait fails until the process has restarted and read back what is on disk.
	ErrSyncFailed = errors.New("store: stable storage failed")
	// ErrClosed: the barrier or the store was closed.
	ErrClosed = errors.New("store: closed")
)

// Barrier releases its callers after one sync of the store's volume that began
// after they called: an acknowledgement that waited here is on stable storage.
// One goroutine syncs for all callers of a moment (group commit). All methods may
// be called from any goroutine.
type Barrier struct {
	sync    func() error // called by the worker only
	release func() error
	stop    chan struct{} // closed by Close
	done    chan struct{} // closed when the worker is gone
	wake    chan struct{} // 1 buffered: next is not nil

	mu     sync.Mutex
	next   *round // joined by callers, taken by the worker when it begins to sync
	failed error  // set once, never cleared
	closed bool

	syncs, waits, waiting atomic.Int64
}

// round is the callers that one sync releases.
type round struct {
	done chan struct{}
	err  error // written before done is closed
}

// BarrierStats are counters since the start, and a gauge.
type BarrierStats struct {
	Syncs   int64 // syncs done
	Waits   int64 // calls of Wait
	Waiting int64 // calls of Wait that joined a round and have not returned
	Failed  bool  // every Wait fails
}

// NewBarrier makes a barrier for the volume that holds dir.
//
// Errors: ErrUnsupported where syncfs does not exist, does not report write errors
// (Linux before 5.8), or is not known to reach stable storage on this file system;
// else what the system said.
func NewBarrier(dir string) (*Barrier, error) {
	sync, release, err := volumeSync(dir)
	if err != nil {
		return nil, err
	}
	return newBarrier(sync, release), nil
}

func newBarrier(sync, release func() error) *Barrier {
	b := &Barrier{
		sync: sync, release: release,
		stop: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	go b.run()
	return b
}

// Wait returns nil after one whole sync that began after the call. An ended ctx
// ends the wait, not the sync, and says nothing about what is on disk.
//
// Errors: ErrSyncFailed (for ever, after the first failure), ErrClosed, or ctx's.
func (b *Barrier) Wait(ctx context.Context) error {
	b.waits.Add(1)
	b.mu.Lock()
	if err := b.refusalLocked(); err != nil {
		b.mu.Unlock()
		return err
	}
	b.waiting.Add(1) // under the lock: who is counted has joined a round
	defer b.waiting.Add(-1)
	r := b.next
	if r == nil {
		r = &round{done: make(chan struct{})}
		b.next = r
		b.wake <- struct{}{} // has room: the worker takes next and the token together
	}
	b.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("store: barrier: %w", ctx.Err())
	}
}

func (b *Barrier) refusalLocked() error {
	switch {
	case b.failed != nil:
		return b.failed
	case b.closed:
		return ErrClosed
	}
	return nil
}

func (b *Barrier) run() {
	defer close(b.done)
	for {
		select {
		case <-b.stop:
			b.finish(b.take(false), ErrClosed)
			return
		case <-b.wake:
		}
		// From here on, new callers make a new round: this sync has begun.
		r := b.take(true)
		err := b.sync()
		b.syncs.Add(1)
		if err != nil {
			err = b.fail(err)
			b.finish(r, err)
			b.finish(b.take(false), err) // they joined during the failed sync
			<-b.stop
			return
		}
		b.finish(r, nil)
	}
}

// take detaches the next round. woken says that its token was received already;
// else the token, if there is one, goes with it.
func (b *Barrier) take(woken bool) *round {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.next
	b.next = nil
	if !woken && r != nil {
		<-b.wake
	}
	return r
}

func (b *Barrier) finish(r *round, err error) {
	if r != nil {
		r.err = err
		close(r.done)
	}
}

func (b *Barrier) fail(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed = fmt.Errorf("%w: %w", ErrSyncFailed, err)
	return b.failed
}

// Stats reads the counters.
func (b *Barrier) Stats() BarrierStats {
	b.mu.Lock()
	failed := b.failed != nil
	b.mu.Unlock()
	return BarrierStats{Syncs: b.syncs.Load(), Waits: b.waits.Load(), Waiting: b.waiting.Load(), Failed: failed}
}

// Close ends the worker, after the sync it may be in. Waiting callers get
// ErrClosed. It may be called more than once.
func (b *Barrier) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		<-b.done
		return nil
	}
	b.closed = true
	b.mu.Unlock()
	close(b.stop)
	<-b.done
	if err := b.release(); err != nil {
		return fmt.Errorf("store: barrier: %w", err)
	}
	return nil
}
