package audit

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"
)

// sinkQueue is how many batches wait for a slow sink; more are not given to it, and
// counted.
const sinkQueue = 256

// Sink gets a copy of every batch, beside the stream and after the spool has it: lines
// of JSON, each with a line feed. One goroutine uses it.
type Sink interface {
	// Name is what the configuration calls it.
	Name() string
	// Write takes a batch. An error is counted and raised as an alarm; the next batch is
	// given to it all the same.
	Write(batch []byte) error
	Close() error
}

// sinkRunner keeps a sink from holding up anything else.
type sinkRunner struct {
	sink   Sink
	log    zerolog.Logger
	queue  chan []byte
	stop   sync.Once
	done   chan struct{}
	failed atomic.Uint64 // batches that it did not take
	fault  atomic.Pointer[error]
}

func newSinkRunner(s Sink, log zerolog.Logger) *sinkRunner {
	r := &sinkRunner{sink: s, log: log.With().Str("sink", s.Name()).Logger(), queue: make(chan []byte, sinkQueue), done: make(chan struct{})}
	go r.run()
	return r
}

// offer never blocks.
func (r *sinkRunner) offer(batch []byte) {
	select {
	case r.queue <- batch:
	default:
		r.note(fmt.Errorf("audit: the sink is too slow: %d batches wait", sinkQueue))
	}
}

func (r *sinkRunner) run() {
	defer close(r.done)
	for batch := range r.queue {
		if err := r.sink.Write(batch); err != nil {
			r.note(err)
		} else if r.fault.Swap(nil) != nil {
			r.log.Info().Msg("the sink of the audit trail takes records again")
		}
	}
}

func (r *sinkRunner) note(err error) {
	r.failed.Add(1)
	if r.fault.Swap(&err) == nil {
		r.log.Error().Err(err).Msg("a sink of the audit trail takes no records")
	}
}

func (r *sinkRunner) health() error {
	if f := r.fault.Load(); f != nil {
		return fmt.Errorf("the sink %s of the audit trail fails: %w", r.sink.Name(), *f)
	}
	return nil
}

// shutdown gives the sink what is queued, within ctx. The worker has ended by then.
func (r *sinkRunner) shutdown(ctx context.Context) error {
	r.stop.Do(func() { close(r.queue) })
	select {
	case <-r.done:
	case <-ctx.Done():
		return fmt.Errorf("audit: sink %s: %w", r.sink.Name(), ctx.Err())
	}
	return r.sink.Close()
}
