package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Figure is what one run of one workload gave.
type Figure struct {
	Events  int
	Elapsed time.Duration
	P50     time.Duration // of one publish, where it was measured
	P99     time.Duration
	Server  Stats // what the server used meanwhile
	Stored  int64 // bytes that the stream grew by
}

// Rate is events per second.
func (f *Figure) Rate() float64 { return float64(f.Events) / f.Elapsed.Seconds() }

// CPU is server CPU per event in microseconds.
func (f *Figure) CPU() float64 { return float64(f.Server.CPU.Nanoseconds()) / 1e3 / float64(f.Events) }

// ErrLoad wraps a publish or a read that failed: a figure with failures in it is none.
var ErrLoad = errors.New("bench: load")

const (
	stallWait  = 20 * time.Second
	doneWait   = 2 * time.Minute
	clockEvery = 32 // publishes between two looks at the clock
)

// publishAsync publishes copies of m on one connection with up to window events without an
// acknowledgement, for d, and waits for the last one.
func publishAsync(nc *nats.Conn, m *nats.Msg, window int, d time.Duration) (*Figure, error) {
	var failed atomic.Pointer[error]
	js, err := asyncPublisher(nc, window, &failed)
	if err != nil {
		return nil, err
	}
	defer js.CleanupPublisher()
	start, n := time.Now(), 0
	for time.Since(start) < d && failed.Load() == nil {
		for range clockEvery {
			one := &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data}
			if _, err := js.PublishMsgAsync(one, jetstream.WithStallWait(stallWait)); err != nil {
				return nil, fmt.Errorf("%w: publish %s: %w", ErrLoad, m.Subject, err)
			}
			n++
		}
	}
	if err := acknowledged(js, m.Subject, &failed); err != nil {
		return nil, err
	}
	return &Figure{Events: n, Elapsed: time.Since(start)}, nil
}

// asyncPublisher publishes with up to window events without an acknowledgement; failed
// is the first that was refused.
func asyncPublisher(nc *nats.Conn, window int, failed *atomic.Pointer[error]) (jetstream.JetStream, error) {
	return jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(window),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) { failed.CompareAndSwap(nil, &err) }))
}

// acknowledged waits for the last acknowledgement. Errors: ErrLoad.
func acknowledged(js jetstream.JetStream, subject string, failed *atomic.Pointer[error]) error {
	select {
	case <-js.PublishAsyncComplete():
	case <-time.After(doneWait):
		return fmt.Errorf("%w: publish %s: %d acknowledgements are missing", ErrLoad, subject, js.PublishAsyncPending())
	}
	if e := failed.Load(); e != nil {
		return fmt.Errorf("%w: publish %s: %w", ErrLoad, subject, *e)
	}
	return nil
}

// publishSync has publishers goroutines, spread over conns, each publish and wait
// for the acknowledgement, for d.
func publishSync(ctx context.Context, conns []*nats.Conn, subject string, payload []byte, publishers int, d time.Duration) (*Figure, error) {
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		all    []time.Duration
		faults []error
	)
	start := time.Now()
	for i := range publishers {
		js, err := jetstream.New(conns[i%len(conns)])
		if err != nil {
			return nil, err
		}
		wg.Go(func() {
			var took []time.Duration
			var err error
			for err == nil {
				t := time.Now()
				if t.Sub(start) >= d {
					break
				}
				if _, err = js.Publish(ctx, subject, payload); err == nil {
					took = append(took, time.Since(t))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			if err != nil {
				faults = append(faults, fmt.Errorf("%w: publish %s: %w", ErrLoad, subject, err))
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	if len(faults) > 0 || len(all) == 0 {
		return nil, errors.Join(faults...)
	}
	slices.Sort(all)
	return &Figure{Events: len(all), Elapsed: elapsed, P50: all[len(all)/2], P99: all[len(all)*99/100]}, nil
}

// fill publishes n copies of m.
func fill(nc *nats.Conn, m *nats.Msg, n int) error {
	var failed atomic.Pointer[error]
	js, err := asyncPublisher(nc, 4096, &failed)
	if err != nil {
		return err
	}
	defer js.CleanupPublisher()
	for range n {
		if _, err := js.PublishMsgAsync(&nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data}, jetstream.WithStallWait(stallWait)); err != nil {
			return fmt.Errorf("%w: fill: %w", ErrLoad, err)
		}
	}
	return acknowledged(js, m.Subject, &failed)
}
