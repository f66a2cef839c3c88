package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestOutcomes: what a handler returns is what the broker is told, and the SDK adds no
// delay of its own to what the retry policy decides.
func TestOutcomes(t *testing.T) {
	cause := errors.New("not now")
	outcomes := []struct {
		err  error
		want string
	}{
		{nil, "+ACK"},
		{cause, "-NAK"},
		{Permanent(fmt.Errorf("line one\nline two")), "+TERM handler: line one line two"},
		{Permanent(nil), "+ACK"},
		{Reject("amount is negative"), "+TERM amount is negative"},
		{fmt.Errorf("order 7: %w", Reject("no such item")), "+TERM order 7: no such item"},
		{Reject(strings.Repeat("x", 300)), "+TERM " + strings.Repeat("x", 256)},
		{Permanent(Retry(time.Second)), "+TERM handler: client: retry after 1s"},
		{Retry(0), `-NAK {"delay": 1`},
		{Retry(time.Minute, cause), "-NAK "},
	}
	f := newFakeBroker(t)
	acks := scripted(f, func(inbox string) {
		for i := range outcomes {
			id := fmt.Sprint(i)
			f.deliverTo(inbox, "orders.created", ackSubject(i+1), f.attested(id, "orders.created", nil), nil)
		}
	})
	c, next := f.connect(), 0
	sub, err := c.Subscribe(context.Background(), "orders.>", func(context.Context, *Delivery) error {
		next++
		return outcomes[next-1].err
	}, Durable("billing"))
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range outcomes {
		_, got, _ := strings.Cut(receive(t, acks), " ")
		if got != o.want && !(strings.HasPrefix(o.want, "-NAK ") && strings.HasPrefix(got, o.want)) {
			t.Errorf("outcome %d: %q, want %q", i, got, o.want)
		}
	}
	sub.Stop()
	receive(t, sub.Closed())
}

func TestRetry(t *testing.T) {
	cause := errors.New("the bank is closed")
	err := Retry(time.Minute, cause)
	var r retry
	if !errors.Is(err, cause) || err.Error() != cause.Error() || !errors.As(err, &r) || r.after != time.Minute {
		t.Errorf("Retry with a cause = %v", err)
	}
	for given, want := range map[time.Duration]time.Duration{-1: time.Millisecond, 0: time.Millisecond, 1000 * time.Hour: MaxRetryAfter} {
		if errors.As(Retry(given), &r); r.after != want {
			t.Errorf("Retry(%v) = after %v, want %v", given, r.after, want)
		}
	}
	seen := map[time.Duration]bool{}
	for range 100 {
		d := jittered(time.Minute)
		if d < time.Minute || d > time.Minute*5/4 {
			t.Fatalf("jittered(1m) = %v", d)
		}
		seen[d] = true
	}
	if len(seen) < 2 {
		t.Error("no jitter")
	}
}
