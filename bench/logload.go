package bench

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/client/admin"
)

const (
	loggedWorkload = "async 256 B logged, lazy"
	lagWorkload    = "async 256 B logged at 30000/s, fsync"
	// lagRate is the rate at which the lag of the log is measured, events per second.
	lagRate = 30_000
	// lagLook is between two looks how far the log is.
	lagLook = 50 * time.Millisecond
	// lagMark is how many events share one note of when they were published.
	lagMark = 256
)

// withLog runs a workload that asks how far the log is, unless it is left out.
func (p *pair) withLog(ctx context.Context, workload string, run func(context.Context, *admin.LogAPI) error) error {
	if !strings.Contains(workload, p.Only) {
		return nil
	}
	c, err := p.server[Signet].SDK(ctx, Cred)
	if err != nil {
		return err
	}
	defer c.Close()
	return run(ctx, admin.New(c).Log())
}

// logged publishes to a stream that is logged, and counts what the server uses until a
// checkpoint covers everything.
func (p *pair) logged(ctx context.Context, log *admin.LogAPI) error {
	m := &nats.Msg{Subject: subjectLogged, Data: order(256)}
	if _, err := publishAsync(p.conn[Signet], m, p.LazyWindow, p.Warm); err != nil {
		return err
	}
	if err := awaitLog(ctx, log); err != nil {
		return err
	}
	return p.measure(ctx, loggedWorkload, Signet, streamLogged, func() (*Figure, error) {
		f, err := publishAsync(p.conn[Signet], m, p.LazyWindow, p.Window)
		if err != nil {
			return nil, err
		}
		return f, awaitLog(ctx, log)
	})
}

// awaitLog returns when a checkpoint covers all of the stream.
func awaitLog(ctx context.Context, log *admin.LogAPI) error {
	look := time.NewTicker(lagLook)
	defer look.Stop()
	for {
		st, err := logStatus(ctx, log)
		if err != nil || st.Lag == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: the log does not come to the end: %+v: %w", ErrLoad, st, ctx.Err())
		case <-look.C:
		}
	}
}

func logStatus(ctx context.Context, log *admin.LogAPI) (admin.LogStatus, error) {
	all, err := log.List(ctx)
	if err != nil {
		return admin.LogStatus{}, err
	}
	for _, st := range all {
		if st.Stream == streamLogged {
			return st, nil
		}
	}
	return admin.LogStatus{}, fmt.Errorf("%w: %s has no log", ErrLoad, streamLogged)
}

// lag publishes at lagRate and looks how old the oldest event is that no checkpoint
// covers. The greatest age is the figure's P99, the median of all looks its P50.
func (p *pair) lag(ctx context.Context, log *admin.LogAPI) error {
	if err := awaitLog(ctx, log); err != nil {
		return err
	}
	return p.measure(ctx, lagWorkload, Signet, streamLogged, func() (*Figure, error) {
		before, err := logStatus(ctx, log)
		if err != nil {
			return nil, err
		}
		var load paced
		done := make(chan error, 1)
		go func() { done <- load.run(p.conn[Signet], order(256), p.FsyncWindow, 2*p.Window) }()
		look := time.NewTicker(lagLook)
		defer look.Stop()
		var ages []float64
		for {
			select {
			case err := <-done:
				if err != nil {
					return nil, err
				}
				s := spread(ages)
				f := &Figure{Events: load.sent, Elapsed: load.took}
				f.P50, f.P99 = time.Duration(s.Median), time.Duration(s.Max)
				return f, awaitLog(ctx, log)
			case <-look.C:
			}
			asked := time.Now() // what is covered now was covered then, or later
			st, err := logStatus(ctx, log)
			if err != nil {
				return nil, err
			}
			ages = append(ages, float64(load.age(asked, st.LastSeq-st.Lag-before.LastSeq)))
		}
	})
}

// paced publishes at lagRate and remembers when.
type paced struct {
	sent int
	took time.Duration

	mu    sync.Mutex
	marks []time.Time // when each lagMark-th event was published
}

func (l *paced) run(nc *nats.Conn, data []byte, window int, d time.Duration) error {
	var failed atomic.Pointer[error]
	js, err := asyncPublisher(nc, window, &failed)
	if err != nil {
		return err
	}
	defer js.CleanupPublisher()
	start := time.Now()
	pace := time.NewTicker(time.Second * lagMark / lagRate)
	defer pace.Stop()
	for time.Since(start) < d && failed.Load() == nil {
		<-pace.C
		// What the ticker dropped while the window was full is made up for.
		for due := int(time.Since(start).Seconds() * lagRate); l.sent < due; {
			l.mu.Lock()
			l.marks = append(l.marks, time.Now())
			l.mu.Unlock()
			for range lagMark {
				if _, err := js.PublishAsync(subjectLogged, data, jetstream.WithStallWait(stallWait)); err != nil {
					return fmt.Errorf("%w: publish %s: %w", ErrLoad, subjectLogged, err)
				}
			}
			l.sent += lagMark
		}
	}
	l.took = time.Since(start)
	return acknowledged(js, subjectLogged, &failed)
}

// age is how long ago, at the time now, the oldest event was published that is not
// among the first covered ones; 0 when there is none.
func (l *paced) age(now time.Time, covered uint64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := covered / lagMark
	if i >= uint64(len(l.marks)) {
		return 0
	}
	return max(0, now.Sub(l.marks[i]))
}
