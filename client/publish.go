package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/wire"
)

// Ack says where an event is stored.
type Ack struct {
	Stream    string
	Sequence  uint64
	Duplicate bool   // an event of this principal, source and id was there already
	EventID   string // the id it has
	// Receipt is the signed acknowledgement that WithSignedAck asked for, verified:
	// bytes to be kept, which signet verify --receipt and signing.VerifyReceipt read.
	// nil without the option.
	Receipt []byte
}

// A PubOpt changes one publish.
type PubOpt func(*pubConfig) error

type pubConfig struct {
	header  [][2]string
	noRetry bool
	expires bool  // WithExpiry
	plan    *plan // nil: now
}

// WithHeader adds a header that is not an attribute, such as
// Nats-Expected-Last-Subject-Sequence. The broker lets it pass only with a grant
// of its name.
func WithHeader(name, value string) PubOpt {
	return func(p *pubConfig) error {
		if name == "" || strings.ContainsAny(name, ": \t\r\n") || strings.ContainsAny(value, "\r\n") || eventHeader(name) ||
			wire.HasPrefixFold([]byte(name), wire.PrefixSignet) {
			return fmt.Errorf("%w: WithHeader: %q cannot be set", ErrInvalidOption, name)
		}
		p.header = append(p.header, [2]string{name, value})
		return nil
	}
}

// WithoutRetry makes Publish try once, whatever WithRetry says.
func WithoutRetry() PubOpt {
	return func(p *pubConfig) error { p.noRetry = true; return nil }
}

// Publish stores ev on the subject natsSubject and returns when it is on stable
// storage. ev is not modified and may be published again; without an id each
// call is a new event. A context without a deadline gets the one of WithTimeout.
//
// Where the rate limit is spent or the broker is not available it tries again
// (WithRetry), with the same event id and within the deadline. After a lost
// connection the event is sent again; the broker removes the duplicate. With WithEventKey
// it is signed anew for a try a minute later, and where the broker has started since and
// its stream may have forgotten it (40308 with RetryAfter): if that stream had it, and its
// consumers are done with it, it is stored a second time.
//
// Errors: *Error with the classes ErrDenied, ErrMalformed, ErrBadSignature,
// ErrSchemaViolation, ErrRateLimited, ErrTooLarge, ErrConflict, ErrUnavailable,
// ErrInternal, ErrReceipt for WithSignedAck, and ErrEncryption. If no answer came, it is also context.DeadlineExceeded and the
// outcome is unknown: publish again with the EventID of the error.
func (c *Client) Publish(ctx context.Context, natsSubject string, ev *Event, opts ...PubOpt) (*Ack, error) {
	ctx, cancel := c.cfg.deadline(ctx)
	defer cancel()
	ev, err := c.crypt.encrypt(ctx, natsSubject, ev)
	if err != nil {
		return nil, err
	}
	return publish(ctx, c, natsSubject, ev, opts)
}

// publish is Publish of an event that goes out as it is, within ctx.
func publish(ctx context.Context, c *Client, natsSubject string, ev *Event, opts []PubOpt) (*Ack, error) {
	msg, id, noRetry, err := prepare(c, natsSubject, ev, opts)
	if err != nil {
		return nil, err
	}
	delay, made := c.cfg.retry.Delay, time.Now()
	var unknown error   // of a sending that may have been stored
	var signedAnew bool // because the broker began after the signature
	c.signer.flush()    // what PublishAsync was given before goes out before
	for try := 0; ; try++ {
		ack, err := publishOnce(ctx, c, msg, id)
		anew := c.signer != nil && brokerBegan(err)
		if anew && errors.Is(err, ErrOutcomeUnknown) {
			unknown = err
		}
		if err == nil || noRetry || try >= c.cfg.retry.Retries || !anew && !retryPublish(err) {
			return ack, firstUnknown(err, unknown)
		}
		wait := err
		if anew && !signedAnew {
			wait = nil // by a clock that is right it passes now
		}
		if !pause(ctx, wait, delay) {
			return nil, firstUnknown(err, unknown)
		}
		if anew || c.signer != nil && time.Since(made) > resignAfter {
			again := *ev
			again.ID, made, signedAnew = id, time.Now(), anew
			if msg, _, _, err = prepare(c, natsSubject, &again, opts); err != nil {
				return nil, err
			}
		}
		delay = min(2*delay, MaxRetryDelay)
	}
}

func publishOnce(ctx context.Context, c *Client, msg *nats.Msg, id string) (*Ack, error) {
	// A copy: the mux sets its reply, and a resend may still read the last one.
	answer, err := c.mux.ask(ctx, &nats.Msg{Subject: msg.Subject, Header: msg.Header, Data: msg.Data})
	ack, err := readAck(msg.Subject, id, answer, err)
	if err == nil {
		err = checkReceipt(ctx, c, msg, ack)
	}
	if err != nil {
		return nil, err
	}
	return ack, nil
}

// firstUnknown is err, or unknown if that is of an earlier sending: that the last one was
// refused says nothing of the first.
func firstUnknown(err, unknown error) error {
	if err != nil && unknown != nil {
		return unknown
	}
	return err
}

// brokerBegan says that the broker refuses a signed event because it began after that was
// signed, and cannot know whether it had it before. Signed anew the stream knows it by its
// id, if it has it still.
func brokerBegan(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == int(wire.CodeOutsideReplayWindow) && e.RetryAfter > 0
}

// retryPublish is Retryable without the unknown outcomes: those are over the
// deadline already.
func retryPublish(err error) bool {
	return Retryable(err) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, nats.ErrConnectionClosed)
}

// pause waits before a retry, with up to a quarter of jitter so that clients do
// not come back together. false: the wait would go over the deadline.
func pause(ctx context.Context, err error, delay time.Duration) bool {
	var e *Error
	if errors.As(err, &e) {
		delay = max(delay, e.RetryAfter)
	}
	delay = jittered(delay)
	if d, ok := ctx.Deadline(); ok && time.Until(d) <= delay {
		return false
	}
	t := time.NewTimer(delay)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Future is the answer to a PublishAsync.
type Future struct {
	done chan struct{}
	ack  *Ack
	err  error
}

// Done is closed when the answer is there.
func (f *Future) Done() <-chan struct{} { return f.done }

// Wait returns the answer, or the error of ctx if that ends first. The errors are
// those of Publish.
func (f *Future) Wait(ctx context.Context) (*Ack, error) {
	select {
	case <-f.done:
		return f.ack, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// PublishAsync sends ev and returns at once; the Future has the answer, within
// WithTimeout. Events are sent in the order of the calls. It does not try again
// by itself, since that would change the order. ev.Data must not be modified
// before the answer is there.
//
// When WithMaxInFlight publishes have no answer yet it waits for one, until ctx
// ends.
//
// With WithEncryption the first event of a key waits until the record of the key is stored.
//
// Errors: ErrMalformed, ErrInvalidOption, ErrTooManyInFlight, ErrUnavailable,
// ErrEncryption.
func (c *Client) PublishAsync(ctx context.Context, natsSubject string, ev *Event, opts ...PubOpt) (*Future, error) {
	ev, err := c.crypt.encrypt(ctx, natsSubject, ev)
	if err != nil {
		return nil, err
	}
	if c.signer != nil {
		return publishSigned(ctx, c, natsSubject, ev, opts)
	}
	msg, id, _, err := prepare(c, natsSubject, ev, opts)
	if err != nil {
		return nil, err
	}
	if err := slot(ctx, c, asksReceipt(msg)); err != nil {
		return nil, notSent(natsSubject, id, err)
	}
	f := &Future{done: make(chan struct{})}
	if err := dispatch(c, msg, id, f); err != nil {
		free(c, asksReceipt(msg))
		return nil, err
	}
	return f, nil
}

// dispatch sends msg, whose answer ends f and gives its slot back. An error means
// that neither happens.
func dispatch(c *Client, msg *nats.Msg, id string, f *Future) error {
	_, err := c.mux.send(msg, time.Now().Add(c.cfg.timeout), func(answer reply, err error) {
		ack, err := readAck(msg.Subject, id, answer, err)
		finish := func(err error) {
			if f.err = err; err == nil {
				f.ack = ack
			}
			free(c, asksReceipt(msg))
			close(f.done)
		}
		if err == nil {
			settleReceipt(c, msg, ack, finish)
			return
		}
		finish(err)
	})
	if err != nil {
		return withEvent(fromTransport("publish", msg.Subject, err), id)
	}
	return nil
}

func notSent(natsSubject, id string, err error) error {
	return &Error{Op: "publish", Class: string(wire.ClassUnavailable), Title: "not sent", Subject: natsSubject, EventID: id, Err: err}
}

// slot takes a place in flight, and one of those that wait for a signed acknowledgement.
func slot(ctx context.Context, c *Client, asks bool) error {
	ctx, cancel := c.cfg.deadline(ctx)
	defer cancel()
	if err := take(ctx, c.slots); err != nil {
		return err
	}
	if !asks {
		return nil
	}
	err := take(ctx, c.asked)
	if err != nil {
		<-c.slots
	}
	return err
}

// free gives back what slot took.
func free(c *Client, asks bool) {
	<-c.slots
	if asks {
		<-c.asked
	}
}

func take(ctx context.Context, places chan struct{}) error {
	select {
	case places <- struct{}{}:
		return nil
	default:
	}
	select {
	case places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errors.Join(ErrTooManyInFlight, ctx.Err())
	}
}

// Flush waits until every request and publish that was sent before the call has
// its answer, whatever that is.
//
// Errors: the error of ctx.
func (c *Client) Flush(ctx context.Context) error {
	ctx, cancel := c.cfg.deadline(ctx)
	defer cancel()
	c.signer.flush()
	return c.mux.settled(ctx)
}

// PublishLive sends ev on a declared ephemeral subject: attested, not stored, no
// answer. A refusal goes to WithErrorHandler.
//
// Errors: ErrMalformed, ErrTooLarge, ErrEncryption, and ErrUnavailable while disconnected.
func (c *Client) PublishLive(ctx context.Context, natsSubject string, ev *Event, opts ...PubOpt) error {
	ev, err := c.crypt.encrypt(ctx, natsSubject, ev)
	if err != nil {
		return err
	}
	msg, id, _, err := prepare(c, natsSubject, ev, opts)
	if err != nil {
		return err
	}
	if asksReceipt(msg) {
		return fmt.Errorf("%w: WithSignedAck: what is not stored has no acknowledgement", ErrInvalidOption)
	}
	return withEvent(fromTransport("publish", natsSubject, c.nc.PublishMsg(msg)), id)
}

func prepare(c *Client, natsSubject string, ev *Event, opts []PubOpt) (*nats.Msg, string, bool, error) {
	if ev == nil {
		return nil, "", false, malformed("publish", natsSubject, "", errors.New("no event"))
	}
	id := ev.ID
	if id == "" {
		id = NewID()
	}
	now := time.Now()
	if err := checkExpiry(natsSubject, id, ev, now); err != nil {
		return nil, id, false, err
	}
	var msg *nats.Msg
	var err error
	if c.signer != nil {
		msg, err = c.signer.sign(natsSubject, id, ev, now)
	} else {
		msg, err = outgoing(natsSubject, id, ev, now)
	}
	if err != nil || len(opts) == 0 {
		return msg, id, false, err
	}
	p, err := pubOptions(opts)
	if err != nil {
		return nil, id, false, err
	}
	if p.plan != nil {
		// As the broker tells events apart: what waits for one is never in the way of another.
		p.plan.token = digest(c.caller, cmp.Or(ev.Source, "/"+c.caller), id)
	}
	return msg, id, p.noRetry, p.apply(msg, id, ev, now)
}

func pubOptions(opts []PubOpt) (*pubConfig, error) {
	p := new(pubConfig)
	for _, o := range opts {
		if err := o(p); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *pubConfig) setHeader(msg *nats.Msg) {
	for _, h := range p.header {
		msg.Header[h[0]] = []string{h[1]}
	}
}

// pubAnswer is the union of JetStream's PubAck and wire.ErrorAnswer.
type pubAnswer struct {
	Stream    string         `json:"stream"`
	Sequence  uint64         `json:"seq"`
	Duplicate bool           `json:"duplicate"`
	Error     *wire.APIError `json:"error"`
	Problem   *wire.Problem  `json:"problem"`

	Receipt json.RawMessage `json:"receipt"`
}

func readAck(natsSubject, id string, answer reply, err error) (*Ack, error) {
	if err != nil {
		return nil, withEvent(fromTransport("publish", natsSubject, err), id)
	}
	var a pubAnswer
	if err := json.Unmarshal(answer.Data, &a); err != nil || a.Error == nil && a.Stream == "" {
		return nil, &Error{
			Op: "publish", Class: string(wire.ClassInternal), Title: "the answer is not an acknowledgement, the outcome is unknown",
			Subject: natsSubject, EventID: id, Err: err,
		}
	}
	if a.Error != nil {
		e := fromAPI("publish", *a.Error, a.Problem)
		e.Subject = natsSubject
		if answer.resent && e.Code == int(wire.CodeOutsideReplayWindow) {
			// The refusal is of the second sending; the first may be stored.
			e.Class, e.Title, e.Err = string(wire.ClassInternal), "it grew too old before it could be sent again, the outcome is unknown", ErrOutcomeUnknown
		}
		return nil, withEvent(e, id)
	}
	return &Ack{Stream: a.Stream, Sequence: a.Sequence, Duplicate: a.Duplicate, EventID: id, Receipt: a.Receipt}, nil
}

func withEvent(err error, id string) error {
	var e *Error
	if errors.As(err, &e) {
		e.EventID = id
	}
	return err
}
