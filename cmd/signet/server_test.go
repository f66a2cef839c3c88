package main

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// slowStop ends with its context.
type slowStop struct{}

func (slowStop) Shutdown(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestShutdownSignals(t *testing.T) {
	type event struct {
		after time.Duration
		sig   os.Signal
	}
	for _, tt := range []struct {
		name   string
		events []event
		took   time.Duration
		want   error
	}{
		{"none", nil, 10 * time.Second, context.DeadlineExceeded},
		{"the same signal delivered twice", []event{{time.Millisecond, syscall.SIGTERM}}, 10 * time.Second, context.DeadlineExceeded},
		{"a second signal", []event{{time.Second, os.Interrupt}}, time.Second, errInterrupted},
		{"reload while draining", []event{{time.Second, syscall.SIGHUP}}, 10 * time.Second, context.DeadlineExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sig := make(chan os.Signal, 4)
				for _, e := range tt.events {
					time.AfterFunc(e.after, func() { sig <- e.sig })
				}
				began := time.Now()
				err := shutdown(slowStop{}, 10*time.Second, sig, nil)
				if !errors.Is(err, tt.want) || time.Since(began) != tt.took {
					t.Errorf("got %v after %v, want %v after %v", err, time.Since(began), tt.want, tt.took)
				}
			})
		})
	}
}
