package brokertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/signetbus/signet/client"
)

// tryFor bounds one try of PublishNumbers, and tryAgain is between two: the gate looks
// once a second whether the store takes anything again.
const (
	tryFor   = 10 * time.Second
	tryAgain = 100 * time.Millisecond
)

// PublishNumbers stores events whose data are the numbers of [from, to), in order and
// each once. While nodes come and go a cluster refuses or does not answer: what is
// tried again keeps its event id. It fails the test when ctx ends.
func PublishNumbers(ctx context.Context, tb testing.TB, c *client.Client, natsSubject string, from, to int) {
	tb.Helper()
	for i := from; i < to; i++ {
		ev := &client.Event{ID: fmt.Sprintf("number %d", i), Data: fmt.Append(nil, i)}
		for {
			err := publishOnce(ctx, c, natsSubject, ev)
			if err == nil {
				break
			}
			if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) && !client.Retryable(err) {
				tb.Fatalf("event %d: %v", i, err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(tryAgain):
			}
		}
	}
}

func publishOnce(ctx context.Context, c *client.Client, natsSubject string, ev *client.Event) error {
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	_, err := c.Publish(ctx, natsSubject, ev)
	return err
}

// ReadBack subscribes from the start and returns the data of the first n events, in the
// order in which they come; all are verified. It fails the test when ctx ends.
func ReadBack(ctx context.Context, tb testing.TB, c *client.Client, filter string, n int) []string {
	tb.Helper()
	var mu sync.Mutex
	var got []string
	done := make(chan struct{})
	sub, err := c.Subscribe(ctx, filter, func(_ context.Context, d *client.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		if got = append(got, string(d.Event.Data)); len(got) == n {
			close(done)
		}
		return nil
	}, client.FromStart())
	if err != nil {
		tb.Fatal(err)
	}
	defer sub.Stop()
	select {
	case <-done:
	case <-ctx.Done():
	}
	mu.Lock()
	defer mu.Unlock()
	if len(got) < n {
		tb.Fatalf("%d of %d events: %v", len(got), n, ctx.Err())
	}
	return got[:n]
}

// CheckNumbers reads back what PublishNumbers has stored with [0, n).
func CheckNumbers(ctx context.Context, tb testing.TB, c *client.Client, filter string, n int) {
	tb.Helper()
	for i, data := range ReadBack(ctx, tb, c, filter, n) {
		if data != fmt.Sprint(i) {
			tb.Errorf("event %d is %s", i, data)
		}
	}
}
