package broker

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/store"
)

// TestUnansweredIsNoRefusal: a start waits for a cluster that cannot answer, and ends
// with what it refuses.
func TestUnansweredIsNoRefusal(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want bool
	}{
		{"all is well", nil, false},
		{"no answer in time", fmt.Errorf("store: STREAM.LIST: %w", context.DeadlineExceeded), true},
		{"no leader", fmt.Errorf("store: %w", &jetstream.APIError{Code: 503, ErrorCode: 10008}), true},
		{"too few nodes", fmt.Errorf("store: %w", &jetstream.APIError{Code: 400, ErrorCode: 10005}), true},
		{"a stream without a leader", fmt.Errorf("tenant shop: %w", store.ErrNoLeader), true},
		{"too little storage", fmt.Errorf("store: %w", &jetstream.APIError{Code: 503, ErrorCode: 10047}), false},
		{"a wrong configuration", &jetstream.APIError{Code: 400, ErrorCode: 10052}, false},
		{"the start was given up", context.Canceled, false},
	} {
		if got := unanswered(c.err); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestPatientStepIsForClusters: a broker by itself ends with the first error.
func TestPatientStepIsForClusters(t *testing.T) {
	calls := 0
	step := startup{&Broker{}}.patient(func(context.Context, *material) error {
		calls++
		return context.DeadlineExceeded
	})
	if err := step(t.Context(), nil); !errors.Is(err, context.DeadlineExceeded) || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}
