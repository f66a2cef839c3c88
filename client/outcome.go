package client

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/signetbus/signet/dlq"
)

// permanent marks an error that no redelivery can heal.
type permanent struct {
	error
	verdict bool // on the event, of Reject
}

func (p permanent) Unwrap() error { return p.error }

// Permanent wraps err, a failure that no redelivery can heal: a handler that returns it
// makes the event a dead letter with the reason handler. The text of what the handler
// returns becomes its detail, one line of at most 240 bytes, more is cut off.
// Permanent(nil) is nil.
//
// The text is stored in the clear, also beside an encrypted event, and whoever reads dead
// letters reads it: it must not quote the payload, or a secret.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanent{error: err}
}

// Reject is for an event that is at fault itself: `return client.Reject("amount is
// negative")`. It is a dead letter with the reason terminated; the text is as of Permanent.
func Reject(reason string) error { return permanent{errors.New(reason), true} }

// givenUp is the text of the +TERM for err, which is a permanent one.
func (p permanent) givenUp(err error) string {
	if p.verdict {
		return err.Error()
	}
	return dlq.HandlerPrefix + err.Error()
}

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
