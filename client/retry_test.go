package client

import (
	"context"
	"testing"
	"time"
)

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
	began := time.Now() // never before the broker's time
	if !pause(context.Background(), &Error{RetryAfter: 20 * time.Millisecond}, 0) || time.Since(began) < 20*time.Millisecond {
		t.Errorf("it came back after %v", time.Since(began))
	}
}
