package client

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Defaults and limits of Seen.
const (
	DefaultHold = 15 * time.Second
	MinHold     = time.Second
	MaxHold     = 10 * time.Minute
)

// ErrTaken is the cause of the end of a handler's context (context.Cause) where Once
// found that another worker has taken the event over, and what Once returns then.
var ErrTaken = errors.New("client: another worker has taken the event over")

// Seen says where Once remembers what was handled.
type Seen struct {
	// Bucket is a key-value bucket of the policy. The principal needs the grants to read
	// and to write it. It must have a ttl, which is how long an event is remembered: longer
	// than anything may bring it again (retries, redrives, publishing it again). Each event
	// takes one entry of about 250 bytes. Where the bucket is full nothing is forgotten for
	// new ones: no event is handled until entries are over their time. Each try fails then, and
	// counts, so events become dead letters when the retry policy is used up: give the
	// bucket room, then redrive them.
	Bucket string
	// Set separates what handlers with different tasks remember in one bucket: 1 to 64 of
	// A-Z a-z 0-9 _ -. Default "once".
	Set string
	// ByEvent remembers the principal, source and id of events (EventKey), which finds an
	// event again that was published twice or comes from another stream. Without it, stream
	// and sequence are remembered: the same delivery again.
	ByEvent bool
	// Hold is how long a worker that has died in the middle of an event keeps others from
	// it; it is extended while the handler runs. Default DefaultHold, MinHold to MaxHold. Keep it
	// under the AckWait, and nobody waits for it.
	Hold time.Duration
}

// mark is what the bucket holds for an event.
type mark struct {
	Done bool   `json:"done,omitempty"`
	By   string `json:"by,omitempty"` // who is at it
}

// Once returns a handler that gives each event to handler once: what was handled is
// acknowledged unseen when it comes again, in any process that uses the same Bucket and
// Set. While one worker has an event, others wait for how it ends.
//
// It is at least once all the same: a worker that dies after the effect of handler and
// before the bucket has it, or that is stopped for longer than Hold, leaves an event that
// is handled again. Where that must not be, store EventKey together with the effect, in one
// transaction, and refuse a key that is there.
//
// What handler returns is what the returned handler does; an event whose handler failed is
// not remembered. One that was handled and cannot be remembered is acknowledged, and
// WithErrorHandler is told. ctx bounds the setting up only.
//
// Errors: ErrInvalidOption, also for a bucket without ttl; ErrDenied, ErrUnavailable.
func Once(ctx context.Context, c *Client, seen Seen, handler Handler) (Handler, error) {
	if handler == nil {
		return nil, fmt.Errorf("%w: no handler", ErrInvalidOption)
	}
	if seen.Set == "" {
		seen.Set = "once"
	}
	if seen.Hold == 0 {
		seen.Hold = DefaultHold
	}
	if seen.Hold < MinHold || seen.Hold > MaxHold {
		return nil, fmt.Errorf("%w: Seen.Hold: %v is not in %v to %v", ErrInvalidOption, seen.Hold, MinHold, MaxHold)
	}
	if err := checkConsumerName(seen.Set); err != nil {
		return nil, fmt.Errorf("Seen.Set: %w", err)
	}
	kv, err := newBucket(c, seen.Bucket)
	if err != nil {
		return nil, err
	}
	ttl, _, err := kv.look(ctx)
	switch {
	case err != nil:
		return nil, err
	case ttl == 0:
		return nil, fmt.Errorf("%w: bucket %s has no ttl, so what is remembered would have no bound: give it one in the policy", ErrInvalidOption, seen.Bucket)
	case ttl < 2*seen.Hold:
		return nil, fmt.Errorf("%w: values of bucket %s live %v, which must be at least twice Seen.Hold of %v", ErrInvalidOption, seen.Bucket, ttl, seen.Hold)
	}
	o := &once{onError: c.cfg.onError, kv: kv, seen: seen, handler: handler}
	return o.handle, nil
}

// EventKey returns what tells an event from all others: a hash of its source and id, and of
// the principal that published it, as the broker attests it. Without the principal whoever
// may publish under the source of another could use up the ids of that one. The same event
// published by two principals is two events; what is delivered again, redriven as it was, or
// fired by a schedule keeps its principal. It is for handlers that store it with their own
// data.
func EventKey(d *Delivery) string { return digest(d.Principal, d.Event.Source, d.Event.ID) }

// digest is a key of parts that no other parts have.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		_, _ = h.Write([]byte(strconv.Itoa(len(p)) + ":" + p)) // never fails
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

type once struct {
	onError func(error)
	kv      bucket
	seen    Seen
	handler Handler
}

// turn is one try to handle one event.
type turn struct {
	*once
	key string
	me  string // no other turn has the name, in this process or another
}

func (o *once) handle(ctx context.Context, d *Delivery) error {
	key := o.seen.Set + "."
	switch {
	case o.seen.ByEvent:
		key += EventKey(d)
	case d.Stream == "":
		return Permanent(fmt.Errorf("%w: Once of SubscribeLive needs Seen.ByEvent", ErrInvalidOption))
	default:
		key += digest(d.Stream, strconv.FormatUint(d.Sequence, 10))
	}
	t := &turn{o, key, strings.ToLower(rand.Text())[:16]}
	revision, done, err := t.claim(ctx, d)
	if err != nil || done {
		return err
	}
	return t.run(ctx, d, revision)
}

// claim marks the event as ours, or says that it is done. It waits for who has it.
func (t *turn) claim(ctx context.Context, d *Delivery) (revision uint64, done bool, err error) {
	var known value // the first try is for the usual case: nobody has seen it
	for {
		revision, err = t.put(ctx, mark{By: t.me}, known.revision)
		if !errors.Is(err, ErrConflict) {
			return revision, false, err
		}
		if known, err = t.kv.get(ctx, t.key); err != nil {
			return 0, false, err
		}
		if known.data == nil {
			continue
		}
		var m mark
		if err := json.Unmarshal(known.data, &m); err != nil {
			return 0, false, fmt.Errorf("client: key %s of bucket %s is not a mark of Once: %w", t.key, t.kv.name, err)
		}
		switch {
		case m.Done:
			return 0, true, nil
		case m.By == t.me: // it was sent again after a lost connection
			return known.revision, false, nil
		}
		rest, err := t.rest(ctx, known)
		if err != nil {
			return 0, false, err
		}
		if rest <= 0 {
			continue // who had it is dead
		}
		_ = d.InProgress() // an event that waits here is in good hands
		if !sleep(ctx, jittered(min(rest, max(t.seen.Hold/8, 50*time.Millisecond)))) {
			return 0, false, ctx.Err()
		}
		known.revision = 0 // that it is not taken over now
	}
}

// rest is how long the mark of another worker holds yet. Both times are of the server.
func (t *turn) rest(ctx context.Context, v value) (time.Duration, error) {
	_, now, err := t.kv.look(ctx)
	return t.seen.Hold - now.Sub(v.stored), err
}

// run calls the handler, keeps the mark meanwhile, and settles it.
func (t *turn) run(ctx context.Context, d *Delivery, revision uint64) error {
	held, end := context.WithCancelCause(ctx)
	defer end(nil)
	keeper := make(chan uint64, 1)
	stop := make(chan struct{})
	go func() { keeper <- t.keep(held, end, revision, stop) }()
	err := func() error {
		defer close(stop) // whoever catches a panic of the handler is not to find the mark kept for ever
		return t.handler(held, d)
	}()
	revision = <-keeper
	if errors.Is(context.Cause(held), ErrTaken) {
		return ErrTaken
	}
	if err != nil || d.outcome() == outcomeNak || d.outcome() == outcomeTerm {
		// It comes again, or never: neither is handled. What fails here ends with Hold.
		_ = t.kv.drop(context.WithoutCancel(ctx), t.key, revision)
		return err
	}
	// The effect is there: the mark is worth waiting for, whatever has ended.
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.seen.Hold)
	defer cancel()
	if err = t.remember(wait, revision); err != nil && !errors.Is(err, ErrTaken) {
		// To have it again, only because nobody would know that it was handled, helps nobody.
		t.onError(fmt.Errorf("client: an event of %s was handled and is not remembered, key %s: %w", d.Stream, t.key, err))
		return nil
	}
	return err
}

// remember writes the mark of what is handled, and tries for as long as ctx lasts.
func (t *turn) remember(ctx context.Context, revision uint64) error {
	for delay := firstBackoff; ; delay *= 2 {
		_, err := t.put(ctx, mark{Done: true}, revision)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, ErrConflict):
			return t.confirm(ctx)
		case !Retryable(err) || !sleep(ctx, jittered(delay)):
			return err
		}
	}
}

// confirm finds out whether the mark is done after all: a write that was sent again after
// a lost connection is refused because of itself.
func (t *turn) confirm(ctx context.Context) error {
	v, err := t.kv.get(ctx, t.key)
	var m mark
	if err == nil && v.data != nil {
		err = json.Unmarshal(v.data, &m)
	}
	if err == nil && !m.Done {
		err = ErrTaken
	}
	return err
}

// keep renews the mark until stop, and returns its revision. end is called when the mark
// is another's.
func (t *turn) keep(ctx context.Context, end context.CancelCauseFunc, revision uint64, stop <-chan struct{}) uint64 {
	renew := time.NewTicker(t.seen.Hold / 3)
	defer renew.Stop()
	for {
		select {
		case <-stop:
			return revision
		case <-ctx.Done():
			return revision
		case <-renew.C:
		}
		next, err := t.put(ctx, mark{By: t.me}, revision)
		switch {
		case err == nil:
			revision = next
		case errors.Is(err, ErrConflict):
			v, gerr := t.kv.get(ctx, t.key)
			var m mark
			if gerr == nil && v.data != nil && json.Unmarshal(v.data, &m) == nil && m.By == t.me {
				revision = v.revision // our own, which was sent again
			} else if gerr == nil {
				end(ErrTaken)
			}
		}
	}
}

func (t *turn) put(ctx context.Context, m mark, revision uint64) (uint64, error) {
	text, err := json.Marshal(m)
	if err != nil { // a bool and a name always encode
		return 0, err
	}
	return t.kv.put(ctx, t.key, text, revision)
}

// sleep waits for d; false: ctx has ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
