package client

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// TestRetryAfterHasJitter: never before the broker's time, never much later, and not all
// clients at once.
func TestRetryAfterHasJitter(t *testing.T) {
	limited := fmt.Errorf("wrapped: %w", &Error{Class: string(wire.ClassRateLimited), RetryAfter: 400 * time.Millisecond})
	for _, tt := range []struct {
		name  string
		err   error
		delay time.Duration
		least time.Duration
	}{
		{"the broker's", limited, time.Millisecond, 400 * time.Millisecond},
		{"the longer of the two", limited, time.Second, time.Second},
		{"its own", errors.New("x"), 8 * time.Millisecond, 8 * time.Millisecond},
		{"none", errors.New("x"), 0, 0},
	} {
		seen := map[time.Duration]bool{}
		for range 200 {
			d := retryAfter(tt.err, tt.delay)
			if d < tt.least || d > tt.least*5/4 {
				t.Fatalf("%s: %v, want %v to a quarter more", tt.name, d, tt.least)
			}
			seen[d] = true
		}
		if tt.least > 0 && len(seen) < 2 {
			t.Errorf("%s: 200 waits are all the same", tt.name)
		}
	}
}

// TestPauseEndsWithItsContext: at once, however long the broker said.
func TestPauseEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan bool)
	go func() { ended <- pause(ctx, &Error{RetryAfter: time.Hour}, 0) }()
	cancel()
	select {
	case goOn := <-ended:
		if goOn {
			t.Error("it goes on after its context has ended")
		}
	case <-time.After(time.Minute):
		t.Error("it waits although its context has ended")
	}
	late, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	if pause(late, &Error{RetryAfter: time.Hour}, 0) {
		t.Error("it goes on beyond the deadline")
	}
	began := time.Now()
	if !pause(context.Background(), &Error{RetryAfter: 20 * time.Millisecond}, 0) || time.Since(began) < 20*time.Millisecond {
		t.Errorf("it came back after %v", time.Since(began))
	}
}
