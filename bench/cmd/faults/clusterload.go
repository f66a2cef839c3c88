package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/bench"
	"github.com/signetbus/signet/client"
)

// The load on a cluster lives through all faults. Every publisher waits for its
// acknowledgement and publishes again under the same event id until it has it, so
// that each event must be stored exactly once and in order.
const (
	clusterSDK   = 6
	clusterPlain = 3
	tryFor       = 3 * time.Second // one try
	giveUp       = 3 * time.Minute // all tries of one event
)

// workload is the publishers and consumers of a cluster.
type workload struct {
	at     bench.Address // all nodes
	l      *ledger
	beats  *pulse
	life   context.Context //nolint:containedctx // the private lifetime of the goroutines
	stop   context.CancelFunc
	ending chan struct{} // closed: publishers finish what they have begun
	wg     sync.WaitGroup
	fault  chan error
	closes []func()

	retries atomic.Int64 // tries after the first
	why     sync.Map     // by publisher: why its last try failed
	seen    *attendance
	broken  *letters
}

func newWorkload(ctx context.Context, at bench.Address) (*workload, error) {
	w := &workload{at: at, l: newLedger(), beats: &pulse{}, ending: make(chan struct{}), fault: make(chan error, clusterSDK+clusterPlain+clusterBreakers), broken: newLetters()}
	w.life, w.stop = context.WithCancel(context.Background())
	if err := w.open(ctx); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *workload) open(ctx context.Context) error {
	for range clusterSDK {
		c, err := w.at.SDK(ctx, "publisher", client.WithReconnectWait(50*time.Millisecond))
		if err != nil {
			return err
		}
		w.closes = append(w.closes, c.Close)
		w.publish(func(ctx context.Context, id, number int) (uint64, error) {
			ev := client.NewEvent("faults.entry", encode(id, number))
			ev.ID, ev.DataContentType = eventID(id, number), client.ContentTypeJSON
			ack, err := c.Publish(ctx, subjectOf(id), ev)
			if err != nil {
				return 0, err
			}
			return ack.Sequence, nil
		})
	}
	for range clusterPlain {
		nc, err := w.at.Connect("publisher", nats.ReconnectWait(50*time.Millisecond), nats.MaxReconnects(-1))
		if err != nil {
			return err
		}
		w.closes = append(w.closes, nc.Close)
		w.publish(func(ctx context.Context, id, number int) (uint64, error) { return plainPublish(ctx, nc, id, number) })
	}
	for id := range clusterBreakers {
		if err := w.broken.open(w, id); err != nil {
			return err
		}
	}
	var err error
	w.seen, err = w.attend(ctx)
	return err
}

func eventID(publisher, number int) string { return fmt.Sprintf("%d-%d", publisher, number) }

// errAgain marks a refusal that passes.
var errAgain = errors.New("refused for now")

// duplicateInProcess is JetStream's answer to a second try while the first is on its
// way: it may still arrive, or not.
const duplicateInProcess = 10158

// plainPublish publishes with plain nats.go, which leaves retries to its user.
func plainPublish(ctx context.Context, nc *nats.Conn, id, number int) (uint64, error) {
	m := &nats.Msg{Subject: subjectOf(id), Data: encode(id, number), Header: nats.Header{nats.MsgIdHdr: {eventID(id, number)}}}
	answer, err := nc.RequestMsgWithContext(ctx, m)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errAgain, err) // no answer: whatever it was, it has to be tried again
	}
	var a struct {
		Sequence uint64 `json:"seq"`
		Error    *struct {
			Code    int `json:"code"`
			ErrCode int `json:"err_code"`
		} `json:"error"`
	}
	err = json.Unmarshal(answer.Data, &a)
	switch {
	case err == nil && a.Sequence > 0:
		return a.Sequence, nil
	case err == nil && a.Error != nil && (a.Error.Code == 503 || a.Error.ErrCode == duplicateInProcess):
		return 0, fmt.Errorf("%w: %s", errAgain, answer.Data)
	}
	return 0, fmt.Errorf("%w: answer %q", errBroken, answer.Data)
}

// publish runs one publisher until ending is closed.
func (w *workload) publish(try func(ctx context.Context, id, number int) (uint64, error)) {
	id := w.l.publisher()
	beat := w.beats.join()
	w.wg.Go(func() {
		for {
			select {
			case <-w.ending:
				return
			case <-w.life.Done():
				return
			default:
			}
			sequence, err := w.until(id, w.l.send(id), try)
			if err != nil {
				if w.life.Err() == nil {
					w.fault <- fmt.Errorf("publisher %d: %w", id, err)
				}
				return
			}
			w.l.ack(id, w.l.count(id), sequence)
			w.beats.beat(beat)
		}
	})
}

// until publishes one event until it is acknowledged.
func (w *workload) until(id, number int, try func(ctx context.Context, id, number int) (uint64, error)) (uint64, error) {
	for begin := time.Now(); ; {
		ctx, cancel := context.WithTimeout(w.life, tryFor)
		sequence, err := try(ctx, id, number)
		cancel()
		switch {
		case err == nil:
			return sequence, nil
		case w.life.Err() != nil:
			return 0, w.life.Err()
		case time.Since(begin) > giveUp:
			return 0, fmt.Errorf("%w: number %d was never acknowledged: %w", errBroken, number, err)
		case !errors.Is(err, errAgain) && !client.Retryable(err) && !errors.Is(err, context.DeadlineExceeded):
			return 0, err
		}
		w.retries.Add(1)
		w.note(id, fmt.Errorf("number %d after %v: %w", number, time.Since(begin).Round(time.Millisecond), err))
		if errors.Is(err, errAgain) || errors.Is(err, client.ErrUnavailable) {
			t := time.NewTimer(20 * time.Millisecond) // refused at once: do not spin
			select {
			case <-t.C:
			case <-w.life.Done():
			}
			t.Stop()
		}
	}
}

func (w *workload) note(id int, err error) { w.why.Store(id, err) }

// stuck adds to err why each publisher's last failed try failed.
func (w *workload) stuck(err error) error {
	w.why.Range(func(id, why any) bool {
		err = fmt.Errorf("%w\npublisher %v: %v", err, id, why)
		return true
	})
	return err
}

// failed returns what has gone wrong so far.
func (w *workload) failed() error {
	select {
	case err := <-w.fault:
		return err
	default:
		return nil
	}
}

// finish lets the publishers finish what they have begun, and ends them.
func (w *workload) finish(ctx context.Context) error {
	close(w.ending)
	done := make(chan struct{})
	go func() {
		w.wg.Wait()
		close(done)
	}()
	select {
	case err := <-w.fault:
		return err
	case <-done:
		return w.failed()
	case <-ctx.Done():
		return fmt.Errorf("publishers do not finish: %w", ctx.Err())
	}
}

func (w *workload) close() {
	w.stop()
	for _, f := range w.closes {
		f()
	}
	w.wg.Wait()
}

// attendance is what a durable consumer has handled.
type attendance struct {
	mu      sync.Mutex
	seen    map[uint64]int    // by sequence
	what    map[uint64]string // by sequence: the event's id
	moved   error             // another event at a sequence than before
	again   int               // deliveries of what was handled before
	invalid int
	sub     *client.Subscription
}

// attend starts a durable consumer that lives through all faults.
func (w *workload) attend(ctx context.Context) (*attendance, error) {
	a := &attendance{seen: map[uint64]int{}, what: map[uint64]string{}}
	c, err := w.at.SDK(ctx, "reader", client.WithReconnectWait(50*time.Millisecond), client.WithInvalidHandler(func(client.InvalidEvent) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.invalid++
	}))
	if err != nil {
		return nil, err
	}
	w.closes = append(w.closes, c.Close)
	a.sub, err = c.Subscribe(ctx, "faults.>", func(_ context.Context, d *client.Delivery) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.seen[d.Sequence]++; a.seen[d.Sequence] > 1 {
			a.again++
		}
		if was := a.what[d.Sequence]; was != "" && was != d.Event.ID && a.moved == nil {
			a.moved = fmt.Errorf("%w: the durable consumer had %s at sequence %d, and then %s", errBroken, was, d.Sequence, d.Event.ID)
		}
		a.what[d.Sequence] = d.Event.ID
		return nil
	}, client.Durable("attendant"), client.FromStart(), client.SubMaxInFlight(512), client.AckWait(10*time.Second))
	return a, err
}

// complete waits until everything up to last was handled.
func (a *attendance) complete(ctx context.Context, last uint64) error {
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		a.mu.Lock()
		have, invalid := len(a.seen), a.invalid
		a.mu.Unlock()
		if invalid > 0 {
			return fmt.Errorf("%w: %d deliveries to the durable consumer do not verify", errBroken, invalid)
		}
		if uint64(have) >= last {
			return nil
		}
		select {
		case <-poll.C:
		case <-a.sub.Closed():
			return fmt.Errorf("the durable consumer ended: %w", a.sub.Err())
		case <-ctx.Done():
			return fmt.Errorf("%w: the durable consumer has handled %d of %d events (missing: %s; %+v): %w",
				errBroken, have, last, a.missing(last), a.sub.Stats(), ctx.Err())
		}
	}
}

// beyond looks for what was handled and is not stored: nothing up to last is missing then.
func (a *attendance) beyond(last uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for s := range a.seen {
		if s > last {
			return fmt.Errorf("%w: the durable consumer has handled sequence %d, the last one stored is %d", errBroken, s, last)
		}
	}
	return a.moved
}

// missing names the first few sequences that were not handled.
func (a *attendance) missing(last uint64) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for s := uint64(1); s <= last && len(out) < 5; s++ {
		if a.seen[s] == 0 {
			out = append(out, fmt.Sprint(s))
		}
	}
	return strings.Join(out, ", ")
}
