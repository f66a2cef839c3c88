package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/examples/githubwebhooks"
)

// report is what a process of the demo tells the one that started it.
type report struct {
	Accepted   int            `json:"accepted"`
	Refused    int            `json:"refused"`
	Violations int            `json:"violations"` // refusals that named a JSON pointer
	Verified   int            `json:"verified"`
	Invalid    int            `json:"invalid"`
	RetryAfter time.Duration  `json:"retryAfter"` // longest that was named
	ByPerson   map[string]int `json:"byPerson"`   // events by attested principal
	Denied     []string       `json:"denied"`     // what was tried and refused
}

// webhooks publishes every delivery as an event and counts the answers.
func webhooks(ctx context.Context, name string) (report, error) {
	var r report
	c, err := client.Connect(ctx, "", client.WithContext(name))
	if err != nil {
		return r, err
	}
	defer c.Close()
	var futures []*client.Future
	for d := range githubwebhooks.Deliveries() {
		ev := client.NewEvent("com.github."+d.Event, d.Payload)
		ev.DataContentType = client.ContentTypeJSON
		f, err := c.PublishAsync(ctx, subject(d), ev)
		if err != nil {
			return r, err
		}
		futures = append(futures, f)
	}
	for _, f := range futures {
		_, err := f.Wait(ctx)
		var refusal *client.Error
		switch {
		case err == nil:
			r.Accepted++
		case errors.Is(err, client.ErrSchemaViolation) && errors.As(err, &refusal):
			r.Refused++
			if len(refusal.Violations) > 0 {
				r.Violations++
			}
		default:
			return r, err
		}
	}
	return r, nil
}

// auditor reads the stream from its start until it has want events. The SDK hands
// over only what verifies; what does not is counted.
func auditor(ctx context.Context, name string, want int) (report, error) {
	r := report{ByPerson: map[string]int{}}
	var mu sync.Mutex
	done := make(chan struct{})
	c, err := client.Connect(ctx, "", client.WithContext(name), client.WithInvalidHandler(func(client.InvalidEvent) {
		mu.Lock()
		defer mu.Unlock()
		r.Invalid++
	}))
	if err != nil {
		return r, err
	}
	defer c.Close()
	sub, err := c.Subscribe(ctx, "github.>", func(_ context.Context, d *client.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		r.ByPerson[d.Principal]++
		if r.Verified++; r.Verified == want {
			close(done)
		}
		return nil
	}, client.Durable("auditor"))
	if err != nil {
		return r, err
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
	sub.Drain()
	<-sub.Closed()
	mu.Lock()
	defer mu.Unlock()
	r.ByPerson = maps.Clone(r.ByPerson)
	return r, ctx.Err()
}

// intern tries what it may not, then floods what it may.
func intern(ctx context.Context, name string, flood int) (report, error) {
	var r report
	c, err := client.Connect(ctx, "", client.WithContext(name), client.WithRetry(client.RetryPolicy{}))
	if err != nil {
		return r, err
	}
	defer c.Close()
	expect := func(what string, err error) error {
		if !errors.Is(err, client.ErrDenied) {
			return fmt.Errorf("%s: want a denial, got %w", what, err)
		}
		r.Denied = append(r.Denied, what)
		return nil
	}
	_, err = c.Publish(ctx, "github.push", client.NewEvent("com.github.push", []byte(`{}`)))
	if err := expect("publish on github.push", err); err != nil {
		return r, err
	}
	nothing := func(context.Context, *client.Delivery) error { return nil }
	_, err = c.Subscribe(ctx, "github.>", nothing)
	if err := expect("read github.> with a grant on github.push", err); err != nil {
		return r, err
	}
	_, err = c.Publish(ctx, "load.x", &client.Event{Source: "/demo/webhooks", Data: []byte("x")})
	if err := expect("publish with the source of another", err); err != nil {
		return r, err
	}
	var sent []*client.Future // none waits for another's answer: that would be no flood where a disk is slow
	for range flood {
		f, err := c.PublishAsync(ctx, "load.x", client.NewEvent("load", []byte("x")))
		if err != nil {
			return r, err
		}
		sent = append(sent, f)
	}
	for _, f := range sent {
		_, err := f.Wait(ctx)
		var refusal *client.Error
		switch {
		case err == nil:
			r.Accepted++
		case errors.Is(err, client.ErrRateLimited) && errors.As(err, &refusal):
			r.Refused++
			r.RetryAfter = max(r.RetryAfter, refusal.RetryAfter)
		default:
			return r, err
		}
	}
	return r, nil
}
