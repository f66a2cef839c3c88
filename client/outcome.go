package client

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// permanent marks an error that no redelivery can heal.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// Permanent wraps err so that a handler that returns it terminates the event, which
// makes it a dead letter, instead of having it delivered again. The text of what the
// handler returns is the reason, one line of at most 256 bytes. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanent{err}
}

// Reject is Permanent of an error that says no more than reason, for an event that is
// at fault itself: `return client.Reject("amount is negative")`.
func Reject(reason string) error { return permanent{errors.New(reason)} }

// retry marks an error with the time after which the event is wanted again.
type retry struct {
	after time.Duration
	cause error
}

func (r retry) Error() string {
	if r.cause == nil {
		return fmt.Sprintf("client: retry after %v", r.after)
	}
	return r.cause.Error()
}

func (r retry) Unwrap() error { return r.cause }

// MaxRetryAfter is the longest delay of Retry.
const MaxRetryAfter = 24 * time.Hour

// Retry makes a handler that returns it get the event again after that time, and up to
// a quarter more so that the workers of a failed dependency do not come back together;
// 1 ms to MaxRetryAfter, others are cut to that. cause may be left out; it is what the
// error says and unwraps to.
//
// There is one owner of retries, the policy of the broker: it says how often an event
// is delivered before it is a dead letter, and how long the pauses are. Retry only
// replaces the next pause, as for an HTTP answer with Retry-After; the delivery counts
// like any other.
func Retry(after time.Duration, cause ...error) error {
	return retry{after: min(max(after, time.Millisecond), MaxRetryAfter), cause: errors.Join(cause...)}
}

// jittered is d and up to a quarter more.
func jittered(d time.Duration) time.Duration {
	return d + rand.N(d/4+1) //nolint:gosec // jitter is no secret
}
